"""Who, as a group, opposes the rest: by flipped signs, inverse updates, flipped labels, or in the common part alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.anchors import by_chance_apart
from encagg_cli.filters.anchored_views.evidence import Evidence
from encagg_cli.filters.anchored_views.ridge import shared_with
from encagg_cli.filters.anchored_views.sharing import INNOCENT_TODAY, Sharing, deviations_apart, is_little
from encagg_cli.filters.anchored_views.sides import Sides, common_part
from encagg_cli.filters.anchored_views.standing import NO_VIEWS, Found, Outlook, are_told, standing_out

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NATS: Final = 4.0  # by which all explanations without a client's reversal must be worse
_NATS_WITH_PAST: Final = 3.0
_LATER: Final = 3.0  # how many more once somebody has been rejected
_CLEAR: Final = 4.0  # nats by which a group's being on the other side must be clearer than what parts the known-benign
_STANDING_OUT: Final = 6.0  # strength from which a group stands out (standing.py), with five known-benign clients
_STANDING_OUT_FEWER: Final = 2.5  # more, for every nat by which honest groups without any are commoner (anchors.py)
_STANDING_OUT_LATER: Final = 1.0  # and once somebody has been rejected
_HIDING: Final = 7.3  # and from which it hides
_HIDING_FEWER: Final = 1.5
_HIDING_LATER: Final = 1.0
_HIDING_STRICTER: Final = 0.25  # more of it for every nat by which `alpha` is less than .02
_COLLAPSED: Final = 1.0  # how far those must have (cloud.py) whom their share of what is common does not clear
_STILL_APART: Final = 1.0  # standard deviations by which all accused have less of what is shared
_CERTAIN: Final = 0.1  # of alpha, at which a group is accused in later rounds


@dataclass(frozen=True)
class Reversal:
    """`group` (n,) masks who opposes the rest; nobody, in most rounds.

    `common` (n,) is how far each upload lies on the side of what the others share (sides.py). `certain` (n,) masks who
    is so at a tenth of `alpha`, too, or was accused by earlier rounds and still is: later ones hold it against them.
    `searched` says whether some are certain by this round's own search, so that it also clears whom it did not find.
    """

    group: Mask
    common: Numbers
    certain: Mask
    searched: bool


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
    outlook: Outlook = NO_VIEWS,
    later: bool,
    groups: bool = True,
    today_alone: bool = True,
    accused: Mask | None = None,
) -> Reversal:
    """The group that opposes the others, by what is known of their uploads; `anchors` (n,) are not in it.

    This round is looked at by itself, for those who began today, and together with the past, where today does not say
    otherwise. With those who are certain to be on the other side goes their group, as the clearer of the two tells it;
    where nobody is certain, a group may be. So may a group that stands out in all respects together (standing.py), if
    it has half of those at least whom the searches found. Both only if `groups` is asked for. What this round says by
    itself against the past does not count unless `today_alone` is asked for, too. Of those `accused` (n,) by earlier
    rounds, who still opposes the rest goes with them. `later` says that others have been rejected, so that more is
    asked of all these. `outlook` has the views of the same clients.
    """
    telling = _Telling.of(evidence, anchors, outlook)
    group = telling.group(alpha, later=later, groups=groups, today_alone=today_alone)
    certain = np.zeros_like(group)
    if accused is not None and group.any():
        certain = telling.group(_CERTAIN * alpha, later=later, groups=groups, today_alone=today_alone)
    searched = bool(certain.any())
    if accused is not None:
        group, certain = (
            found | _still_opposed(evidence.cosines[0], accused & ~found & ~anchors, ~found, anchors)
            for found in (group, certain)
        )
    return Reversal(group, _common(evidence.cosines[0], group), certain & group, searched)


@dataclass(frozen=True)
class _Telling:
    """This round's sides alone and, where there are earlier ones, together with theirs, each with the cosines told by.

    `weights` are those of all rounds in what they tell together.
    """

    evidence: Evidence
    anchors: Mask
    outlook: Outlook
    told_by: tuple[tuple[Sides, tuple[Numbers, ...]], ...]
    weights: Numbers

    @classmethod
    def of(cls, evidence: Evidence, anchors: Mask, outlook: Outlook) -> Self:
        today = (Sides(evidence.losses[0], anchors), evidence.cosines[:1])
        if len(evidence.cosines) == 1:
            return cls(evidence, anchors, outlook, (today,), np.ones(1))
        loss, weights = evidence.together(anchors)
        return cls(evidence, anchors, outlook, (today, (Sides(loss, anchors), evidence.cosines)), weights)

    def group(self, alpha: float, *, later: bool, groups: bool, today_alone: bool) -> Mask:
        """(n,) who opposes the rest, where at most a share `alpha` of honest uploads may be lost; see above."""
        (today, _), *earlier = self.told_by
        group = np.zeros(len(self.anchors), dtype=bool)
        if today_alone or not earlier:
            group = today.flipped(required_nats(alpha, past=False, later=later))
            group &= _common(self.evidence.cosines[0], group) < 0
        for lately, _ in earlier:
            flipped = lately.flipped(required_nats(alpha, past=True, later=later))
            group |= _flipped_lately(flipped, self.evidence, self.weights)
        if groups:
            stricter = float(np.log(0.02 / alpha))
            required = _CLEAR + 2.0 * stricter + _LATER * later
            found = [_opposed(sides, rounds, required, self.evidence) for sides, rounds in self.told_by]
            opposed = max(found, key=lambda each: each[1])[0]
            if not group.any() or (group & opposed).any():
                group |= opposed
            odd = self._standing_out(stricter, later)
            if 2 * (group & odd).sum() >= group.sum():
                group |= odd
        return group

    def _standing_out(self, stricter: float, later: bool) -> Mask:
        (group, strength), (hidden, strength_hidden) = self._standing
        fewer = -float(np.log(by_chance_apart(int(self.anchors.sum()))))
        required = _STANDING_OUT + _STANDING_OUT_FEWER * fewer + stricter + _STANDING_OUT_LATER * later
        if strength < required:
            group = hidden
            required = _HIDING + _HIDING_FEWER * fewer + _HIDING_STRICTER * stricter + _HIDING_LATER * later
            if strength_hidden < required:
                return np.zeros_like(group)
        if self.outlook.narrows(group):
            return np.zeros_like(group)
        sharing = Sharing.of(self.evidence.cosines, ~group, group)
        return group & ~_cleared(self.evidence, group, ~sharing.guilty)

    @cached_property
    def _standing(self) -> tuple[Found, Found]:
        evidence = self.evidence
        sides = [each for each, _ in self.told_by]
        quotients = [evidence.quotients[0], evidence.parting(self.anchors)][-len(sides) :]
        return standing_out(evidence, sides, quotients, self.outlook, self.anchors)


def _flipped_lately(group: Mask, evidence: Evidence, weights: Numbers) -> Mask:
    """(n,) who of the `group` is on the other side on average, each round by its weight, and is not cleared today."""
    if group.any():
        common = np.array([_common(cosines, group) for cosines in evidence.cosines])
        there = ~np.isnan(common)
        on_average = (weights @ np.where(there, common, 0.0)) / np.maximum(weights @ there, np.finfo(float).tiny)
        today = np.nan_to_num(shared_with(evidence.cosines[0], ~group))
        group &= on_average < 0
        group &= ~_cleared(evidence, group, today >= INNOCENT_TODAY)
    return group


def _cleared(evidence: Evidence, group: Mask, innocent: Mask) -> Mask:
    """(n,) whom of the `group` this round clears: who is `innocent` (n,) by its share of what is common.

    But nobody, if these have collapsed (cloud.py). Attackers who craft their uploads anew each round do little harm in
    some, and then share like anybody, but are still in one place, where honest clients, those among them, too, are not.
    """
    innocent = group & innocent
    if not evidence.clouds:
        return innocent
    cloud = evidence.clouds[0].among(np.where(group & ~innocent, -1, np.arange(len(group))))
    if are_told(innocent[None, cloud.there])[0] and cloud.collapse(innocent[None])[0] >= _COLLAPSED:
        return np.zeros_like(innocent)
    return innocent


def _opposed(sides: Sides, rounds: Sequence[Numbers], required: float, evidence: Evidence) -> tuple[Mask, float]:
    """(n,) the other side, where it is clearly one and has little of what is shared, and by how many nats it is one.

    Who is cleared today is left out; nobody, and minus infinity, where nobody is left. `rounds` are the cosines (n, n)
    of the uploads by which that is told.
    """
    group, nats = sides.opposed()
    if nats >= required:
        sharing = Sharing.of(rounds, ~group, group)
        group = group & ~_cleared(evidence, group, ~sharing.guilty) & sharing.little
        if group.any():
            return group, nats
    return np.zeros_like(group), -np.inf


def _still_opposed(cosines: Numbers, accused: Mask, among: Mask, anchors: Mask) -> Mask:
    """(n,) who of the `accused` has nothing this round of what the others `among` (n,) share, or has the reverse of it.

    Who is on the other side, one round says and the next does not; but with suspects named there is nothing to search
    for, and each is told by its own upload: more strictly where all accused together still have little of what is
    shared, and are apart from the others in it. Where the known-benign have no more in common with the others than
    with the accused, those were accused wrongly.
    """
    others = among & ~accused
    share = np.nan_to_num(shared_with(cosines, others), nan=1.0)
    with_others = shared_with(cosines, others & ~anchors)[anchors].mean()
    with_accused = shared_with(cosines, accused)[anchors].mean()
    if with_accused >= with_others:  # never, where either group is too small to tell
        return np.zeros_like(accused)
    apart = accused.any() and is_little(share[accused]) and deviations_apart(share, accused, others) > _STILL_APART
    return accused & (share < (INNOCENT_TODAY if apart else 0.0))


def _common(cosines: Numbers, group: Mask) -> Numbers:
    """(n,) the common part where `group` (n,) is on the other side; NaN for who was not there."""
    common = np.full(len(cosines), np.nan)
    there = np.flatnonzero(~np.isnan(np.diag(cosines)))
    if len(there):
        common[there] = common_part(cosines[np.ix_(there, there)], np.where(group[there], -1.0, 1.0))
    return common
