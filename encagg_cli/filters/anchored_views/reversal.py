"""Who, as a group, opposes the rest: by flipped signs, inverse updates, flipped labels, or in the common part alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.evidence import Evidence
from encagg_cli.filters.anchored_views.parting import parted
from encagg_cli.filters.anchored_views.ridge import shared_with
from encagg_cli.filters.anchored_views.sharing import INNOCENT_TODAY, Sharing
from encagg_cli.filters.anchored_views.sides import Sides, common_part

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NATS: Final = 4.0  # by which all explanations without a client's reversal must be worse
_NATS_WITH_PAST: Final = 3.0
_LATER: Final = 3.0  # how many more once somebody has been rejected
_CLEAR: Final = 4.0  # nats by which a group's being on the other side must be clearer than what parts the known-benign
_ONE_OF_THE_REST: Final = 0.25  # share of what is common from which a group opposes nobody


@dataclass(frozen=True)
class Reversal:
    """`group` (n,) masks who opposes the rest; nobody, in most rounds.

    `common` (n,) is how far each upload lies on the side of what the others share (sides.py).
    """

    group: Mask
    common: Numbers


def required_nats(alpha: float, *, past: bool, later: bool) -> float:
    """By how much every explanation of the round in which a client is not reversed must be worse than the best one.

    Fitted on honest rounds of scikit-learn's digits, as the other bounds (detector.py).
    """
    return (_NATS_WITH_PAST if past else _NATS) + 2.0 * float(np.log(0.02 / alpha)) + _LATER * later


def reversed_group(
    evidence: Evidence,
    anchors: Mask,
    alpha: float,
    *,
    later: bool,
    parting: bool = True,
    today_alone: bool = True,
    accused: Mask | None = None,
) -> Reversal:
    """The group that opposes the others, by what is known of their uploads; `anchors` (n,) are not in it.

    This round is looked at by itself, for those who began today, and together with the past, where today does not say
    otherwise. With those who are certain to be on the other side goes their group, and where nobody is, a group may be,
    or may be a population of its own (parting.py), if `parting` is asked for. What this round says by itself against
    the past does not count unless `today_alone` is asked for, too. Of those `accused` (n,) by earlier rounds, who still
    opposes the rest goes with them.
    """
    cosines = evidence.cosines[0]
    today = Sides(evidence.losses[0], anchors)
    told_by = [(today, evidence.cosines[:1])]
    group = np.zeros(len(anchors), dtype=bool)
    if today_alone or len(evidence.cosines) == 1:
        group = today.flipped(required_nats(alpha, past=False, later=later))
        group &= _common(cosines, group) < 0
    if len(evidence.cosines) > 1:
        loss, weights = evidence.together(anchors)
        lately = Sides(loss, anchors)
        told_by.append((lately, evidence.cosines))
        group |= _flipped_lately(lately.flipped(required_nats(alpha, past=True, later=later)), evidence, weights)
    if parting:
        required = _CLEAR + 2.0 * float(np.log(0.02 / alpha)) + _LATER * later
        for sides, rounds in told_by:
            opposed = _opposed(sides, rounds, required)
            if not group.any() or (group & opposed).any():
                group |= opposed
    if parting and not group.any():
        group = parted(evidence.cosines, evidence.parting, anchors, alpha, later=later)
    if accused is not None:
        group = group | _still_opposed(cosines, accused & ~group & ~anchors, ~group, anchors)
    return Reversal(group, _common(cosines, group))


def _flipped_lately(group: Mask, evidence: Evidence, weights: Numbers) -> Mask:
    """(n,) who of the `group` is on the other side on average, each round by its weight, and is not cleared today."""
    if group.any():
        common = np.array([_common(cosines, group) for cosines in evidence.cosines])
        there = ~np.isnan(common)
        on_average = (weights @ np.where(there, common, 0.0)) / np.maximum(weights @ there, np.finfo(float).tiny)
        today = np.nan_to_num(shared_with(evidence.cosines[0], ~group))
        group &= (on_average < 0) & (today < INNOCENT_TODAY)
    return group


def _opposed(sides: Sides, rounds: Sequence[Numbers], required: float) -> Mask:
    """(n,) the other side, where it is clearly one, and has little of what is shared in rounds with these cosines."""
    group, nats = sides.opposed()
    if nats >= required:
        sharing = Sharing.of(rounds, ~group, group)
        if sharing.mean <= _ONE_OF_THE_REST:
            return group & sharing.guilty
    return np.zeros_like(group)


def _still_opposed(cosines: Numbers, accused: Mask, among: Mask, anchors: Mask) -> Mask:
    """(n,) who of the `accused` has nothing this round of what the others `among` (n,) share, or has the reverse of it.

    Who is on the other side, one round says and the next does not; but with suspects named there is nothing to search
    for, and each is told by its own upload. Where the known-benign have no more in common with the others than with
    the accused, those were accused wrongly.
    """
    others = among & ~accused
    share = np.nan_to_num(shared_with(cosines, others), nan=1.0)
    with_others = shared_with(cosines, others & ~anchors)[anchors].mean()
    with_accused = shared_with(cosines, accused)[anchors].mean()
    if with_accused >= with_others:  # never, where either group is too small to tell
        return np.zeros_like(accused)
    return accused & (share < 0)


def _common(cosines: Numbers, group: Mask) -> Numbers:
    """(n,) the common part where `group` (n,) is on the other side; NaN for who was not there."""
    common = np.full(len(cosines), np.nan)
    there = np.flatnonzero(~np.isnan(np.diag(cosines)))
    if len(there):
        common[there] = common_part(cosines[np.ix_(there, there)], np.where(group[there], -1.0, 1.0))
    return common
