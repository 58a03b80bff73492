"""A score on a terminal of 80 columns: figures, gates, and a picture of the verdicts by round.

Every line begins with a border or words of ours: text from files at the start of a line could be a command to a CI
server (`::error::…`).
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from encagg_cli import console
from encagg_cli.score import wording
from encagg_cli.score.gate import Outcome, shown
from encagg_cli.score.metrics import metric_values
from encagg_cli.score.picture import sparkline

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from encagg_cli.score.scorer import MethodScore, Score

_PICTURE_WIDTH: Final = 24
_NARROWEST_PICTURE: Final = 8
_LONGEST: Final = 60
_SHOWN: Final = {"precision": "pre-\ncision", "recall": "recall", "f1": "F1", "fpr": "FPR", "auroc": "AUROC"}
_BY_CLIENT: Final = ("recall", "fpr", "rejected")
_COUNTS: Final = ("rounds", "uploads", "rejected")


def render(score: "Score", outcomes: Sequence[Outcome], by: Sequence[str], to: "Console") -> "Iterator[RenderableType]":
    """What to print, in order."""
    yield Text(f"{wording.about(score)}.")
    yield _figures(score, to)
    if wording.filters_and_aggregates(score)[1]:
        yield Text(f"*: {wording.AGGREGATES}.")
    yield _picture(score, to)
    for one in score.methods:
        for table in by:
            if table != "method":
                yield _breakdown(one, table, to)
    if outcomes:
        yield _gates(outcomes, to)


def _figures(score: "Score", to: "Console") -> Table:
    names = (*_SHOWN, "clean_fpr") if score.has_labels else ("rounds", "uploads", "rejected", "share")
    headings = dict(zip(names, (*_SHOWN.values(), "clean\nFPR") if score.has_labels else names, strict=True))
    if score.has_labels:
        headings["interval"] = "F1, 95 %"
    filters, aggregates = wording.filters_and_aggregates(score)

    def make(left_out: frozenset[str]) -> Table:
        table = Table(pad_edge=False, collapse_padding=True)
        table.add_column("method", overflow="fold", min_width=console.name_width(one.method for one in score.methods))
        for heading in headings.values():
            if heading not in left_out:
                table.add_column(heading, justify="right", no_wrap=True)
        for one in (*filters, *aggregates):
            cells = [_cell(one, name) for name, heading in headings.items() if heading not in left_out]
            mark = Text(" *") if one in aggregates else Text()
            ends = bool(aggregates) and bool(filters) and one is filters[-1]
            table.add_row(_safe(one.method, to) + mark, *cells, end_section=ends)
        return table

    order = ("interval", "clean_fpr", "auroc", "precision", "fpr", "recall", "rounds", "uploads", "rejected")
    return console.narrowed(make, [headings[name] for name in order if name in headings], to)


def _cell(one: "MethodScore", name: str) -> str:
    if name == "interval":
        return wording.interval(one.total.intervals["f1"])
    if name == "share":
        return wording.cell(one.total.figures["rejected"])
    return str(one.total.count(name)) if name in _COUNTS else wording.cell(one.total.figures[name])


def _picture(score: "Score", to: "Console") -> Table:
    rounds = score.methods[0].rounds.names
    shown, aggregates = wording.filters_and_aggregates(score)
    shown = shown or aggregates
    metrics = {"recall": "poisoned caught", "fpr": "honest lost"} if score.has_labels else {"rejected": "rejected"}
    least = console.name_width(one.method for one in shown)
    room = (to.width - least - 4) // len(metrics) - 3
    width = max(min(_PICTURE_WIDTH, room), _NARROWEST_PICTURE)

    def make(left_out: frozenset[str]) -> Table:
        table = Table(title=f"by round, {rounds[0]} to {rounds[-1]}", title_justify="left", title_style="")
        table.add_column("method", overflow="fold", min_width=least)
        kept = [name for name, heading in metrics.items() if heading not in left_out]
        for name in kept:
            table.add_column(metrics[name], min_width=min(len(rounds), width))
        for one in shown:
            values = metric_values(one.rounds.counts)
            table.add_row(_safe(one.method, to), *(_line(values[name].tolist(), width, to) for name in kept))
        return table

    return console.narrowed(make, ["honest lost"] if score.has_labels else [], to)


def _line(values: list[float], width: int, to: "Console") -> Text:
    known = [None if math.isnan(value) else value for value in values]
    return Text(sparkline(known, width, ascii_only=to.options.ascii_only), no_wrap=True)


def _breakdown(one: "MethodScore", by: str, to: "Console") -> Table:
    rows = [(_safe(name, to), counts, figures) for name, counts, figures in wording.rows_by(one, by)]
    size = "uploads" if by == "round" else "rounds"
    metrics = _BY_CLIENT if by == "client" else tuple(_SHOWN)
    headings = {name: name.upper() if name in {"f1", "fpr", "auroc"} else name for name in (size, "poisoned", *metrics)}

    def make(left_out: frozenset[str]) -> Table:
        title = Text(f"{by}s, ").append_text(_safe(one.method, to))
        table = Table(title=title, title_justify="left", title_style="")
        table.add_column(by, overflow="fold", min_width=console.name_width(name.plain for name, _, _ in rows))
        kept = [name for name, heading in headings.items() if heading not in left_out]
        for name in kept:
            table.add_column(headings[name], justify="right", no_wrap=True)
        for label, counts, figures in rows:
            table.add_row(label, *(str(counts[n]) if n in counts else wording.cell(figures[n]) for n in kept))
        return table

    order = (size, "auroc", "precision", "poisoned", "rejected", "fpr", "f1")
    return console.narrowed(make, [headings[name] for name in order if name in headings], to)


def _gates(outcomes: Sequence[Outcome], to: "Console") -> Table:
    table = Table(title=wording.verdict_on(outcomes), title_justify="left", title_style="")
    table.add_column("")
    table.add_column("gate", overflow="fold")
    table.add_column("figure", justify="right", no_wrap=True)
    failed = any(not outcome.passed for outcome in outcomes)
    if failed:
        table.add_column("why", overflow="fold")
    for outcome in outcomes:
        mark = Text("passed", style="green") if outcome.passed else Text("FAILED", style="bold red")
        figure = wording.UNDEFINED if outcome.figure is None else shown(outcome.figure)
        why = (_safe(outcome.why, to, longest=400),) if failed else ()
        table.add_row(mark, _safe(outcome.name, to, longest=200), figure, *why)
    return table


def _safe(text: str, to: "Console", *, longest: int = _LONGEST) -> Text:
    """Text from a file for this terminal: no control characters, not endless, nothing that its encoding lacks."""
    visible = console.plain(text)
    if len(visible) > longest:
        visible = f"{visible[: longest - 3]}..."
    return Text(visible.encode(to.encoding, "backslashreplace").decode(to.encoding))
