"""Every form that a score takes: what it says, and that text from files can do nothing in it."""

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import junitparser
import pytest
import xmlschema
from rich.console import Console

from encagg_cli.score import github, junit, markdown, sheet, text, wording
from encagg_cli.score import json as json_format
from encagg_cli.score.gate import Bound, Outcome, judge
from encagg_cli.score.picture import sparkline
from encagg_cli.score.scorer import Score, score_verdicts
from encagg_cli.verdicts.reader import Verdicts

Save = Callable[..., Path]
JUNIT = xmlschema.XMLSchema(Path(__file__).parent / "data" / "junit.xsd")

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "line\nbreak",
    "\n::error title=x::forged",
    "::error::forged",
    "::set-env name=A::b",
    "##[error]forged",
    "x ##vso[task.complete result=Succeeded;]",
    "##teamcity[buildStatus status='SUCCESS']",
    "\x1b[2J\x1b]0;title\x07",
    "\x00\x01\x08\x0b\x0c\x1f\x7f\x9b",
    "\ufffe\uffff",
    "\u202egnp.exe",
    "a | b | c",
    "`` ` ```",
    "[click](javascript:alert(1)) ![x](http://tracker/x.png) @everyone #1",
    "</details></code></td></tr></table>",
    "]]>",
    "&lt;&amp;",
    "[bold red]markup[/]",
    '=HYPERLINK("http://evil")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "＝1+1",
    "%0A::error::forged",
    "x" * 5000,
    "",
    " ",
]


def hostile_rows() -> list[dict[str, Any]]:
    return [
        {
            "round": number,
            "client_id": word,
            "method": method,
            "accepted": index % 2 == 0,
            "score": float(index % 2),
            "poisoned": index % 3 == 0,
            "attack": word if index % 3 == 0 else None,
            "reason": word,
        }
        for number in (1, 2)
        for method in ("encagg", *HOSTILE[:12])
        for index, word in enumerate(HOSTILE)
    ]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, save_verdicts: Save) -> tuple[Score, list[Outcome]]:
    path = save_verdicts(tmp_path_factory.mktemp("h") / "v.parquet", hostile_rows(), signature={"::error::x": HOSTILE})
    with Verdicts(path) as verdicts:
        score = score_verdicts(verdicts, by_client=True, resamples=10)
    bounds = [Bound("recall", ">=", 0.9), *(Bound("recall", ">=", 0.9, word) for word in (*HOSTILE, "::error::gone"))]
    return score, judge(score, bounds)


@pytest.fixture
def ordinary(tmp_path: Path, save_verdicts: Save) -> Score:
    rows = [
        {
            "round": number,
            "client_id": f"c{client}",
            "method": method,
            "accepted": client >= 3 or (method == "multi-krum(f=8)" and number % 3 == 0),
            "score": 0.9 if client < 3 else 0.1,
            "poisoned": client < 3 and number > 5,
            "attack": "lie" if client < 3 and number > 5 else None,
            "trusted": client == 9,
        }
        for number in range(100)
        for method in ("cosine-to-known-benign", "encagg", "multi-krum(f=8)")
        for client in range(10)
    ]
    with Verdicts(save_verdicts(tmp_path / "ordinary.parquet", rows)) as verdicts:
        return score_verdicts(verdicts, by_client=True, resamples=50)


def in_terminal(
    score: Score, outcomes: Sequence[Outcome], by: Sequence[str] = (), encoding: str = "utf-8", width: int = 80
) -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    to = Console(file=buffer, width=width, force_terminal=False)
    for part in text.render(score, outcomes, by, to):
        to.print(part)
    buffer.flush()
    return buffer.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


class TestText:
    def test_it_fits_80_columns_and_shows_figures_gates_and_picture(self, ordinary: Score) -> None:
        outcomes = judge(ordinary, [Bound("recall", ">=", 0.9), Bound("fpr", "<=", 0.2)])
        shown = in_terminal(ordinary, outcomes, ["round", "attack", "client"])
        assert max(map(len, shown.splitlines())) <= 80
        for part in ("900 uploads in 100 rounds: 282 poisoned, 618 honest", "not counted: 100 of known-benign"):
            assert part in " ".join(shown.split())
        encagg = next(line for line in shown.splitlines() if line.startswith("│encagg "))
        cells = [cell.strip() for cell in encagg.split("│")]
        assert cells[2:8] == ["0.940", "1.000", "0.969", "0.029", "1.000", "0.333"]
        assert "by round, 0 to 99" in shown
        assert "1 of 6 gates failed" in shown

    @pytest.mark.parametrize("width", [36, 50, 66, 80])
    def test_however_narrow_it_is_the_names_are_whole(self, ordinary: Score, width: int) -> None:
        shown = in_terminal(ordinary, [], ["round", "attack", "client"], width=width)
        assert max(map(len, shown.splitlines())) <= width
        rows = [line for line in shown.splitlines() if line.startswith("│cosine-to-known-benign")]
        assert len(rows) == 1
        assert re.search(r"0\.\d\d\d", rows[0])
        assert sum("cosine-to-known-benign" in line for line in shown.splitlines()) >= 2
        assert ("too narrow for" in shown) == (width < 80)

    def test_what_only_aggregates_is_marked_and_comes_last(self, tmp_path: Path, save_verdicts: Save) -> None:
        rows = [
            {"round": 1, "client_id": f"c{i}", "method": method, "accepted": not (method == "flame" and i == 0)}
            | {"poisoned": i == 0}
            for method in ("mean", "flame", "median", "median(reject_above=0.5)", "of another version")
            for i in range(4)
        ]
        with Verdicts(save_verdicts(tmp_path / "v.parquet", rows)) as verdicts:
            score = score_verdicts(verdicts)
        for shown in (in_terminal(score, []), markdown.render(score, [])):
            lines = [re.sub(r"[│|`\\]", "", line).strip() for line in shown.splitlines() if line[:1] in {"│", "|"}]
            first = {line.split("  ")[0].split(" -")[0]: number for number, line in reversed(list(enumerate(lines)))}
            aggregates = [first["mean *"], first["median *"]]
            filters = [first[name] for name in ("flame", "median(reject_above=0.5)", "of another version")]
            assert max(filters) < min(aggregates)
            assert "*: aggregates only, and rejects nobody." in shown

    def test_without_labels_it_shows_what_was_rejected(self, tmp_path: Path, save_verdicts: Save) -> None:
        rows = [{"round": 1, "client_id": f"c{i}", "accepted": i > 0} for i in range(4)]
        with Verdicts(save_verdicts(tmp_path / "v.parquet", rows)) as verdicts:
            shown = in_terminal(score_verdicts(verdicts), [])
        assert "0.250" in shown
        assert "recall" not in shown

    @pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
    def test_hostile_text_stays_text(self, hostile: tuple[Score, list[Outcome]], encoding: str) -> None:
        score, outcomes = hostile
        shown = in_terminal(score, outcomes, ["attack", "client", "round"], encoding)
        assert_no_control(shown)
        assert_no_command(shown)
        assert max(map(len, shown.splitlines())) <= 80

    def test_a_share_is_never_rounded_to_what_it_is_not(self) -> None:
        assert [wording.cell(value) for value in (None, 0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)] == [
            "-", "0.000", "0.000+", "0.500", "0.999+", "1.000",
        ]  # fmt: skip


class TestPicture:
    def test_shares_become_blocks(self) -> None:
        assert sparkline([0, 0.01, 0.5, 1.0, None], 10) == "·▁▅█ "
        assert sparkline([0, 0.01, 0.5, 1.0, None], 10, ascii_only=True) == "'_+# "

    def test_many_are_averaged_in_groups(self) -> None:
        assert sparkline([0.0, 1.0, None, 1.0, None, None], 3) == "▅█ "
        assert len(sparkline([0.5] * 1000, 24)) == 24


class TestJson:
    def test_it_says_what_the_schema_says(self, ordinary: Score) -> None:
        outcomes = judge(ordinary, [Bound("recall", ">=", 0.9), Bound("recall", ">=", 0.5, "lie")])
        document = json.loads(json_format.render(ordinary, outcomes, ["round", "client"]))
        assert document["schema"] == "encagg-score-1"
        assert document["passed"] is False
        first = document["methods"][1]
        assert first["method"] == "encagg"
        assert first["metrics"]["recall"] == 1.0
        assert first["counts"]["poisoned"] == 282
        assert first["attacks"][0]["attack"] == "lie"
        assert len(first["rounds"]) == 100
        assert [row["client_id"] for row in first["clients"]][:2] == ["c0", "c1"]
        assert document["gates"][0] == {
            "method": "multi-krum(f=8)",
            "metric": "recall",
            "attack": None,
            "relation": ">=",
            "figure": first["metrics"]["recall"] * 186 / 282,
            "bound": 0.9,
            "baseline": None,
            "drop": None,
            "passed": False,
            "why": document["gates"][0]["why"],
        }

    def test_every_key_is_documented(self, ordinary: Score) -> None:
        documented = (Path(json_format.__file__).parent / "SCHEMA.md").read_text(encoding="utf-8")
        outcomes = judge(ordinary, [Bound("recall", ">=", 0.9)])
        document = json_format.as_document(ordinary, outcomes, ["round", "client"])
        for key in keys(document):
            assert f"`{key}`" in documented, key

    def test_undefined_is_null_and_hostile_text_is_escaped(self, hostile: tuple[Score, list[Outcome]]) -> None:
        rendered = json_format.render(*hostile, ["round", "client"])
        assert rendered.isascii()
        assert_no_control(rendered)
        assert_no_command(rendered)
        document = json.loads(rendered, parse_constant=pytest.fail)
        assert {row["client_id"] for row in document["methods"][0]["clients"]} == set(HOSTILE)


def keys(document: Any) -> set[str]:
    """Names of members, but for those of maps whose keys are data."""
    if isinstance(document, list):
        return {key for item in document for key in keys(item)}
    if not isinstance(document, dict):
        return set()
    inner = {key for name, value in document.items() if name not in {"signature", "examples"} for key in keys(value)}
    return set(document) | inner


class TestJunit:
    def test_it_is_valid_and_a_real_parser_reads_it_back(self, ordinary: Score) -> None:
        outcomes = judge(ordinary, [Bound("recall", ">=", 0.9), Bound("fpr", "<=", 0.2)])
        report = junit.render(outcomes, str(ordinary.signature))
        JUNIT.validate(io.BytesIO(report))
        parsed = junitparser.JUnitXml.fromstring(report)
        assert (parsed.tests, parsed.failures, parsed.errors) == (7, 1, 0)
        (suite,) = parsed
        cases = list(suite)
        assert cases[0].name == "scored"
        (failure,) = cases[1].result
        assert cases[1].name == "multi-krum(f=8): recall >= 0.9"
        assert failure.message == failure.text == "multi-krum(f=8): recall >= 0.9: 0.659574 is below 0.9"
        assert all(case.is_passed for case in cases if case is not cases[1])

    def test_it_is_written_without_gates_too(self) -> None:
        report = junit.render([])
        JUNIT.validate(io.BytesIO(report))
        assert [case.name for suite in junitparser.JUnitXml.fromstring(report) for case in suite] == ["scored"]

    def test_where_nothing_was_scored_it_is_an_error(self) -> None:
        report = junit.render([], error="no upload has a label")
        JUNIT.validate(io.BytesIO(report))
        parsed = junitparser.JUnitXml.fromstring(report)
        assert (parsed.tests, parsed.failures, parsed.errors) == (1, 0, 1)

    def test_hostile_text_is_valid_and_names_stay_unique(self, hostile: tuple[Score, list[Outcome]]) -> None:
        _, outcomes = hostile
        twins = [*outcomes, *outcomes[:3]]
        report = junit.render(twins, "::error::x\x1b")
        JUNIT.validate(io.BytesIO(report))
        cases = list(ET.fromstring(report).iter("testcase"))
        assert len({case.get("name") for case in cases}) == len(twins) + 1
        assert_no_control(report.decode())
        assert_no_command(report.decode())


class TestMarkdown:
    def test_it_shows_gates_figures_and_signature(self, ordinary: Score) -> None:
        outcomes = judge(ordinary, [Bound("recall", ">=", 0.9)])
        document = markdown.render(ordinary, outcomes, ["round"])
        assert "### encagg score: 1 of 3 gates failed" in document
        assert "| `multi-krum(f=8): recall >= 0.9` | 0.659574 | **failed** | `0.659574 is below 0.9` |" in document
        assert document.count("<details>") == document.count("</details>") == 7
        assert f"`{ordinary.signature}`" in document

    def test_hostile_text_stays_inside_its_cell(self, hostile: tuple[Score, list[Outcome]]) -> None:
        document = markdown.render(*hostile, ["round", "client"])
        assert_no_control(document)
        assert_no_command(document)
        outside = re.sub(r"`[^`\n]*`", "", document)
        assert set(re.findall(r"<[^>]*>", outside)) == {
            "<details>",
            "<summary>",
            "</summary>",
            "<code>",
            "</code>",
            "</details>",
        }
        for bad in ("javascript:", "](", "@", "http:", "<script"):
            assert bad not in outside
        rows = [line for line in document.splitlines() if line.startswith("|")]
        tables = re.findall(r"(?:^\|.*\n)+", document, flags=re.MULTILINE)
        assert len(rows) > 100
        for table in tables:
            assert len({line.count("|") for line in table.splitlines()}) == 1

    @pytest.mark.parametrize("limit", [0, 50, 300, 1000, 5000, 20_000])
    def test_it_is_cut_to_what_fits(self, hostile: tuple[Score, list[Outcome]], limit: int) -> None:
        document = markdown.render(*hostile, ["round", "client"], limit=limit)
        assert len(document.encode()) <= limit
        lines = document.splitlines()
        assert sum(line.startswith("<details>") for line in lines) == lines.count("</details>")
        assert not document or "Cut short here" in document


class TestGithub:
    def test_each_failed_gate_is_one_annotation(self, ordinary: Score) -> None:
        outcomes = judge(ordinary, [Bound("recall", ">=", 0.9), Bound("fpr", "<=", 0.001)])
        lines = list(github.annotations(outcomes))
        assert len(lines) == sum(not outcome.passed for outcome in outcomes) == 4
        assert "::error title=encagg score::multi-krum(f=8): recall >= 0.9: 0.659574 is below 0.9" in lines

    def test_hostile_text_cannot_forge_another(self, hostile: tuple[Score, list[Outcome]]) -> None:
        lines = list(github.annotations(hostile[1]))
        assert lines
        for line in lines:
            assert "\n" not in line
            assert "\r" not in line
            assert line.startswith("::error title=encagg score::")
            assert not re.search("%(?!25)", line)  # what GitHub would decode

    def test_the_summary_counts_what_is_there_already(self, tmp_path: Path) -> None:
        summary = tmp_path / "summary.md"
        assert github.room_in(summary) == 1024 * 1024
        github.append(summary, "one\n")
        github.append(summary, "two\n")
        assert summary.read_text() == "one\ntwo\n"
        assert github.room_in(summary) == 1024 * 1024 - 8


class TestSheet:
    def test_it_has_every_verdict_with_its_outcome(self, tmp_path: Path, save_verdicts: Save) -> None:
        cases = [
            (False, True, False, "caught"),
            (True, True, False, "missed"),
            (False, False, False, "lost"),
            (True, False, False, "kept"),
            (True, None, False, "accepted"),
            (False, None, False, "rejected"),
            (False, None, True, "known-benign"),
        ]
        rows = [
            {"round": 1, "client_id": f"c{i}", "accepted": a, "poisoned": p, "trusted": t, "score": 0.1}
            for i, (a, p, t, _) in enumerate(cases)
        ]
        with Verdicts(save_verdicts(tmp_path / "v.parquet", rows)) as verdicts:
            sheet.write_sheet(verdicts, None, tmp_path / "v.csv")
        with (tmp_path / "v.csv").open(newline="", encoding="utf-8") as stream:
            read = list(csv.DictReader(stream))
        assert [row["outcome"] for row in read] == [outcome for *_, outcome in cases]
        assert [row["poisoned"] for row in read[:5]] == ["true", "true", "false", "false", ""]
        assert read[0]["score"] == "0.1"
        assert read[0]["threshold"] == ""

    def test_no_cell_is_a_formula_and_no_cell_breaks_out(self, tmp_path: Path, save_verdicts: Save) -> None:
        with Verdicts(save_verdicts(tmp_path / "v.parquet", hostile_rows())) as verdicts:
            sheet.write_sheet(verdicts, None, tmp_path / "v.csv")
        raw = (tmp_path / "v.csv").read_text(encoding="utf-8")
        assert_no_control(raw.replace("\r\n", "\n"))
        read = list(csv.reader(io.StringIO(raw, newline="")))
        assert {len(row) for row in read} == {16}
        assert len(read) == len(hostile_rows()) + 1
        assert not [cell for row in read for cell in row if cell[:1] in tuple("=+-@＝") and not is_number(cell)]


def is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def assert_no_control(rendered: str) -> None:
    """No character that a terminal, a browser or an XML parser would act on or refuse."""
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", rendered)


def assert_no_command(rendered: str) -> None:
    """No line that a CI server obeys: `::command` at its start, `##[command]` or `##vso[command]` anywhere."""
    assert not [line for line in rendered.splitlines() if line.lstrip().startswith("::")]
    assert not re.search(r"##\w*\[", rendered)
