"""A bench's summary as rows of text, for terminals and Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from encagg_cli.bench.against_oracle import Gap
from encagg_cli.bench.summary import MethodSummary
from encagg_cli.bench.table import NO_FILTER, ORACLE

HEADINGS = ("method", "F1", "±", "worst", "FPR", "clean", "AUROC", "ms")
HARM_HEADINGS = ("method", "harm", "of no filter's", "angle")
GAP_HEADINGS = ("attack", "F1", "oracle", "gap")


@dataclass(frozen=True)
class Section:
    """A table under a title."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(summaries: Sequence[MethodSummary], gaps: Sequence[Gap]) -> Iterator[Section]:
    """Of one run: detection, harm, and the gap to what the data allow; no wider than a terminal."""
    yield Section(summaries[0].run, HEADINGS, [cells(summary) for summary in summaries if summary.method != NO_FILTER])
    harmed = [summary for summary in summaries if summary.harm is not None]
    if harmed:
        harmed.sort(key=lambda summary: (summary.method != NO_FILTER, _order(summary)))
        yield Section("harm to the aggregate", HARM_HEADINGS, [_harm_cells(summary) for summary in harmed])
    for method in dict.fromkeys(gap.method for gap in gaps):
        rows = [
            (gap.attack, _figure(gap.f1, 2), _figure(gap.oracle, 2), _figure(gap.gap, 2))
            for gap in gaps
            if gap.method == method
        ]
        yield Section(f"{_short(method)} against the best oracle", GAP_HEADINGS, rows)


def cells(summary: MethodSummary) -> tuple[str, ...]:
    """One row under `HEADINGS`."""
    spread = "" if summary.interval is None else f"{(summary.interval[1] - summary.interval[0]) / 2:.2f}"
    return (
        _name(summary),
        _figure(summary.f1, 3),
        spread,
        "-" if summary.worst is None else _figure(summary.worst[1], 2),
        _figure(summary.fpr, 3),
        _figure(summary.clean_fpr, 3),
        _figure(summary.auroc, 3),
        _figure(summary.milliseconds, 1),
    )


def as_markdown(summaries: Sequence[MethodSummary], gaps: Sequence[Gap] = ()) -> str:
    """The tables of every run, and the F1 by attack of every method."""
    parts: list[str] = []
    for run in dict.fromkeys(summary.run for summary in summaries):
        chosen = [summary for summary in summaries if summary.run == run]
        for index, section in enumerate(sections(chosen, [gap for gap in gaps if gap.run == run])):
            heading = f"{'#' * (2 if index == 0 else 3)} {_escape(section.title)}"
            parts += [heading, "", _table(section.headings, section.rows), ""]
        attacks = list(dict.fromkeys(name for summary in chosen for name in summary.by_attack))
        rows = [
            (_name(summary), *(_figure(summary.by_attack.get(name), 2) for name in attacks))
            for summary in chosen
            if summary.method != NO_FILTER
        ]
        parts += ["### F1 by attack", "", _table(("method", *attacks), rows), ""]
    return "\n".join(parts)


def _harm_cells(summary: MethodSummary) -> tuple[str, ...]:
    share = "-" if summary.harm_share is None else f"{summary.harm_share:.2f}"
    angle = "-" if summary.angle is None else f"{summary.angle:.1f}°"
    return _name(summary), _figure(summary.harm, 3), share, angle


def _order(summary: MethodSummary) -> float:
    """By harm relative to no filter, least first."""
    return float("inf") if summary.harm_share is None else summary.harm_share


def _name(summary: MethodSummary) -> str:
    name = _short(summary.method)
    return f"{name}*" if summary.told_f and not name.startswith(ORACLE) else name


def _short(method: str) -> str:
    return method.replace("(f=oracle,relaxed=true)", "").replace("f=oracle,relaxed=true", "")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_escape, headings)) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")
