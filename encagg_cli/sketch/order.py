"""Order statistics of the columns, counted per client: where each client stands among the others.

They are taken from the values as stored: rows of different scales do not compare. Equal values share their ranks, so
ties do not favour anybody.
"""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.needs import Block, Header, Need, Partial
from encagg_cli.sketch.samples import raw_values

_PIECE = 1024  # columns sorted at a time: they stay in cache, and threads do not wait for each other between calls
_LOWER = 2**32 - 1
_UPPER = 1 if sys.byteorder == "little" else 0


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
        values = raw_values(block)
        n, columns = values.shape
        ranks = np.arange(n)
        plain = np.zeros(n * n, dtype=np.int64)
        midranks = np.zeros(n * (2 * n - 1), dtype=np.int64)
        steps = np.zeros(n * (n + 1))
        piece = max(_PIECE, n)
        for start in range(0, columns, piece):
            ordered = _ordered(values[:, start : start + piece])
            keys = _halves(ordered)[..., _UPPER]
            same = np.flatnonzero(keys[:, 1:] == keys[:, :-1])
            if len(same):
                tied = np.unique(same // (n - 1))
                first, last = _groups(keys[tied])
                alike = (ordered[tied] & _LOWER) // n
                midranks += np.bincount((alike * (2 * n - 1) + first + last).ravel(), minlength=midranks.size)
                share = (1.0 / (last - first + 1)).ravel()
                # Each member has `share` of every rank from first to last: a step up, a step down, summed up below.
                steps += np.bincount((alike * (n + 1) + first).ravel(), share, minlength=steps.size)
                steps -= np.bincount((alike * (n + 1) + last + 1).ravel(), share, minlength=steps.size)
                plain -= np.bincount((alike * n + ranks).ravel(), minlength=plain.size)
            ordered &= _LOWER
            ordered += ranks
            plain += np.bincount(ordered.ravel(), minlength=plain.size)
        counted = plain.reshape(n, n).astype(np.float64)
        halves = midranks.reshape(n, 2 * n - 1).astype(np.float64)
        halves[:, ::2] += counted
        return {"midranks": halves, "slots": counted + np.cumsum(steps.reshape(n, n + 1), axis=1)[:, :n]}

    def total(self, sums: Partial, header: Header) -> Ranks:
        return Ranks(sums["midranks"], sums["slots"])

    def held_bytes(self, header: Header) -> int:
        return 24 * len(header.clients) ** 2

    def working_bytes(self, header: Header, columns: int) -> int:
        n = len(header.clients)
        return 128 * n * min(columns, max(_PIECE, n)) + 64 * n * n


def _ordered(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """(columns, n) each column's entries from lowest to highest; the lower half of an entry is `n` times the client.

    The upper half compares as the value does. One sort of such numbers is twice as fast as an argsort; and a copy to a
    place of its own, with an odd distance between rows, makes it eight times as fast to read values by columns.
    """
    n, columns = values.shape
    copied = np.empty((n, columns + 16), dtype=np.float32)[:, :columns]
    np.add(values, np.float32(0), out=copied)  # -0 equals 0, and has other bits
    bits = copied.view(np.int32)
    turned = bits >> 31
    turned &= np.int32(2**31 - 1)
    bits ^= turned  # negative values are in falling order: turn all their bits but the sign round
    ordered = np.empty((columns, n), dtype=np.int64)
    halves = _halves(ordered)
    halves[..., _UPPER] = bits.T
    halves[..., 1 - _UPPER] = (np.arange(n, dtype=np.uint32) * np.uint32(n)).view(np.int32)
    ordered.sort(axis=1)
    return ordered


def _halves(numbers: NDArray[np.int64]) -> NDArray[np.int32]:
    """(…, 2) the two halves of every number, as they lie in memory."""
    return numbers.view(np.int32).reshape(*numbers.shape, 2)


def _groups(ordered: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last rank of the run of equal values that each place of ascending rows belongs to."""
    n = ordered.shape[1]
    ranks = np.arange(n)
    changes = ordered[:, 1:] != ordered[:, :-1]
    edge = np.ones((len(ordered), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, changes]), ranks, 0), axis=1)
    last = np.minimum.accumulate(np.where(np.hstack([changes, edge]), ranks, n - 1)[:, ::-1], axis=1)[:, ::-1]
    return first, last
