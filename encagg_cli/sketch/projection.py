"""A seeded random projection of every update, small enough to be kept from round to round.

Filters that look back over rounds need products between uploads of different rounds. A projection is linear, so sums
and aggregates of projected updates are the projections of those sums, and products survive it: a count sketch
(Charikar, Chen & Farach-Colton 2002) of `m` buckets keeps every inner product without bias, with a standard deviation
of at most `‖x‖ ‖y‖ √(2/m)`; cosines near ±1 are kept far more closely, and equal vectors stay equal. Updates of at most
`m` parameters lose nothing.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.sketch.needs import Block, Header, Need, Partial
from encagg_cli.sketch.pages import PAGE_COLUMNS, signs

FEWEST_BUCKETS = 64


@dataclass(frozen=True)
class Projected:
    """Projections of `n` updates, and of the last step where the round has it.

    rows       (n, m)
    last_step  (m,), or None where the round has none (or one that is not finite)
    """

    rows: NDArray[np.float64]
    last_step: NDArray[np.float64] | None


@dataclass(frozen=True)
class ProjectionNeed(Need):
    """Count sketch of every update, `buckets` numbers each (a power of two from 64 to 65,536).

    Column `c` of the `g`-th run of `buckets` columns goes, with a random sign, to bucket `(c + s_g) mod buckets`, `s_g`
    a random shift. The last step is projected along with them, where the round has it.
    """

    buckets: int
    seed: int = 0

    vectors = frozenset({"last_step"})

    def __post_init__(self) -> None:
        check_buckets("a projection", self.buckets)

    def partial(self, block: Block, header: Header) -> Partial:
        sign = signs(self.seed, block.start, block.stop)
        sums = {
            "rows": self._fold(block.rows * sign, block.start),
            "reference": self._fold((block.reference * sign)[None, :], block.start),
        }
        vector = block.vectors.get("last_step")
        if vector is not None:
            with np.errstate(invalid="ignore"):
                sums["last_step"] = self._fold((vector.astype(np.float64) * sign)[None, :], block.start)
        return sums

    def total(self, sums: Partial, header: Header) -> Projected:
        reference = sums["reference"] * header.scale[header.reference]
        rows = sums["rows"] * header.scale[:, None] + reference
        last_step = sums["last_step"][0] if "last_step" in sums else None
        known = last_step is not None and bool(np.isfinite(last_step).all())
        return Projected(rows, last_step if known else None)

    def held_bytes(self, header: Header) -> int:
        return 8 * self.buckets * (len(header.clients) + 2)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 4 * len(header.clients) * columns + self.held_bytes(header)

    def _fold(self, values: NDArray[np.floating], start: int) -> NDArray[np.floating]:
        """(rows, buckets) sums of signed columns by bucket, in float64 where there are sums; they begin at `start`."""
        one_each = start % self.buckets + values.shape[1] <= self.buckets
        folded = np.zeros((len(values), self.buckets), dtype=values.dtype if one_each else np.float64)
        column = 0
        while column < values.shape[1]:
            run, within = divmod(start + column, self.buckets)
            taken = min(self.buckets - within, values.shape[1] - column)
            first = (within + self._shift(run)) % self.buckets
            head = min(taken, self.buckets - first)
            folded[:, first : first + head] += values[:, column : column + head]
            folded[:, : taken - head] += values[:, column + head : column + taken]
            column += taken
        return folded

    def _shift(self, run: int) -> int:
        page, within = divmod(run, PAGE_COLUMNS // self.buckets)
        return int(_shifts(self.seed, self.buckets, page)[within])


@lru_cache(maxsize=8)
def _shifts(seed: int, buckets: int, page: int) -> NDArray[np.int64]:
    """The shifts of the runs of columns in one page; asked for by every block of it, so kept."""
    return np.random.default_rng((seed, 3, page)).integers(buckets, size=PAGE_COLUMNS // buckets)


def check_buckets(label: str, buckets: int) -> None:
    """Raise UsageError where `buckets` is not a power of two from 64 to a page."""
    if not FEWEST_BUCKETS <= buckets <= PAGE_COLUMNS or buckets & (buckets - 1):
        raise UsageError(
            f"{label} has a power of two from {FEWEST_BUCKETS} to {PAGE_COLUMNS} as its size, not {buckets}"
        )
