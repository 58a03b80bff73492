"""Who, as a group, opposes the known-benign: flipped signs, inverse updates, and what reverses only the common part.

Three tests, from the most to the least selective; the first that finds a group ends the search. Each one asks who is on
whose side, and then whether the sides oppose each other more than honest clients do.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.trust import opposition, propagate, relations
from encagg_cli.filters.anchored_views.whitening import alignment, mirrored, sides_apart, whitened
from encagg_cli.sketch import Gram

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

PLAIN_POWER: Final = 6  # of the cosine: how much more a clear relation says than a faint one
_WHITENED_POWER: Final = 3
_LATER: Final = 0.08  # how much more opposition it takes once somebody has been rejected
_MOST_ALIKE: Final = 1.5  # known-benign uploads, over others of their side: more, and they are not one side


@dataclass(frozen=True)
class Reversal:
    """`group` (n,) masks who opposes the rest; `evidence` is 1 at the threshold."""

    group: Mask
    evidence: float


def required_opposition(alpha: float, n: int, *, later: bool) -> float:
    """Opposition above which a group counts as reversed, by plain relations. Few clients oppose by chance.

    Fitted, as the other two bounds, on honest rounds of scikit-learn's digits (detector.py), so that a share `alpha`
    of the honest uploads is lost at most.
    """
    return min(0.98, 0.86 + 2.0 / n + 0.087 * float(np.log(0.01 / alpha)) + _LATER * later)


def required_whitened_opposition(alpha: float, n: int, *, later: bool) -> float:
    """The same, by whitened relations, among which far fewer honest clients oppose each other."""
    return min(0.95, 0.3 + (6.5 + 2.3 * float(np.log(0.02 / alpha))) / n + _LATER * later)


def required_distance(alpha: float, n: int, *, later: bool) -> float:
    """Minus the cosine between the sums of two sides, whitened, above which the far one counts as reversed."""
    return 0.08 + (4.5 + 2.3 * float(np.log(0.02 / alpha))) / n + _LATER * later


def reversed_group(gram: Gram, alive: NDArray[np.intp], trusted: Mask, alpha: float, *, later: bool) -> Reversal | None:
    """The group among the clients `alive` that opposes the others, `trusted` (n,) among them; None where none does.

    1. *Plain*: trust flows along the clearest cosines (trust.py). It finds reversed whole updates under heterogeneity.
    2. *Whitened*: the same, with the axes along which honest clients differ most held back (whitening.py): where one
       batch or the class mix of a client drowns what all have in common, that is what is left to agree or oppose on.
    3. *Mirrored*: whose sum everybody agrees with, not single friends. It finds those who keep an honest update and
       reverse only the common part of it, and asks that the known-benign agree among themselves.
    """
    anchors = trusted[alive]
    n = len(alive)
    among = np.ix_(alive, alive)
    cosines = whitened(gram.inner[among])
    for values, power, required in (
        (gram.cosines[among], PLAIN_POWER, required_opposition(alpha, n, later=later)),
        (cosines, _WHITENED_POWER, required_whitened_opposition(alpha, n, later=later)),
    ):
        strength = relations(values, power)
        group = (propagate(strength, anchors) < 0) & ~anchors
        opposed = opposition(strength, group)
        if opposed > required:
            return Reversal(group, 1.0 + opposed - required)
    side = alignment(cosines, mirrored(cosines, anchors))
    group = (side < 0) & ~anchors
    near = (side >= 0) & ~anchors
    if anchors.sum() > 1 and group.any() and near.any() and (side[anchors] > 0).all():
        distance = sides_apart(cosines, group)
        required = required_distance(alpha, n, later=later)
        if distance > required and side[anchors].mean() < _MOST_ALIKE * np.median(side[near]):
            return Reversal(group, 1.0 + distance - required)
    return None
