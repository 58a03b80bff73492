"""Rounds that are held in memory, as a filter's `decide` takes them."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.rounds.layout import EXAMPLES_UNKNOWN, Parameter
from encagg_cli.sketch import ArraySource

Vector = NDArray[np.floating]


def as_source(
    updates: Vector | Mapping[str, Vector],
    trusted: Collection[str] | Collection[int] | NDArray[np.bool_] = (),
    clients: Iterable[str] | None = None,
    num_examples: Mapping[str, int] | Sequence[int] | None = None,
    parameters: Sequence[Parameter] | None = None,
    vectors: Mapping[str, Vector] | None = None,
    update_kind: str = "delta",
) -> tuple[ArraySource, set[str]]:
    """A source of these updates, and the ids of the known-benign clients; arguments as in `Filter.decide`."""
    if isinstance(updates, Mapping):
        if clients is not None:
            raise UsageError("clients are named by the mapping of updates already")
        ids = tuple(updates)
        matrix = np.stack([np.asarray(update).ravel() for update in updates.values()]) if ids else np.zeros((0, 0))
    else:
        matrix = np.asarray(updates)
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise UsageError(
                f"updates are a matrix of (clients, parameters), not {matrix.dtype} of shape {matrix.shape}"
            )
        ids = tuple(str(row) for row in range(len(matrix))) if clients is None else tuple(clients)
    if len(trusted) and all(isinstance(flag, bool | np.bool_) for flag in trusted):
        trusted = np.asarray(trusted, dtype=bool)
    if isinstance(trusted, np.ndarray) and trusted.dtype == bool:
        if trusted.shape != (len(ids),):
            raise UsageError(f"a mask of known-benign clients needs {len(ids)} entries, not {trusted.shape}")
        trusted_ids = {ids[row] for row in np.flatnonzero(trusted)}
    else:
        rows = [int(t) for t in trusted if isinstance(t, int | np.integer)]
        outside = [row for row in rows if not 0 <= row < len(ids)]
        if outside:
            raise UsageError(f"there is no row {outside[0]} to be known-benign: there are {len(ids)} updates")
        trusted_ids = {ids[int(t)] if isinstance(t, int | np.integer) else str(t) for t in trusted}
    if isinstance(num_examples, Mapping):
        num_examples = [num_examples.get(client, EXAMPLES_UNKNOWN) for client in ids]
    source = ArraySource(
        matrix,
        ids,
        np.array([c in trusted_ids for c in ids], dtype=bool),
        vectors={name: np.asarray(vector).ravel() for name, vector in (vectors or {}).items()},
        examples=num_examples,
        layout=parameters,
        update_kind=update_kind,
    )
    return source, trusted_ids
