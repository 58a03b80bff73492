"""The clustering radius, from distances between known-benign uploads (eqs. 2-5)."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

MARGIN = 1e-9  # ε is itself a distance between two uploads: rounding must not put it out of its own reach


@dataclass(frozen=True)
class Radius:
    """`epsilon`, and the rows of the two root uploads, which are that far apart."""

    epsilon: float
    roots: tuple[int, int]

    def reach(self, factor: float = 1.0) -> float:
        """`factor · ε` with the margin with which distances are compared."""
        return factor * self.epsilon * (1.0 + MARGIN)


def radius_from_known(
    distances: NDArray[np.float64], known: NDArray[np.bool_], r: float, at_least: float = 0.0
) -> Radius:
    """The `⌈r · C(k,2)⌉`-th smallest distance between two of the `k` known-benign uploads, and that pair.

    `distances` is (n, n), `known` marks at least two of the rows, `0 < r ≤ 1`. Of equal distances the pair first in row
    order counts. The radius is never below `at_least`, the resolution of the data.
    """
    rows = np.flatnonzero(known)
    if len(rows) < 2:
        raise ValueError("a radius needs two known-benign uploads")
    first, second = np.triu_indices(len(rows), k=1)
    pairs = distances[rows[first], rows[second]]
    rank = max(1, ceil(r * len(pairs) - MARGIN))  # 0.1 · 30 is 3.0000000000000004
    chosen = np.argsort(pairs, kind="stable")[rank - 1]
    return Radius(max(float(pairs[chosen]), at_least), (int(rows[first[chosen]]), int(rows[second[chosen]])))
