"""Arguments that several subcommands read."""

from pathlib import Path

import pytest

from encagg_cli.cli.arguments import parse_clients, parse_rounds, parse_settings
from encagg_cli.errors import UsageError


def test_clients_are_named_in_line_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trusted.txt"
    file.write_text("# hospitals\nhospital-1\n\n hospital-2 \n", encoding="utf-8")
    assert parse_clients("hospital-1, hospital-2") == ["hospital-1", "hospital-2"]
    assert parse_clients(f"@{file}") == ["hospital-1", "hospital-2"]


def test_a_list_of_clients_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        parse_clients(f"@{tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (None, [1, 2, 3, 5, 9]),
        ("2:5", [2, 3]),
        (":3", [1, 2]),
        ("3:", [3, 5, 9]),
        ("5", [5]),
        ("9,1:3", [1, 2, 9]),
        ("1:4,2:6", [1, 2, 3, 5]),
    ],
)
def test_rounds_are_half_open_ranges_of_what_is_stored(text: str | None, chosen: list[int]) -> None:
    assert parse_rounds(text, [1, 2, 3, 5, 9]) == chosen


@pytest.mark.parametrize("text", ["4", "6:9", "a:b", "", "1:2:3", "20:"])
def test_rounds_that_name_nothing_stored_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rounds(text, [1, 2, 3, 5, 9])


def test_settings_are_grouped_by_method() -> None:
    parsed = parse_settings(["multi-krum.f=8", "encagg.r=0.3", "multi-krum.relaxed=true"])
    assert parsed == {"multi-krum": {"f": "8", "relaxed": "true"}, "encagg": {"r": "0.3"}}


@pytest.mark.parametrize("text", ["f=8", "multi-krum.f", ".f=8", "multi-krum.=8"])
def test_settings_without_method_key_and_value_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_settings([text])
