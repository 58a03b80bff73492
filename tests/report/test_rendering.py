"""The page as text: whole, small, closed to the network, and safe from what it shows."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from encagg_cli.report.document import make_document
from encagg_cli.report.page import plotting_library, render
from encagg_cli.verdicts.reader import Verdicts

pytest.importorskip("vl_convert")

Save = Callable[..., Path]
Rows = Callable[..., list[dict[str, Any]]]


class Page(HTMLParser):
    """Elements as (tag, attributes), and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self._open: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag if tag in self.texts else None
        if self._open:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data


def page_of(path: Path) -> tuple[str, Page]:
    with Verdicts(path) as verdicts:
        text = render(make_document(verdicts))
    return text, Page(text)


def test_the_page_refers_to_nothing_outside(path: Path) -> None:
    _, page = page_of(path)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "poster", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"@import|url\(", page.texts["style"][0])


def test_its_policy_allows_two_scripts_by_digest_and_no_network(path: Path) -> None:
    _, page = page_of(path)
    [policy] = [found["content"] for _, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"]
    rules = {name: rest for name, _, rest in (rule.strip().partition(" ") for rule in (policy or "").split(";"))}
    data, *scripts = page.texts["script"]
    digests = [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert len(digests) == 2
    assert rules["script-src"].split() == digests
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert json.loads(data)["title"] == "v.parquet"


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "@@SCRIPT@@",
    "two\nlines\r\n\u2028\u2029",
    "quotes ' \" ` ${alert(1)}",
    "\u0000\u001b[31m\u202eright to left",
    "long " * 400,
    "__proto__",
]


def test_client_ids_stay_data(tmp_path: Path, save_verdicts: Save) -> None:
    rows = [{"round": 0, "client_id": client, "reason": client, "attack": client} for client in HOSTILE]
    plain = page_of(save_verdicts(tmp_path / "plain.parquet", [{"round": 0, "client_id": "a"}]))[1]
    hostile = page_of(
        save_verdicts(tmp_path / "</title><b>.parquet".replace("/", "∕"), rows, signature={"<": "</script>"})
    )[1]
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    document = json.loads(hostile.texts["script"][0])
    assert document["clients"] == sorted(HOSTILE)
    assert document["signature"] == {"<": "</script>"}
    assert hostile.texts["script"][1:] == plain.texts["script"][1:]


def test_a_hundred_rounds_of_a_hundred_clients_stay_under_five_megabytes(
    tmp_path: Path, save_verdicts: Save, some_rows: Rows
) -> None:
    rows = some_rows(
        rounds=100, clients=100, methods=("encagg", "multi-krum(f=20)", "flame"), name="client-{:03d}".format
    )
    text, _ = page_of(save_verdicts(tmp_path / "v.parquet", rows))
    assert len(text.encode()) < 5_000_000


def test_the_library_can_stand_in_a_page() -> None:
    library = plotting_library()
    assert "</script" not in library
    assert "<!--" not in library
    assert "\r" not in library
