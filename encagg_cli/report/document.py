"""Everything that a report shows, as plain values: the page's script does the rest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli import __version__
from encagg_cli.errors import NothingToDo
from encagg_cli.report.trace import read_traces, short
from encagg_cli.verdicts.reader import Verdicts

if TYPE_CHECKING:
    import pyarrow as pa


def make_document(
    verdicts: Verdicts,
    *,
    trace: Path | None = None,
    score: Mapping[str, Any] | None = None,
    run: str | None = None,
) -> dict[str, Any]:
    """Verdicts by method as columns, with what a trace, a score and a run add; nothing in it that JSON does not have.

    Raises NothingToDo for an empty file, UnusableInput for a trace that is not one of ours, or not of these verdicts.
    """
    table = verdicts.read()
    if not table.num_rows:
        raise NothingToDo(f"{verdicts.path} holds no verdicts", hint="`encagg filter` writes them")
    clients = sorted(_words(table, "client_id").unique().to_pylist())
    rounds = np.unique(table.column("round").to_numpy()).tolist()
    methods = _words(table, "method")
    names = methods.unique().to_pylist()
    return {
        "version": __version__,
        "title": verdicts.path.name,
        "clients": clients,
        "rounds": rounds,
        "methods": [_method(name, part, clients, rounds) for name, part in _by_method(table, methods, names)],
        "traces": {} if trace is None else read_traces(trace, rounds, names, clients),
        "score": score,
        "run": run,
        "signature": without_non_finite(verdicts.signature),
    }


def without_non_finite(value: Any) -> Any:
    """Nested values with NaN and infinities, which JSON does not have, as text."""
    if isinstance(value, Mapping):
        return {str(key): without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _words(table: "pa.Table", column: str) -> "pa.ChunkedArray":
    return table.column(column).cast("string")


def _by_method(table: "pa.Table", methods: "pa.ChunkedArray", names: Sequence[str]) -> "list[tuple[str, pa.Table]]":
    import pyarrow.compute as pc

    return [(name, table.filter(pc.equal(methods, name))) for name in names]


def _method(name: str, table: "pa.Table", clients: Sequence[str], rounds: Sequence[int]) -> dict[str, Any]:
    reasons, attacks = _words(table, "reason"), _words(table, "attack")
    threshold = _numbers(table, "threshold")
    known = threshold[np.isfinite(threshold)]
    return {
        "name": name,
        "reasons": reasons.unique().to_pylist(),
        "attacks": attacks.drop_null().unique().to_pylist(),
        "threshold": short(known[0]) if len(known) and (known == known[0]).all() else None,
        "round": _places(table.column("round"), rounds),
        "client": _places(_words(table, "client_id"), clients),
        "accepted": _flags(table, "accepted"),
        "trusted": _flags(table, "trusted"),
        "poisoned": _flags(table, "poisoned"),
        "attack": _places(attacks, attacks.drop_null().unique().to_pylist()),
        "reason": _places(reasons, reasons.unique().to_pylist()),
        "score": [_score(value) for value in _numbers(table, "score")],
        "cluster": table.column("cluster").to_pylist(),
        "x": [short(value) for value in _numbers(table, "x")],
        "y": [short(value) for value in _numbers(table, "y")],
    }


def _places(column: "pa.ChunkedArray", values: Sequence[Any]) -> list[int | None]:
    """Where each cell is among `values`; None for an empty one."""
    place = {value: index for index, value in enumerate(values)}
    return [place.get(cell) for cell in column.to_pylist()]


def _flags(table: "pa.Table", column: str) -> list[int | None]:
    return [None if flag is None else int(flag) for flag in table.column(column).to_pylist()]


def _numbers(table: "pa.Table", column: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = table.column(column).to_numpy().astype(np.float64)
    return values


def _score(value: float) -> float | str | None:
    """A suspicion, or the sign of an infinite one, for which JSON has no number."""
    return short(value) if np.isfinite(value) else "∞" if value > 0 else "-∞"
