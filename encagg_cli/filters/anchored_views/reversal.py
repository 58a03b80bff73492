"""Who, as a group, opposes the known-benign: flipped signs, inverse updates, and what reverses only the common part.

Two tests, the more selective one first. Each asks who is on whose side, whether the sides oppose each other more than
honest clients do, and whether turning the far side round leaves a round in which all have one thing in common.
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

_FOLDED: Final = 0.6  # standard deviation of |x| where that of x, which is normal around 0, is 1
_LATER: Final = 0.08  # how much more opposition it takes once somebody has been rejected
_MOST_ALIKE: Final = 1.5  # known-benign uploads, over others of their side: more, and they are not one side


@dataclass(frozen=True)
class Common:
    """What a round must have in common once a far side has been turned round.

    direction   times the second direction of the whitened uploads, at least, must the first one stand out
    agreement   of the known-benign with each other, in standard errors of no agreement, at least
    """

    direction: float
    agreement: float


_AMONG_FRIENDS: Final = Common(1.5, 0.5)
_AMONG_MIRRORED: Final = Common(2.2, 1.0)


@dataclass(frozen=True)
class Reversal:
    """`group` (n,) masks who opposes the rest, `evidence` is 1 at the threshold; None, and 0, where nobody does.

    `trust` (n,) is how much trust reaches everybody, negative for distrust.
    """

    trust: Numbers
    group: Mask | None = None
    evidence: float = 0.0


def required_opposition(alpha: float, n: int, *, later: bool) -> float:
    """Opposition above which a distrusted group counts as reversed. Few clients oppose by chance.

    Fitted, as the other two bounds, on honest rounds of scikit-learn's digits (detector.py), so that about a share
    `alpha` of the honest uploads is lost while the model still learns; where it has converged, more are.
    """
    return min(0.98, 0.86 + 2.0 / n + 0.087 * float(np.log(0.01 / alpha)) + _LATER * later)


def required_distance(alpha: float, n: int, *, later: bool) -> float:
    """Minus the cosine between the sums of two sides, whitened, above which the far one counts as reversed."""
    return 0.08 + (4.5 + 2.3 * float(np.log(0.02 / alpha))) / n + _LATER * later


def reversed_group(gram: Gram, alive: NDArray[np.intp], trusted: Mask, alpha: float, *, later: bool) -> Reversal:
    """The group among the clients `alive` that opposes the others, `trusted` (n,) among them.

    1. *Friends*: trust flows from the known-benign along clear agreement, and becomes distrust along opposition
       (trust.py). It finds whole updates that are reversed.
    2. *Mirrored*: agreement with the sum of all, and not with single friends, when the axes along which clients differ
       most are held back (whitening.py). It finds those who keep an honest update and reverse only the common part of
       it, and asks that the known-benign agree among themselves.
    """
    anchors = trusted[alive]
    n = len(alive)
    inner = gram.inner[np.ix_(alive, alive)]
    strength = relations(gram.cosines[np.ix_(alive, alive)])
    trust = propagate(strength, anchors)
    group = (trust < 0) & ~anchors
    excess = opposition(strength, group) - required_opposition(alpha, n, later=later)
    if excess > 0 and _have_in_common(inner, anchors, group, _AMONG_FRIENDS):
        return Reversal(trust, group, 1.0 + excess)
    cosines = whitened(inner)
    side = alignment(cosines, mirrored(cosines, anchors))
    group = (side < 0) & ~anchors
    near = (side >= 0) & ~anchors
    if anchors.sum() > 1 and group.any() and near.any() and (side[anchors] > 0).all():
        excess = sides_apart(cosines, group) - required_distance(alpha, n, later=later)
        are_one_side = side[anchors].mean() < _MOST_ALIKE * np.median(side[near])
        if excess > 0 and are_one_side and _have_in_common(inner, anchors, group, _AMONG_MIRRORED):
            return Reversal(trust, group, 1.0 + excess)
    return Reversal(trust)


def _have_in_common(inner: Numbers, anchors: Mask, group: Mask, least: Common) -> bool:
    """Whether all clients share a direction, and the known-benign agree on it, once `group` has been turned round.

    Where a model has converged, honest uploads share nothing any more, and fall into two halves that oppose each other
    by chance. Turning one of them round makes no common direction that stands out from the others.
    """
    signs = np.where(group, -1.0, 1.0)
    cosines = whitened(inner * np.outer(signs, signs))
    first, second = np.linalg.eigvalsh(cosines)[:-3:-1]
    among = cosines[np.ix_(anchors, anchors)][np.triu_indices(int(anchors.sum()), 1)]
    if not len(among) or first <= least.direction * second:
        return False
    noise = float(np.abs(cosines[np.triu_indices(len(cosines), 1)]).std()) / _FOLDED
    return bool(float(among.mean()) * np.sqrt(len(among)) > least.agreement * noise)
