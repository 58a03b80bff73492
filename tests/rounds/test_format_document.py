"""FORMAT.md names everything that the code spells."""

from pathlib import Path

import pytest

from encagg_cli.rounds import layout

DOCUMENT = (Path(layout.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
SPELLED = {value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
NOT_NAMES = {layout.VECTOR_AS, layout.PARTIAL_SUFFIX}
NAMES = sorted((SPELLED - NOT_NAMES) | {*layout.UPDATE_KINDS, *layout.STORED_TYPES})


@pytest.mark.parametrize("name", NAMES)
def test_the_format_document_names(name: str):
    assert f"`{name}`" in DOCUMENT or f"`/{name}`" in DOCUMENT or f"`/{name}/" in DOCUMENT


def test_the_format_document_is_of_this_version():
    assert f"`{layout.FORMAT}`, version {layout.FORMAT_VERSION}" in DOCUMENT.splitlines()[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("round-000012.h5", (12, None)),
        ("round-1234567.h5", (1234567, None)),
        ("round-000012.p77-ab12.h5", (12, "p77-ab12")),
        ("round-12.h5", None),
        ("round-0000012.h5", None),
        ("round-٠٠٠٠١٢.h5", None),
        ("round-9999999999.h5", None),
        ("round-000012.h5.partial", None),
        ("round-000012.a.b.h5", None),
        ("xround-000012.h5", None),
    ],
)
def test_only_names_of_round_files_are_taken_for_them(name: str, expected):
    assert layout.parse_round_file_name(name) == expected
