"""Who has nothing of what honest clients differ in most?

EnCAgg looks at the plane in which updates differ most, and whoever means to pass uploads there what the mean of all is
(its adaptive attack, eqs. 56-57), and does its harm elsewhere. But honest clients lie apart in that plane, each by its
own data: a group that hides there has collapsed into one point, and that gives it away. Nor does it take the plane to
know it: of all planes, the one in which the spread of those near is largest beside that of the group tells how far a
group has collapsed (Fisher's discriminant, of spreads instead of means).

Honest classes collapse, too: who has nothing of two classes does not differ along the axis from one to the other. Such
axes are seldom those of the largest spread; clients without the classes have as much of what all share as the others;
and the known-benign are among them as often as anybody else. So a group must have collapsed, further than groups by
chance; in a plane that holds most of what those near differ in; have less of what they share (contrast.py); and all
this beyond the strongest group with known-benign members.

In one round, groups by chance come close to those of attackers. But chance finds another group in every round, and
attackers are the same: of the strongest groups of this round, the one that has collapsed most in all remembered rounds
on average takes far less to be told from honest ones. It takes three known-benign clients, for honest groups persist,
too: with two, many have none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.cloud import Cloud
from encagg_cli.filters.anchored_views.contrast import contrast_of
from encagg_cli.filters.anchored_views.ridge import alike

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]

_SIZES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of the clients
_FINER: Final = 0.1  # of the clients: sizes about the best of these, that are tried
_FINEST: Final = 50  # no finer than a client in so many
_CONTRASTED: Final = 5000  # groups whose contrast is looked at, the deepest, times clients; and no fewer than
_FEWEST_CONTRASTED: Final = 12
_CONTRASTED_TOGETHER: Final = 4  # in all rounds
_OF_A_SIZE: Final = 2  # of the strongest groups of this round, that are looked at in all rounds
_FEWEST_NEAR: Final = 6
_FEWEST_FAR: Final = 2
_FEWEST_ANCHORS_TOGETHER: Final = 3  # groups of honest clients stay the same, too, and most have none of two
_STEPS: Final = 3
_STARTS: Final = 4  # at random
_RIVAL: Final = 0.5  # of the strongest rival, that counts
_RIVAL_TOGETHER: Final = 0.75


@dataclass(frozen=True)
class Collapse:
    """The group (n,) that has collapsed most clearly, and how strongly: this round, and in several rounds together.

    Nobody, and minus infinity, where none can, or where there is but one round, or too few are known-benign. The
    strength has no unit; that of honest rounds does not depend on the data set.
    """

    group: Mask
    strength: float
    together: Mask
    strength_together: float

    @classmethod
    def of(cls, clouds: Sequence[Cloud], cosines: Sequence[Numbers], starts: Masks, anchors: Mask) -> Self:
        """Groups are looked for from `starts` (m, n) and at random, without the `anchors` (n,).

        `clouds` and `cosines` (n, n), by which it is told what uploads share, are of this round, then of earlier ones.
        """
        n = len(anchors)
        nobody = np.zeros(n, dtype=bool)
        sizes = np.unique([max(_FEWEST_FAR, int(share * n)) for share in _SIZES])
        sizes = sizes[sizes <= n - max(_FEWEST_NEAR, int(anchors.sum()))]
        nothing = nobody, -np.inf
        if not clouds or not clouds[0].there.all() or not len(sizes) or not anchors.any():
            return cls(*nothing, *nothing)
        rounds = [
            _Round(cloud, alike(round_[np.ix_(cloud.there, cloud.there)]))
            for cloud, round_ in zip(clouds, cosines, strict=True)
            if cloud.there.sum() > _FEWEST_FAR + _FEWEST_NEAR
        ]
        starts = np.vstack([starts, _at_random(clouds[0].points)])
        today, together = _Search(rounds[:1], anchors), _Search(rounds, anchors)
        found = []
        for held in (anchors, nobody):
            groups, strengths = today.from_starts(starts, sizes, held)
            alone, several = today.finer(groups, strengths, held), nothing
            if len(groups) and len(rounds) > 1 and anchors.sum() >= _FEWEST_ANCHORS_TOGETHER:
                strongest = np.vstack([_strongest_of_each_size(groups, strengths), alone[0]])
                several = together.finer(*together.from_groups(strongest, held), held)
            found.append((alone, several))
        (alone, several), (rival, rival_of_several) = found
        return cls(*_beyond(alone, rival, _RIVAL), *_beyond(several, rival_of_several, _RIVAL_TOGETHER))


@dataclass(frozen=True)
class _Round:
    """A `cloud`, and the scaled inner products (m, m) of who was there, that tell what uploads share (ridge.py)."""

    cloud: Cloud
    products: Numbers

    def tells(self, groups: Masks) -> Mask:
        """(m,) of which groups (m, n) it tells."""
        far = groups[:, self.cloud.there]
        counts = far.sum(axis=1)
        tells: Mask = (counts >= _FEWEST_FAR) & (far.shape[1] - counts >= _FEWEST_NEAR)
        return tells

    def depths(self, groups: Masks) -> Numbers:
        """(m,) how much further than by chance the groups (m, n) have collapsed; NaN where it does not tell."""
        depths, told = np.full(len(groups), np.nan), self.tells(groups)
        if told.any():
            by_chance = self.cloud.by_chance(groups[told][:, self.cloud.there].sum(axis=1))
            depths[told] = self.cloud.planes(groups[told])[0] - by_chance
        return depths

    def distances(self, groups: Masks) -> Numbers:
        """(m, n) from the centre of each group's plane; NaN where it does not tell."""
        distances, told = np.full(groups.shape, np.nan), self.tells(groups)
        if told.any():
            distances[told] = self.cloud.planes(groups[told])[1]
        return distances

    def contrast(self, group: Mask) -> float:
        return contrast_of(self.products, group[self.cloud.there]) if self.tells(group[None])[0] else np.nan


@dataclass(frozen=True)
class _Search:
    """For the strongest groups in some `rounds`, on average."""

    rounds: Sequence[_Round]
    anchors: Mask

    def from_starts(self, starts: Masks, sizes: NDArray[np.intp], held: Mask) -> tuple[Masks, Numbers]:
        """Groups (m, n) and their strengths (m,), the strongest first.

        Without those who are `held` (n,); if nobody is, with known-benign members.
        """
        first = starts & ~held
        first = first[(first.sum(axis=1) >= _FEWEST_FAR) & ((~first).sum(axis=1) >= _FEWEST_NEAR)]
        groups = self.collapsing(np.tile(first, (len(sizes), 1)), np.repeat(sizes, len(first)), held)
        return self._strongest(groups, held)

    def from_groups(self, groups: Masks, held: Mask) -> tuple[Masks, Numbers]:
        """The same, from groups that are themselves among them."""
        return self._strongest(np.vstack([groups, self.collapsing(groups, groups.sum(axis=1), held)]), held)

    def finer(self, groups: Masks, strengths: Numbers, held: Mask) -> tuple[Mask, float]:
        """The strongest of these `groups` (m, n), and of those of about its size that it leads to."""
        if not len(groups):
            return np.zeros(len(held), dtype=bool), -np.inf
        n, best = len(held), groups[0]
        about = best.sum() + np.arange(-int(_FINER * n), int(_FINER * n) + 1, max(1, n // _FINEST))
        about = about[(about >= _FEWEST_FAR) & (about <= n - max(_FEWEST_NEAR, int(self.anchors.sum())))]
        others, theirs = self._strongest(self.collapsing(np.tile(best, (len(about), 1)), about, held), held)
        if len(others) and theirs[0] > strengths[0]:
            return others[0], float(theirs[0])
        return best, float(strengths[0])

    def collapsing(self, groups: Masks, size: NDArray[np.intp], held: Mask) -> Masks:
        """The groups of `size` (m,) that `groups` (m, n) lead to, without those who are `held` (n,).

        Each has the clients that are nearest to its plane's centre, as often as the plane is then fitted anew
        (concentration steps; Rousseeuw and Van Driessen, Technometrics 1999).
        """
        for _ in range(_STEPS):
            distances = np.where(held, np.inf, _mean([each.distances(groups) for each in self.rounds]))
            groups = distances.argsort(axis=1, kind="stable").argsort(axis=1) < size[:, None]
        return groups

    def _strongest(self, groups: Masks, held: Mask) -> tuple[Masks, Numbers]:
        groups = np.unique(groups[(groups & self.anchors).any(axis=1) != held.any()], axis=0)
        if not len(groups):
            return groups, np.zeros(0)
        depths = _mean([each.depths(groups) for each in self.rounds])
        several = len(self.rounds) > 1
        most = _CONTRASTED_TOGETHER if several else max(_FEWEST_CONTRASTED, _CONTRASTED // len(held))
        deepest = np.argsort(-depths, kind="stable")[:most]
        groups = groups[deepest]
        contrasts = [_mean([np.array(each.contrast(group)) for each in self.rounds]) for group in groups]
        strengths = depths[deepest] + np.array(contrasts)
        order = np.argsort(-strengths, kind="stable")
        return groups[order], strengths[order]


def _beyond(found: tuple[Mask, float], rival: tuple[Mask, float], weight: float) -> tuple[Mask, float]:
    """The group, and how much stronger it is than its rival; where there is none, it is its own."""
    group, strength = found
    if not group.any():
        return found
    return group, strength - weight * (rival[1] if np.isfinite(rival[1]) else strength)


def _mean(rounds: Sequence[Numbers]) -> Numbers:
    """Over the rounds that tell; this one always does."""
    mean: Numbers = rounds[0] if len(rounds) == 1 else np.nanmean(rounds, axis=0)
    return mean


def _strongest_of_each_size(groups: Masks, strengths: Numbers) -> Masks:
    """Of groups (m, n), the strongest first."""
    sizes = groups.sum(axis=1)
    return np.vstack([groups[sizes == size][:_OF_A_SIZE] for size in np.unique(sizes)])


def _at_random(points: Numbers) -> Masks:
    """Groups at random, (m, n), whatever the order of the clients."""
    n = len(points)
    random = np.random.default_rng(n)
    order = (points**2).sum(axis=1).argsort(kind="stable")
    drawn: Masks = random.random((_STARTS, n)) < random.uniform(_SIZES[0], _SIZES[-1], (_STARTS, 1))
    groups = np.zeros_like(drawn)
    groups[:, order] = drawn
    return groups
