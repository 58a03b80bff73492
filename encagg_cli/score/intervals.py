"""How far a figure could have come out otherwise: percentile bootstrap over rounds.

Rounds, not uploads, are drawn with replacement: uploads of one round share its model, its attack and its verdict.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.score.metrics import Figures, metric_values

LEVEL: Final = 0.95
Interval = tuple[float, float] | None

_MOST_UNITS: Final = 2_000
_LEAST_DEFINED: Final = 0.9
_BLOCK_CELLS: Final = 2_000_000


def intervals(counts: NDArray[np.float64], total: Figures, resamples: int, seed: int) -> dict[str, Interval]:
    """95 % intervals of all metrics from counts by round, (rounds, columns); None where there is none to give.

    That is: fewer than two rounds, a metric without a value, or one that more than a tenth of the resamples leave
    undefined. With more than 2,000 rounds, runs of consecutive rounds are drawn together.
    """
    if resamples < 1 or len(counts) < 2:
        return dict.fromkeys(total)
    units = _merge(counts)
    n = len(units)
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK_CELLS // n)
    sums = []
    for start in range(0, resamples, step):
        m = min(step, resamples - start)
        drawn = generator.integers(n, size=(m, n), dtype=np.int64) + n * np.arange(m)[:, None]
        times = np.bincount(drawn.ravel(), minlength=m * n).reshape(m, n)
        sums.append(times @ units)
    values = metric_values(np.concatenate(sums))
    return {name: None if total[name] is None else _percentiles(values[name]) for name in total}


def _merge(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `_MOST_UNITS` rows, each the sum of consecutive rounds."""
    if len(counts) <= _MOST_UNITS:
        return counts
    starts = np.linspace(0, len(counts), _MOST_UNITS, endpoint=False).astype(np.intp)
    return np.asarray(np.add.reduceat(counts, starts), dtype=np.float64)


def _percentiles(values: NDArray[np.float64]) -> Interval:
    defined = values[~np.isnan(values)]
    if len(defined) < _LEAST_DEFINED * len(values):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
