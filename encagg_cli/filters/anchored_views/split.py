"""The anchored split: do the clients fall apart along one axis, with no known-benign client on the far side?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEWEST_NEAR = 3  # a spread takes that many
_LEAST_SPREAD = np.sqrt(1e-3)  # of the near side, in standard deviations of all: two near clients must not look exact
_NEAR_FLOOR = 0.1  # of the far side's spread
_FAR_FLOOR = 0.25  # of the near side's spread: one lone client has none of its own


@dataclass(frozen=True)
class Split:
    """The best split of an axis: `far` (n,) masks the far side, which lies `high` or low; `gain` is in nats."""

    gain: float
    far: Mask
    high: bool


def anchored_split(values: Numbers, trusted: Mask, *, low: bool, high: bool) -> Split | None:
    """The split of `values` (n,) that gains most likelihood, over all that leave every known-benign client near.

    The gain is that of two normal distributions, one a side, over a single one:
    `n ln σ - n₁ ln σ₁ - n₂ ln σ₂ + n₁ ln(n₁/n) + n₂ ln(n₂/n)`. For one normal or uniform population it is about
    zero or below, whatever the scale, so that it needs no unit. `low` and `high` say on which side the far group may
    lie. None where no split is possible.
    """
    n = len(values)
    spread = float(values.std())
    if not spread > 0:
        return None
    standard = (values - values.mean()) / spread
    best: Split | None = None
    for is_high in (True,) * high + (False,) * low:
        outward = standard if is_high else -standard
        order = np.argsort(outward, kind="stable")
        last_anchor = int(np.flatnonzero(trusted[order]).max(initial=-1))
        counts = np.arange(max(last_anchor + 1, _FEWEST_NEAR), n)
        if not len(counts):
            continue
        gains = _gains(outward[order], counts)
        at = int(gains.argmax())
        if best is None or gains[at] > best.gain:
            far = np.zeros(n, dtype=bool)
            far[order[counts[at] :]] = True
            best = Split(float(gains[at]), far, is_high)
    return best


def gain_of(values: Numbers, far: Mask) -> float:
    """The gain, as above, of splitting `values` (n,) between those `far` (n,) and the rest; minus infinity if none is.

    The two may overlap: then it gains less.
    """
    near, n = ~far, len(values)
    spread = float(values.std())
    if not spread > 0 or near.sum() < _FEWEST_NEAR or not far.any():
        return -np.inf
    near_spread, far_spread = float(values[near].std()) / spread, float(values[far].std()) / spread
    near_spread = max(near_spread, _NEAR_FLOOR * far_spread, float(_LEAST_SPREAD))
    far_spread = max(far_spread, _FAR_FLOOR * near_spread)
    shares = near.sum() / n, far.sum() / n
    return float(near.sum() * np.log(shares[0] / near_spread) + far.sum() * np.log(shares[1] / far_spread))


def _gains(ordered: Numbers, counts: NDArray[np.intp]) -> Numbers:
    """Likelihood gain of splitting off all but the first `counts` of the standardised values, for each such count."""
    n = len(ordered)
    near, far = counts.astype(np.float64), (n - counts).astype(np.float64)
    sums, squares = np.cumsum(ordered), np.cumsum(ordered**2)
    sum_near, square_near = sums[counts - 1], squares[counts - 1]
    near_spread = _spread(sum_near, square_near, near)
    far_spread = _spread(sums[-1] - sum_near, squares[-1] - square_near, far)
    near_spread = np.maximum(near_spread, np.maximum(_NEAR_FLOOR * far_spread, _LEAST_SPREAD))
    far_spread = np.maximum(far_spread, _FAR_FLOOR * near_spread)
    gains: Numbers = near * np.log(near / n / near_spread) + far * np.log(far / n / far_spread)
    return gains


def _spread(total: Numbers, square: Numbers, count: Numbers) -> Numbers:
    spread: Numbers = np.sqrt(np.maximum(square / count - (total / count) ** 2, 0.0))
    return spread
