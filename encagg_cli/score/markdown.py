"""A score as Markdown: for a file, a merge request, or the summary of a GitHub job.

Text from files is set as code, which no Markdown, HTML, mention or link can break out of: backticks, bars and control
characters in it become visible escapes.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from encagg_cli import console
from encagg_cli.score import wording
from encagg_cli.score.gate import Outcome, shown
from encagg_cli.score.metrics import METRICS

if TYPE_CHECKING:
    from encagg_cli.score.scorer import MethodScore, Score

_SHOWN: Final = ("precision", "recall", "f1", "fpr", "benign_retention", "auroc", "average_precision", "clean_fpr")
_WITH_INTERVAL: Final = ("precision", "recall", "f1", "fpr", "auroc")
_LONGEST: Final = 200
_LONGEST_SIGNATURE: Final = 100_000
_END_OF_DETAILS: Final = "</details>"
_CUT: Final = "\n_Cut short here: the rest did not fit._\n"
_LONGEST_CUT: Final = len(f"{_END_OF_DETAILS}\n{_CUT}")


def render(score: "Score", outcomes: Sequence[Outcome], by: Sequence[str] = (), *, limit: int | None = None) -> str:
    """The document; with `limit`, at most so many bytes of UTF-8, what matters most first."""
    return _fit(_lines(score, outcomes, by), limit)


def _lines(score: "Score", outcomes: Sequence[Outcome], by: Sequence[str]) -> Iterator[str]:
    yield f"### encagg score: {wording.verdict_on(outcomes)}"
    yield ""
    yield f"{wording.about(score)}."
    yield ""
    if outcomes:
        yield from _table("lrrl", ("gate", "figure", "outcome", "why"), (_gate_row(outcome) for outcome in outcomes))
    yield from _figures(score)
    for one in score.methods:
        if one.attacks:
            yield from _details(one, "attack")
        for table in by:
            if table in {"round", "client"}:
                yield from _details(one, table)
    yield "<details><summary>signature</summary>"
    yield ""
    yield _span(str(score.signature), _LONGEST_SIGNATURE)
    yield ""
    yield _END_OF_DETAILS


def _gate_row(outcome: Outcome) -> tuple[str, ...]:
    figure = wording.UNDEFINED if outcome.figure is None else shown(outcome.figure)
    return _code(outcome.name), figure, "passed" if outcome.passed else "**failed**", _code(outcome.why)


def _figures(score: "Score") -> Iterator[str]:
    names = _SHOWN if score.has_labels else ("rejected",)
    headings = ("method", *(METRICS[name].label for name in names))
    rows = []
    filters, aggregates = wording.filters_and_aggregates(score)
    for one in (*filters, *aggregates):
        cells = []
        for name in names:
            pair = one.total.intervals[name] if name in _WITH_INTERVAL else None
            cells.append(wording.cell(one.total.figures[name]) + (f" ({wording.interval(pair)})" if pair else ""))
        rows.append((_code(one.method) + (" \\*" if one in aggregates else ""), *cells))
    yield from _table("l" + "r" * len(names), headings, rows)
    yield "In brackets: 95 % intervals, rounds resampled. A dash is an undefined figure."
    if aggregates:
        yield f"\\*: {wording.AGGREGATES}."
    yield ""


def _details(one: "MethodScore", by: str) -> Iterator[str]:
    yield f"<details><summary>by {by}, <code>{_html(one.method)}</code></summary>"
    yield ""
    headings = (by, "rounds", "uploads", "poisoned", *(METRICS[name].label for name in _SHOWN[:-1]))
    rows = (
        (
            _code(name),
            str(counts["rounds"]),
            str(counts["uploads"]),
            str(counts["poisoned"]),
            *(wording.cell(figures[metric]) for metric in _SHOWN[:-1]),
        )
        for name, counts, figures in wording.rows_by(one, by)
    )
    yield from _table("l" + "r" * (len(headings) - 1), headings, rows)
    yield _END_OF_DETAILS
    yield ""


def _table(
    alignment: str, headings: Sequence[str], rows: "Iterator[tuple[str, ...]] | list[tuple[str, ...]]"
) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'|'.join('---:' if side == 'r' else ':---' for side in alignment)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _code(text: str) -> str:
    """Text from a file as a code span that a table's cell can hold."""
    return _span(text.replace("|", "\\x7c"), _LONGEST)


def _span(text: str, longest: int) -> str:
    """Text from a file as a code span of one line."""
    visible = console.plain(text).replace("`", "\\x60")
    if len(visible) > longest:
        visible = f"{visible[: longest - 3]}..."
    return f"`{visible}`" if visible.strip() else ""


def _html(text: str) -> str:
    """Text from a file inside an HTML element: every character that could end it is a reference."""
    return "".join(
        char if char.isalnum() and char.isascii() else f"&#{ord(char)};" for char in console.plain(text)[:_LONGEST]
    )


def _fit(lines: Iterator[str], limit: int | None) -> str:
    """Lines joined; cut before the line that would not fit, with a note that something is missing."""
    kept: list[str] = []
    used = 0
    for line in lines:
        size = len(line.encode()) + 1
        if limit is not None and used + size + _LONGEST_CUT > limit:
            if used + _LONGEST_CUT > limit:
                return ""
            opened = sum(old.startswith("<details>") - (old == _END_OF_DETAILS) for old in kept)
            return "\n".join([*kept, *[_END_OF_DETAILS] * opened, _CUT])
        kept.append(line)
        used += size
    return "\n".join(kept) + "\n"
