"""Where a round's clients lie on its principal axes, and who has nothing of what honest clients differ in most.

EnCAgg looks at the plane in which updates differ most, and whoever means to pass uploads there what the mean of all is
(its adaptive attack, eqs. 56-57), and does its harm elsewhere. But honest clients lie apart in that plane, each by its
own data: a group that hides there has collapsed into one point, and that gives it away. Nor does it take the plane to
know it: of all planes, the one in which the spread of those near is largest beside that of the group tells how far a
group has collapsed (Fisher's discriminant, of spreads instead of means).

Honest classes collapse, too: who has nothing of two classes does not differ along the axis from one to the other. Such
axes are seldom those of the largest spread, so that it also counts how much of what those near differ in lies in the
plane.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch import principal_coordinates

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]

_PLANE: Final = 2
_MOST_AXES: Final = 20  # of the round, in which planes are looked for
_CLIENTS_AN_AXIS: Final = 3
_FEWEST_AXES: Final = 6  # those of 18 clients; the bound was looked at with 20 and more
_RIDGE: Final = 0.1  # in median variances: less is chance
_LONGEST: Final = 1.5  # in median deviations: a few large uploads are not yet a spread of those near
_DRAWS: Final = 8  # of rounds by chance
_HELD: Final = 6.0  # weight of how much of what those near differ in lies in the plane
_TINY: Final = 1e-9


@dataclass(frozen=True)
class Cloud:
    """A round's clients on its principal axes: `points` (n, q), NaN for who was not there; and the `ridge`, a variance.

    No axes, where they are too few or all clients are alike.
    """

    points: Numbers
    ridge: float
    _chance: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)  # by size

    @classmethod
    def of(cls, deviations: Numbers) -> Self:
        """From the inner products (n, n) of the uploads relative to any origin."""
        n = len(deviations)
        coordinates = drawn_in(principal_coordinates(deviations, n))
        variances = coordinates.var(axis=0)
        ridge = max(_RIDGE * float(np.median(variances)), _TINY * float(variances.max())) if n else 0.0
        axes = min(_MOST_AXES, n // _CLIENTS_AN_AXIS)
        return cls(coordinates[:, : axes if axes >= _FEWEST_AXES and ridge > 0 else 0], ridge)

    def among(self, index: NDArray[np.intp]) -> Self:
        """Of the clients with these places; less than none for who was not there."""
        return type(self)(np.where(index[:, None] < 0, np.nan, self.points[index]), self.ridge)

    @cached_property
    def there(self) -> Mask:
        """(n,) whom it tells of."""
        if not self.points.shape[1]:
            return np.zeros(len(self.points), dtype=bool)
        present: Mask = ~np.isnan(self.points[:, 0])
        return present

    def collapse(self, far: Masks) -> Numbers:
        """(m,) how much further than by chance the groups (m, n) have collapsed: no unit, the same in any federation.

        `depths` less those of as large groups in rounds by chance.
        """
        return self.depths(far) - self.by_chance(far[:, self.there].sum(axis=1))

    def depths(self, far: Masks) -> Numbers:
        """(m,) how far each group (m, n) has collapsed.

        In the plane in which the variances, of those near to the group's around the near mean, have the largest
        quotients: the mean of their logarithms, and as a share, how much of the near variance that any plane can hold
        lies in this one.
        """
        points, far = self.points[self.there], far[:, self.there]
        q, near = points.shape[1], ~far
        squares = (points[:, :, None] * points[:, None, :]).reshape(-1, q * q)
        counts = near.sum(axis=1)[:, None]
        means = near @ points / counts
        spread_near = (near @ squares / counts).reshape(-1, q, q) - means[:, :, None] * means[:, None, :]
        counts = far.sum(axis=1)[:, None]
        cross = means[:, :, None] * (far @ points / counts)[:, None, :]
        spread_far = (far @ squares / counts).reshape(-1, q, q) + means[:, :, None] * means[:, None, :]
        spread_far -= cross + cross.transpose(0, 2, 1)  # around the near mean
        ridge = self.ridge * np.eye(q)
        root = np.linalg.cholesky(spread_far + ridge)
        half = np.linalg.solve(root, spread_near + ridge)
        quotients, axes = np.linalg.eigh(np.linalg.solve(root, half.transpose(0, 2, 1)))
        directions = np.linalg.solve(root.transpose(0, 2, 1), axes[:, :, -_PLANE:])
        orthonormal = np.linalg.qr(directions)[0]
        held = np.einsum("mqk,mql,mlk->m", orthonormal, spread_near, orthonormal)
        largest = np.linalg.eigvalsh(spread_near)[:, -_PLANE:].sum(axis=1)
        share = held / np.maximum(largest, np.finfo(np.float64).tiny)
        depths: Numbers = np.log(quotients[:, -_PLANE:]).mean(axis=1) + _HELD * share
        return depths

    def by_chance(self, sizes: NDArray[np.intp]) -> Numbers:
        """(len(sizes),) how far groups of these sizes have collapsed in rounds by chance, with as much spread."""
        missing = np.setdiff1d(sizes, list(self._chance))
        if len(missing):
            points = self.points[self.there]
            n, q = points.shape
            random = np.random.default_rng(n)
            far = np.arange(n) < missing[:, None]
            drawn = [
                Cloud(random.standard_normal((n, q)) * points.std(axis=0), self.ridge).depths(far)
                for _ in range(_DRAWS)
            ]
            self._chance.update(zip(missing.tolist(), np.mean(drawn, axis=0).tolist(), strict=True))
        return np.array([self._chance[size] for size in sizes.tolist()])


def drawn_in(coordinates: Numbers) -> Numbers:
    """(n, r) uploads as seen from the median along each axis, none farther from it than half as far again as most.

    The few uploads that are largest, of attackers or not, would make an axis beside which all others have collapsed.
    """
    deviations = coordinates - np.median(coordinates, axis=0)
    length = np.linalg.norm(deviations, axis=1, keepdims=True)
    most = _LONGEST * np.median(length)
    near: Numbers = deviations * np.minimum(1.0, most / np.maximum(length, np.finfo(np.float64).tiny))
    return near
