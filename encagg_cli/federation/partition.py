"""How training samples are divided among clients: evenly at random, or by class with a Dirichlet distribution."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError

Partition = Literal["iid", "dirichlet"]
Shard = NDArray[np.intp]


def iid(labels: NDArray[np.int64], clients: int, rng: np.random.Generator) -> list[Shard]:
    """Shuffle, and deal out in parts whose sizes differ by at most one."""
    _check(labels, clients)
    return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), clients)]


def dirichlet(labels: NDArray[np.int64], clients: int, alpha: float, rng: np.random.Generator) -> list[Shard]:
    """Divide every class among the clients in shares drawn from Dirichlet(alpha, …, alpha): smaller is more uneven.

    (Hsu et al., arXiv 1909.06335, in the per-class form that is common since.) A client that would be left with nothing
    is given one sample of the client that has most.
    """
    _check(labels, clients)
    if not alpha > 0:
        raise UsageError(f"alpha must be above 0, not {alpha}")
    parts: list[list[NDArray[np.intp]]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        # A Dirichlet draw by its gammas: with a tiny alpha numpy's own can divide zero by zero.
        weights = np.maximum(rng.gamma(alpha, size=clients), np.finfo(np.float64).tiny)
        bounds = np.floor(np.cumsum(weights / weights.sum())[:-1] * len(members) + 0.5).astype(np.intp)
        for part, piece in zip(parts, np.split(members, np.minimum(bounds, len(members))), strict=True):
            part.append(piece)
    shards = [np.concatenate(part) for part in parts]
    for client in range(clients):
        if len(shards[client]) == 0:
            richest = max(range(clients), key=lambda other: len(shards[other]))
            shards[client], shards[richest] = shards[richest][:1], shards[richest][1:]
    return [np.sort(shard) for shard in shards]


def _check(labels: NDArray[np.int64], clients: int) -> None:
    if clients < 1:
        raise UsageError(f"there must be at least one client, not {clients}")
    if clients > len(labels):
        raise UsageError(f"{clients} clients cannot share {len(labels)} training samples", hint="use fewer clients")
