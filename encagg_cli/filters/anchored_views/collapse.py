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
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.contrast import contrast_of

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]

_PLANE: Final = 2
_MOST_AXES: Final = 20  # of the round, in which planes are looked for
_CLIENTS_AN_AXIS: Final = 3
_FEWEST_AXES: Final = 6  # those of 18 clients; the bound was looked at with 20 and more
_RIDGE: Final = 0.1  # in median variances: less is chance
_LONGEST: Final = 1.5  # in median deviations: a few large uploads are not yet a spread of those near
_SIZES: Final = (0.3, 0.4, 0.5, 0.6)  # of the clients: smaller groups collapse somewhere, too
_FINER: Final = 0.1  # of the clients: sizes about the best of these, that are tried
_FINEST: Final = 50  # no finer than a client in so many
_CONTRASTED: Final = 5000  # groups whose contrast is looked at, the deepest, times clients; and no fewer than
_FEWEST_CONTRASTED: Final = 12
_FEWEST_NEAR: Final = 6
_STEPS: Final = 3
_STARTS: Final = 4  # at random
_DRAWS: Final = 8  # of rounds by chance
_HELD: Final = 6.0  # weight of how much of what those near differ in lies in the plane
_RIVAL: Final = 0.5  # of the strongest rival, that counts
_TINY: Final = 1e-9


@dataclass(frozen=True)
class Cloud:
    """A round's clients on its principal axes: `points` (n, q), and the `ridge`, a variance."""

    points: Numbers
    ridge: float

    def planes(self, far: Masks) -> tuple[Numbers, Numbers]:
        """For each group (m, n), how far it has collapsed, (m,), and the distances from the near mean, (m, n).

        In the plane in which the variances, of those near to the group's around the near mean, have the largest
        quotients: the mean of their logarithms, and as a share, how much of the near variance that any plane can hold
        lies in this one. Distances are squared, in near variances.
        """
        q = self.points.shape[1]
        squares = (self.points[:, :, None] * self.points[:, None, :]).reshape(-1, q * q)
        near = ~far
        counts = near.sum(axis=1)[:, None]
        means = near @ self.points / counts
        spread_near = (near @ squares / counts).reshape(-1, q, q) - means[:, :, None] * means[:, None, :]
        counts = far.sum(axis=1)[:, None]
        cross = means[:, :, None] * (far @ self.points / counts)[:, None, :]
        spread_far = (far @ squares / counts).reshape(-1, q, q) + means[:, :, None] * means[:, None, :]
        spread_far -= cross + cross.transpose(0, 2, 1)  # around the near mean
        ridge = self.ridge * np.eye(q)
        root = np.linalg.cholesky(spread_far + ridge)
        half = np.linalg.solve(root, spread_near + ridge)
        quotients, axes = np.linalg.eigh(np.linalg.solve(root, half.transpose(0, 2, 1)))
        directions = np.linalg.solve(root.transpose(0, 2, 1), axes[:, :, -_PLANE:])
        seen = np.einsum("mqk,mql,mlk->mk", directions, spread_near, directions)
        along = (self.points[None] - means[:, None]) @ directions
        distances = (along**2 / np.maximum(seen, _TINY)[:, None]).sum(axis=2)
        orthonormal = np.linalg.qr(directions)[0]
        held = np.einsum("mqk,mql,mlk->m", orthonormal, spread_near, orthonormal)
        largest = np.linalg.eigvalsh(spread_near)[:, -_PLANE:].sum(axis=1)
        share = held / np.maximum(largest, np.finfo(np.float64).tiny)
        return np.log(quotients[:, -_PLANE:]).mean(axis=1) + _HELD * share, distances

    def collapsing(self, starts: Masks, size: NDArray[np.intp], held: Mask) -> Masks:
        """The groups of `size` (m,) that `starts` (m, n) lead to, without those who are `held` (n,).

        Each has the clients that are nearest to its plane's centre, as often as the plane is then fitted anew
        (concentration steps; Rousseeuw and Van Driessen, Technometrics 1999).
        """
        groups = starts
        for _ in range(_STEPS):
            distances = np.where(held, np.inf, self.planes(groups)[1])
            groups = distances.argsort(axis=1, kind="stable").argsort(axis=1) < size[:, None]
        return groups

    def by_chance(self, sizes: NDArray[np.intp]) -> Numbers:
        """(len(sizes),) how far groups of these sizes have collapsed in rounds by chance, with as much spread."""
        n, q = self.points.shape
        random = np.random.default_rng(n)
        different, place = np.unique(sizes, return_inverse=True)
        far = np.arange(n) < different[:, None]
        drawn = [
            Cloud(random.standard_normal((n, q)) * self.points.std(axis=0), self.ridge).planes(far)[0]
            for _ in range(_DRAWS)
        ]
        by_chance: Numbers = np.mean(drawn, axis=0)[place]
        return by_chance


def collapsed(coordinates: Numbers, products: Numbers, starts: Masks, anchors: Mask) -> tuple[Mask, float]:
    """(n,) the group that has collapsed most clearly, and how strongly; nobody, and minus infinity, where none can.

    `coordinates` (n, r) are those of the uploads on their principal axes, the largest first, `products` (n, n) the
    scaled inner products that tell what they share (ridge.py). Groups are looked for from `starts` (m, n) and at
    random. The strength has no unit; that of honest rounds does not depend on the data set.
    """
    n = len(anchors)
    nobody = np.zeros(n, dtype=bool), -np.inf
    axes = min(_MOST_AXES, n // _CLIENTS_AN_AXIS, coordinates.shape[1])
    sizes = np.array([int(share * n) for share in _SIZES])
    sizes = sizes[sizes <= n - max(_FEWEST_NEAR, int(anchors.sum()))]
    coordinates = drawn_in(coordinates)
    variances = coordinates.var(axis=0)
    ridge = max(_RIDGE * float(np.median(variances)), _TINY * float(variances.max())) if len(variances) else 0.0
    if axes < _FEWEST_AXES or not len(sizes) or not anchors.any() or not ridge > 0:
        return nobody
    search = _Search(Cloud(coordinates[:, :axes], ridge), products, anchors)
    groups = np.vstack([starts, _at_random(search.cloud.points)])
    group, strength = search.strongest(groups, sizes, anchors)
    rival = search.strongest(groups, sizes, np.zeros(n, dtype=bool))[1]
    return group, strength - _RIVAL * (rival if np.isfinite(rival) else strength)


def drawn_in(coordinates: Numbers) -> Numbers:
    """(n, r) uploads as seen from the median along each axis, none farther from it than half as far again as most.

    The few uploads that are largest, of attackers or not, would make an axis beside which all others have collapsed.
    """
    deviations = coordinates - np.median(coordinates, axis=0)
    length = np.linalg.norm(deviations, axis=1, keepdims=True)
    most = _LONGEST * np.median(length)
    near: Numbers = deviations * np.minimum(1.0, most / np.maximum(length, np.finfo(np.float64).tiny))
    return near


@dataclass(frozen=True)
class _Search:
    """For the strongest group in a `cloud`, where `products` tell what uploads share."""

    cloud: Cloud
    products: Numbers
    anchors: Mask

    def strongest(self, starts: Masks, sizes: NDArray[np.intp], held: Mask) -> tuple[Mask, float]:
        """The strongest group without those who are `held` (n,); if nobody is, of those with known-benign members."""
        n = len(held)
        first = starts & ~held
        first = first[(first.sum(axis=1) > 1) & ((~first).sum(axis=1) > 1)]
        best, strength = self._strongest(np.tile(first, (len(sizes), 1)), np.repeat(sizes, len(first)), held)
        if best.any():
            about = best.sum() + np.arange(-int(_FINER * n), int(_FINER * n) + 1, max(1, n // _FINEST))
            about = about[(about > 1) & (about <= n - max(_FEWEST_NEAR, int(self.anchors.sum())))]
            finer = self._strongest(np.tile(best, (len(about), 1)), about, held)
            best, strength = max((best, strength), finer, key=lambda found: found[1])
        return best, strength

    def _strongest(self, starts: Masks, sizes: NDArray[np.intp], held: Mask) -> tuple[Mask, float]:
        groups = self.cloud.collapsing(starts, sizes, held)
        groups = np.unique(groups[(groups & self.anchors).any(axis=1) != held.any()], axis=0)
        if not len(groups):
            return np.zeros(len(held), dtype=bool), -np.inf
        depths = self.cloud.planes(groups)[0] - self.cloud.by_chance(groups.sum(axis=1))
        deepest = np.argsort(-depths, kind="stable")[: max(_FEWEST_CONTRASTED, _CONTRASTED // len(held))]
        groups, depths = groups[deepest], depths[deepest]
        strength = depths + np.array([contrast_of(self.products, far) for far in groups])
        best = int(strength.argmax())
        return groups[best], float(strength[best])


def _at_random(points: Numbers) -> Masks:
    """Groups at random, (m, n), whatever the order of the clients."""
    n = len(points)
    random = np.random.default_rng(n)
    order = (points**2).sum(axis=1).argsort(kind="stable")
    drawn: Masks = random.random((_STARTS, n)) < random.uniform(_SIZES[0], _SIZES[-1], (_STARTS, 1))
    groups = np.zeros_like(drawn)
    groups[:, order] = drawn
    return groups
