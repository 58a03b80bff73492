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
_LONGEST: Final = 60
_SHOWN: Final = {"precision": "pre-\ncision", "recall": "recall", "f1": "F1", "fpr": "FPR", "auroc": "AUROC"}
_BY_CLIENT: Final = ("recall", "fpr", "rejected")


def render(score: "Score", outcomes: Sequence[Outcome], by: Sequence[str], to: "Console") -> "Iterator[RenderableType]":
    """What to print, in order."""
    yield Text(f"{wording.about(score)}.")
    yield _figures(score, to)
    yield _picture(score, to)
    for one in score.methods:
        for table in by:
            if table != "method":
                yield _breakdown(one, table, to)
    if outcomes:
        yield _gates(outcomes, to)


def _figures(score: "Score", to: "Console") -> Table:
    table = Table(pad_edge=False)
    table.add_column("method", overflow="fold")
    if not score.has_labels:
        for heading in ("rounds", "uploads", "rejected", "share"):
            table.add_column(heading, justify="right", no_wrap=True)
        for one in score.methods:
            counts = [str(one.total.count(name)) for name in ("rounds", "uploads", "rejected")]
            table.add_row(_safe(one.method, to), *counts, wording.cell(one.total.figures["rejected"]))
        return table
    for heading in (*_SHOWN.values(), "clean\nFPR", "F1, 95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in score.methods:
        cells = [wording.cell(one.total.figures[name]) for name in (*_SHOWN, "clean_fpr")]
        table.add_row(_safe(one.method, to), *cells, wording.interval(one.total.intervals["f1"]))
    return table


def _picture(score: "Score", to: "Console") -> Table:
    rounds = score.methods[0].rounds.names
    caught, lost = ("poisoned caught", "honest lost") if score.has_labels else ("rejected", "")
    table = Table(title=f"by round, {rounds[0]} to {rounds[-1]}", title_justify="left", title_style="")
    table.add_column("method", overflow="fold")
    for heading in (caught, lost):
        if heading:
            table.add_column(heading, no_wrap=True, min_width=min(len(rounds), _PICTURE_WIDTH))
    for one in score.methods:
        values = metric_values(one.rounds.counts)
        names = ("recall", "fpr") if score.has_labels else ("rejected",)
        lines = (
            sparkline(
                [None if math.isnan(value) else value for value in values[name].tolist()],
                _PICTURE_WIDTH,
                ascii_only=to.options.ascii_only,
            )
            for name in names
        )
        table.add_row(_safe(one.method, to), *(Text(line) for line in lines))
    return table


def _breakdown(one: "MethodScore", by: str, to: "Console") -> Table:
    table = Table(title=Text(f"{by}s, ").append_text(_safe(one.method, to)), title_justify="left", title_style="")
    table.add_column(by, overflow="fold")
    names = _BY_CLIENT if by == "client" else tuple(_SHOWN)
    for heading in ("rounds" if by != "round" else "uploads", "poisoned", *names):
        table.add_column(heading.upper() if heading in {"f1", "fpr", "auroc"} else heading, justify="right")
    for name, counts, figures in wording.rows_by(one, by):
        size = counts["uploads"] if by == "round" else counts["rounds"]
        cells = [wording.cell(figures[metric]) for metric in names]
        table.add_row(_safe(name, to), str(size), str(counts["poisoned"]), *cells)
    return table


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
