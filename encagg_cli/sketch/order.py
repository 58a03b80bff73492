"""Order statistics of the columns, counted per client: where each client stands among the others.

They are taken from the values as stored: rows of different scales do not compare. Equal values share their ranks, so
ties do not favour anybody.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.needs import Block, Header, Need, Partial
from encagg_cli.sketch.samples import raw_values


@dataclass(frozen=True)
class Ranks:
    """How `n` clients rank over all columns (0 lowest, n - 1 highest).

    midranks (n, 2n - 1) columns in which the client's rank is `k / 2`; clients of equal value have their mean rank
    slots    (n, n)      columns in which the client has rank `r`, shared out evenly among clients of equal value
    """

    midranks: NDArray[np.float64]
    slots: NDArray[np.float64]

    def mean_distance_from_middle(self) -> NDArray[np.float64]:
        """(n,) mean over columns of `|rank - (n - 1)/2|`, as a share of the largest possible, in [0, 1]."""
        n = len(self.slots)
        if n < 2:
            return np.zeros(n)
        distance = np.abs(np.arange(2 * n - 1) - (n - 1)) / (n - 1)
        shares: NDArray[np.float64] = self.midranks @ distance / self.midranks.sum(axis=1)
        return shares

    def trimmed_share(self, each_side: int) -> NDArray[np.float64]:
        """(n,) share of columns in which the client is among the `each_side` lowest or highest."""
        n = len(self.slots)
        rank = np.arange(n)
        trimmed = (rank < each_side) | (rank >= n - each_side)
        shares: NDArray[np.float64] = self.slots @ trimmed / self.slots.sum(axis=1)
        return shares


@dataclass(frozen=True)
class RankNeed(Need):
    """Counts of every client's ranks over all columns; median and trimmed mean are read off them."""

    uses_raw = True

    def partial(self, block: Block, header: Header) -> Partial:
        values = np.ascontiguousarray(raw_values(block).T)
        n = values.shape[1]
        order = np.argsort(values, axis=1)
        ordered = np.take_along_axis(values, order, axis=1)
        tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        ranks = np.arange(n)
        plain = np.bincount((order[~tied] * n + ranks).ravel(), minlength=n * n).reshape(n, n).astype(np.float64)
        midranks = np.zeros((n, 2 * n - 1))
        midranks[:, ::2] = plain
        slots = np.zeros((n, n + 1))
        if tied.any():
            first, last = _groups(ordered[tied])
            clients = order[tied]
            midranks += np.bincount((clients * (2 * n - 1) + first + last).ravel(), minlength=midranks.size).reshape(
                midranks.shape
            )
            share = (1.0 / (last - first + 1)).ravel()
            # Each member has `share` of every rank from first to last: a step up, a step down, summed up below.
            slots += np.bincount((clients * (n + 1) + first).ravel(), share, minlength=slots.size).reshape(slots.shape)
            slots -= np.bincount((clients * (n + 1) + last + 1).ravel(), share, minlength=slots.size).reshape(
                slots.shape
            )
        return {"midranks": midranks, "slots": plain + np.cumsum(slots, axis=1)[:, :n]}

    def total(self, sums: Partial, header: Header) -> Ranks:
        return Ranks(sums["midranks"], sums["slots"])

    def held_bytes(self, header: Header) -> int:
        return 24 * len(header.clients) ** 2

    def working_bytes(self, header: Header, columns: int) -> int:
        return 64 * len(header.clients) * columns


def _groups(ordered: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last rank of the run of equal values that each place of ascending rows belongs to."""
    n = ordered.shape[1]
    ranks = np.arange(n)
    changes = ordered[:, 1:] != ordered[:, :-1]
    edge = np.ones((len(ordered), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, changes]), ranks, 0), axis=1)
    last = np.minimum.accumulate(np.where(np.hstack([changes, edge]), ranks, n - 1)[:, ::-1], axis=1)[:, ::-1]
    return first, last
