"""`encagg methods`: the catalogue, for people and for programs."""

import json
from collections.abc import Callable

import pytest

from encagg_cli.cli import main
from encagg_cli.filters import available


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["methods", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_lists_every_filter_with_source_grade_needs_and_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    for name in available():
        assert name in out
    for text in ("f=none", "Blanchard", "needs the number of attackers", "(earlier rounds)"):
        assert text in out


def test_json_is_one_document_with_all_that_is_declared(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["schema"] == "encagg-methods-1"
    methods = {method["name"]: method for method in document["methods"]}
    assert tuple(methods) == available()
    assert methods["fltrust"]["needs"] == ["the stored root gradient"]
    assert methods["median"]["aggregate"] == "coordinate-wise"
    assert methods["flame"]["uses"] == ["the stored global model"]
    for method in methods.values():
        assert method["grade"] in {"A", "B", "C"}
        assert method["source"]
        assert method["description"]
        assert all(setting["help"] for setting in method["settings"])
    assert {s["name"]: s["default"] for s in methods["krum"]["settings"]} == {"f": None, "relaxed": False}


def test_tells_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "trimmed-mean")
    assert code == 0
    assert "Yin et al." in out
    assert "reject_above" in out
    assert "median" not in out.splitlines()[0]


def test_an_unknown_method_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "crumb")
    assert code == 2
    assert not out
    assert "there is no method 'crumb'" in err
    assert "multi-krum" in err


def test_what_only_aggregates_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--json")
    methods = json.loads(out)["methods"]
    assert {method["name"] for method in methods if not method["rejects"]} == {
        "mean",
        "median",
        "trimmed-mean",
        "norm-bound",
        "lasa",
    }
    assert "aggregates only: rejects nobody" in run(capsys, "median")[1]
    assert "aggregates only" not in run(capsys, "krum")[1]


@pytest.mark.parametrize("name", available())
def test_a_description_is_for_users(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = run(capsys, name)
    assert code == 0
    for internal in (".md", ".py", "this file", "`judge`"):
        assert internal not in out


@pytest.mark.parametrize("width", [40, 60])
def test_names_of_methods_and_settings_are_whole_on_narrow_terminals(
    capsys: pytest.CaptureFixture[str], set_columns: Callable[[int], None], width: int
) -> None:
    set_columns(width)
    listed = run(capsys)[1].splitlines()
    assert all(any(line.startswith(f"{name} ") for line in listed) for name in available())
    one = run(capsys, "encagg")[1].splitlines()
    assert all(any(line.startswith(f"{setting} ") for line in one) for setting in ("min_samples", "learning_rate"))
    assert max(map(len, (*listed, *one))) <= width
