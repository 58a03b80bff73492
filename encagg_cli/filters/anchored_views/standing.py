"""Which group stands out most, all that is known of it taken together?

No single measure tells attackers from honest clients in every federation, and most that tell anything are beaten, each
in its turn, by some honest class. But an honest group that looks odd in one respect seldom does in all, and attackers
do. So whatever group a search has found (sides.py, parting.py), or a view (views.py), is weighed by five measures that
know nothing of each other:

- *contrast*: how far its uploads are from having what those of all others share (sharing.py);
- *collapse*: how little they spread where honest clients do most (cloud.py);
- *apart*: in the view in which the group stands apart most, how much likelier two populations are than one (split.py);
- *told*: how much better it is predicted from the uploads, as a side or as a population, than the best group that parts
  the known-benign;
- *by signs*: how much farther its centre lies from that of the others by the signs of the coordinates than by the
  updates as they are. What all share stands in the signs of most coordinates, and what clients differ in, classes above
  all, is large in some: who opposes the rest is farther by signs, and an honest class by the updates.

All but *apart* are averaged over all remembered rounds, or of all of them together. The weights were chosen on
scikit-learn's digits, as they are and in noise, with many draws of the known-benign, clients with two or three classes
among them.

Where clients have next to nothing but two or three classes, these, too, may stand out in all respects. But then some
that part the known-benign are told better still, by their sides and by their partings: such groups must stand out more,
unless they *hide*: contrast and collapse alone are large, beside how much they have of what the others share. Honest
classes collapse as well, and have the less of what others share the farther they are from them, but not nothing; and
where all share so little that they have nothing, they are much nearer by signs than by the updates.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.evidence import Evidence, by_law
from encagg_cli.filters.anchored_views.parting import gain_of_rivals, partings
from encagg_cli.filters.anchored_views.ridge import alike
from encagg_cli.filters.anchored_views.sharing import contrast_and_share
from encagg_cli.filters.anchored_views.sides import Sides
from encagg_cli.filters.anchored_views.signs import Quotient
from encagg_cli.filters.anchored_views.split import anchored_split, gain_of
from encagg_cli.filters.anchored_views.views import View

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]
Found = tuple[Mask, float]  # a group (n,), and its strength

_CONTRAST: Final = 2.0
_COLLAPSE: Final = 0.7
_APART: Final = 3.0
_TOLD: Final = 0.2
_BY_SIGNS: Final = 15.0
_CONTRAST_HIDDEN: Final = 1.5  # beside a collapse of one, for who hides
_SHARE_HIDDEN: Final = 8.0  # less, for all of what the others share
_NEXT_TO_NOTHING: Final = -0.1  # of it: less does not count for more
_NEARER_HIDDEN: Final = 30.0  # less, for being nearer by signs
_LITTLE_NEARER: Final = -0.12  # as attackers are, too: decided by those of MNIST, Dirichlet 0.1
_BEST: Final = 6  # of each search, that are weighed
_FEWEST_FAR: Final = 2
_FEWEST_NEAR: Final = 6  # fewer, chosen for being alike, make anybody else look different
_FEW_OF: Final = 4  # times as many whom a view tells: then a search has found only a few of them
_FAINTEST: Final = 0.3  # gain of a view's split, beside the gain required, from which its group is weighed
_MOST_APART: Final = 4.0
_TOLD_WITHIN: Final = 20.0
_WORSE: Final = 1.0  # nats by which a group may be told worse than what parts the known-benign
_BEATEN: Final = 3.0  # of strength, that it costs to be told worse still


@dataclass(frozen=True)
class Outlook:
    """The views of a round, and what a split of one must gain to be believed by itself.

    `cut` (n,) masks whom the clearest view would cut off by itself; None: none is clear enough.
    """

    views: Sequence[View] = ()
    required: float = 1.0
    cut: Mask | None = None

    def groups(self, anchors: Mask) -> list[Mask]:
        """(n,) each, who stands apart from the `anchors` (n,) in a view, if ever so faintly."""
        splits = [anchored_split(view.values, anchors, low=bool(view.low), high=bool(view.high)) for view in self.views]
        return [each.far for each in splits if each is not None and each.gain > _FAINTEST * self.required]

    def apart(self, group: Mask) -> float:
        """How much splitting off the `group` (n,) gains in the view where it gains most, beside what is required.

        From 0, where it gains nothing in any, to 4.
        """
        gains = [gain_of(view.values, group) for view in self.views if (view.high if view.is_high(group) else view.low)]
        return float(np.clip(max(gains, default=0.0) / self.required, 0.0, _MOST_APART))

    def narrows(self, group: Mask) -> bool:
        """Whether a view by itself tells a part of the `group` (n,), and only a part: the others may be like it."""
        return self.cut is not None and bool((group & ~self.cut).any()) and not (self.cut & ~group).any()

    def widens(self, group: Mask) -> bool:
        """Whether somebody is in the `group`, but a view by itself tells them among four times as many."""
        if self.cut is None or not group.any() or (group & ~self.cut).any():
            return False
        return bool(self.cut.sum() >= _FEW_OF * group.sum())


NO_VIEWS: Final = Outlook()


def standing_out(
    evidence: Evidence, sides: Sequence[Sides], quotients: Sequence[Quotient], outlook: Outlook, anchors: Mask
) -> tuple[Found, Found]:
    """The group that stands out most, without the `anchors` (n,), and the one that hides most.

    Each (n,) with its strength, which has no unit; nobody, with minus infinity, where there is none. The `evidence` is
    of this round and earlier ones; `sides` and `quotients` of this round, and of all together, which come last.
    """
    found = [signs < 0 for each in sides for signs in each.choices[1][:_BEST]]
    found += [signs < 0 for each in quotients for signs in partings(each, anchors)[1][:_BEST]]
    groups = np.unique(np.array([*found, *outlook.groups(anchors)], dtype=bool).reshape(-1, len(anchors)), axis=0)
    groups = groups[are_told(groups)]
    contrast, share = _on_average(groups, map(_contrasts_and_shares, evidence.cosines), 2).T
    collapse = _on_average(groups, ((cloud.there, cloud.collapse) for cloud in evidence.clouds))
    apart = np.array([outlook.apart(group) for group in groups])
    by_signs = _on_average(groups, map(_farther_by_signs, evidence.cosines, evidence.updates))
    parting = quotients[-1].gains(np.where(groups, -1.0, 1.0)) - gain_of_rivals(quotients[-1], anchors)
    told = np.clip(np.maximum(parting, sides[-1].clearer_than_rivals(groups)), -_TOLD_WITHIN, _TOLD_WITHIN)
    weighed = _CONTRAST * contrast + _COLLAPSE * collapse + _APART * apart + _TOLD * told + _BY_SIGNS * by_signs
    weighed -= np.where(told > -_WORSE, 0.0, _BEATEN)
    hidden = _CONTRAST_HIDDEN * contrast + collapse - _SHARE_HIDDEN * np.maximum(share, _NEXT_TO_NOTHING)
    hidden += _NEARER_HIDDEN * np.minimum(by_signs - _LITTLE_NEARER, 0.0)
    return _strongest(groups, weighed), _strongest(groups, hidden)


def _strongest(groups: Masks, strengths: Numbers) -> Found:
    if not len(groups):
        return np.zeros(groups.shape[1], dtype=bool), -np.inf
    best = int(strengths.argmax())
    return groups[best], float(strengths[best])


def are_told(groups: Masks) -> Mask:
    """(m,) which of the groups (m, n) have enough members, and enough others."""
    far = groups.sum(axis=1)
    told: Mask = (far >= _FEWEST_FAR) & (groups.shape[1] - far >= _FEWEST_NEAR)
    return told


def _on_average(
    groups: Masks, rounds: Iterable[tuple[Mask, Callable[[Masks], Numbers]]], measures: int | None = None
) -> Numbers:
    """(m,) the measure of each of the groups (m, n), on average over the rounds that tell of it; 0 where none does.

    Of every round, who was there, (n,), and how groups measure in it: (m,), or (m, measures).
    """
    total, count = np.zeros((len(groups), measures) if measures else len(groups)), np.zeros(len(groups))
    for there, measured in rounds:
        told = are_told(groups[:, there])
        if told.any():
            total[told] += measured(groups[told])
            count[told] += 1.0
    mean: Numbers = (total.T / np.maximum(count, 1.0)).T
    return mean


def _contrasts_and_shares(cosines: Numbers) -> tuple[Mask, Callable[[Masks], Numbers]]:
    there = ~np.isnan(np.diag(cosines))

    def measured(groups: Masks) -> Numbers:
        products = alike(cosines[np.ix_(there, there)])
        return np.array([contrast_and_share(products, group) for group in groups[:, there]])

    return there, measured


def _farther_by_signs(cosines: Numbers, updates: Numbers) -> tuple[Mask, Callable[[Masks], Numbers]]:
    """Of the squared distance between the centres of a group and of the others, by how much it is larger by signs.

    From the cosines (n, n) that tell sides, and those of the updates as they are. Where both are the same, signs tell
    nothing of their own: their cosines follow from those of the updates. Nobody is compared with itself, so that it is
    0 on average for a group drawn at random, however small.
    """
    there = ~np.isnan(np.diag(cosines))
    among = np.ix_(there, there)
    by_signs, as_they_are = cosines[among], updates[among]
    more = (by_law(as_they_are) if np.array_equal(by_signs, as_they_are) else by_signs) - as_they_are
    np.fill_diagonal(more, 0.0)

    def measured(groups: Masks) -> Numbers:
        far, near = (side[:, there].astype(np.float64) for side in (groups, ~groups))
        far_size, near_size = far.sum(axis=1), near.sum(axis=1)
        among_far = ((far @ more) * far).sum(axis=1) / (far_size * (far_size - 1.0))
        among_near = ((near @ more) * near).sum(axis=1) / (near_size * (near_size - 1.0))
        across = ((far @ more) * near).sum(axis=1) / (far_size * near_size)
        larger: Numbers = among_far + among_near - 2.0 * across
        return larger

    return there, measured
