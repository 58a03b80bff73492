"""The passes over a round: the one that answers every filter, the second that some ask for, and the aggregate."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.sketch import ColumnSource, Need, RoundSketch, sketch_round
from encagg_cli.sketch.pages import gaussian

if TYPE_CHECKING:
    from encagg_cli.filters.base import Decision, Filter

PIECE_COLUMNS = 65_536

Sketcher = Callable[[ColumnSource, Iterable[Need]], RoundSketch]


def sketch_for(source: ColumnSource, filters: Iterable["Filter"], sketch: Sketcher = sketch_round) -> RoundSketch:
    """What all these filters need of a round: one pass, and a second only where a filter asks for one.

    Filters that look back at their own last output ask for other needs in every round, so rounds go in order.
    """
    filters = tuple(filters)
    first = sketch(source, dict.fromkeys(need for chosen in filters for need in chosen.needs()))
    if not first.clients:
        return first
    more = dict.fromkeys(need for chosen in filters for need in chosen.refine(first))
    if not more:
        return first
    return replace(first, figures={**first.figures, **sketch(source, more).figures})


def aggregate_pieces(
    chosen: "Filter",
    decision: "Decision",
    source: ColumnSource,
    *,
    prior: NDArray[np.floating] | None = None,
    seed: int = 0,
) -> Iterator[NDArray[np.float64]]:
    """A filter's aggregate of a round, in pieces of `PIECE_COLUMNS` columns: one more pass.

    `prior` is the vector that `decision.prior` names, needed where it has weight; raises UsageError without it.
    """
    if decision.prior_weight and prior is None:
        raise UsageError(
            f"round {source.number}: the aggregate of {chosen.name} builds on the one before, which is not at hand"
        )
    finite = np.array([word != "non-finite" for word in decision.reason], dtype=bool)
    clients = sorted(client for client, used in zip(decision.clients, finite, strict=True) if used)
    index = {client: row for row, client in enumerate(source.client_ids)}
    rows = np.array([index[client] for client in clients], dtype=np.intp)
    used = decision.in_order(clients)
    buffer = np.empty((len(source.client_ids), min(PIECE_COLUMNS, source.n_parameters)), dtype=np.float32)
    for start in range(0, source.n_parameters, PIECE_COLUMNS):
        stop = min(start + PIECE_COLUMNS, source.n_parameters)
        source.read_columns(start, stop, buffer[:, : stop - start])
        piece = _piece(chosen, used, buffer[rows, : stop - start], start)
        if decision.prior_weight and prior is not None:
            piece += decision.prior_weight * prior[start:stop].astype(np.float64)
        if decision.noise:
            piece += decision.noise * gaussian((seed, source.number), start, stop)
        yield piece


def _piece(chosen: "Filter", decision: "Decision", values: NDArray[np.float32], start: int) -> NDArray[np.float64]:
    if not len(values):
        return np.zeros(values.shape[1])
    if chosen.aggregate == "coordinate-wise":
        return chosen.combine(decision, values, start)
    assert decision.weight is not None
    weighed = decision.weight != 0
    piece: NDArray[np.float64] = decision.weight[weighed] @ values[weighed].astype(np.float64)
    return piece
