"""Verdicts with their labels as CSV, for those who have only a spreadsheet: one row a round, client and method."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from encagg_cli import console
from encagg_cli.outputs import published
from encagg_cli.score.counts import UNLABELLED
from encagg_cli.score.labelling import Labeller
from encagg_cli.score.labels import LabelTable
from encagg_cli.verdicts.reader import Verdicts
from encagg_cli.verdicts.schema import SCHEMA

_OUTCOMES: Final = {
    (True, 1): "missed",
    (True, 0): "kept",
    (False, 1): "caught",
    (False, 0): "lost",
    (True, UNLABELLED): "accepted",
    (False, UNLABELLED): "rejected",
}
_FORMULA: Final = tuple("=+-@＝＋－＠")
_TRUTH: Final = {1: "true", 0: "false", UNLABELLED: ""}


def write_sheet(verdicts: Verdicts, labels: LabelTable | None, path: Path, *, force: bool = False) -> None:
    """Write every verdict of the file, its label as it was scored, and what came of it: the column `outcome`.

    That is caught (poisoned, rejected), missed, kept (honest, accepted), lost; known-benign for clients that are not
    counted; accepted or rejected where there is no label. Text that a spreadsheet would take for a formula is preceded
    by an apostrophe. Raises OutputExists, OutputError.
    """
    with published(path, force=force) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*SCHEMA.names, "outcome"])
        labeller = Labeller(labels)
        for batch in verdicts.batches():
            writer.writerows(_rows(batch, labeller))


def _rows(batch: pa.RecordBatch, labeller: Labeller) -> Iterator[tuple[object, ...]]:
    chunk = labeller.attach(batch)
    attacks = [*labeller.attacks.words, ""]
    columns = {name: _cells(batch.column(name)) for name in batch.schema.names}
    columns["poisoned"] = [_TRUTH[label] for label in chunk.label.tolist()]
    columns["attack"] = [_text(attacks[code]) for code in chunk.attack.tolist()]
    outcomes = [
        "known-benign" if trusted else _OUTCOMES[accepted, label]
        for trusted, accepted, label in zip(
            chunk.trusted.tolist(), chunk.accepted.tolist(), np.asarray(chunk.label).tolist(), strict=True
        )
    ]
    return zip(*columns.values(), outcomes, strict=True)


def _cells(column: pa.Array) -> list[object]:
    values = column.to_pylist()
    if pa.types.is_boolean(column.type):
        return ["" if value is None else str(value).lower() for value in values]
    if pa.types.is_dictionary(column.type):
        return ["" if value is None else _text(value) for value in values]
    return ["" if value is None else value for value in values]


def _text(text: str) -> str:
    """Text from a file that is harmless in a cell."""
    visible = console.plain(text)
    return f"'{visible}" if visible.startswith(_FORMULA) else visible
