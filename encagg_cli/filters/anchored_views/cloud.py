"""Where a round's clients lie on its principal axes, and how far a group has collapsed there."""

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

    def planes(self, far: Masks) -> tuple[Numbers, Numbers]:
        """For each group (m, n), how far it has collapsed, (m,), and the distances from the near mean, (m, n).

        In the plane in which the variances, of those near to the group's around the near mean, have the largest
        quotients: the mean of their logarithms, and as a share, how much of the near variance that any plane can hold
        lies in this one. Distances are squared, in near variances.
        """
        points = self.points[self.there]
        q = points.shape[1]
        squares = (points[:, :, None] * points[:, None, :]).reshape(-1, q * q)
        everybody, far = np.full(far.shape, np.nan), far[:, self.there]
        near = ~far
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
        seen = np.einsum("mqk,mql,mlk->mk", directions, spread_near, directions)
        along = (points[None] - means[:, None]) @ directions
        everybody[:, self.there] = (along**2 / np.maximum(seen, _TINY)[:, None]).sum(axis=2)
        orthonormal = np.linalg.qr(directions)[0]
        held = np.einsum("mqk,mql,mlk->m", orthonormal, spread_near, orthonormal)
        largest = np.linalg.eigvalsh(spread_near)[:, -_PLANE:].sum(axis=1)
        share = held / np.maximum(largest, np.finfo(np.float64).tiny)
        return np.log(quotients[:, -_PLANE:]).mean(axis=1) + _HELD * share, everybody

    def by_chance(self, sizes: NDArray[np.intp]) -> Numbers:
        """(len(sizes),) how far groups of these sizes have collapsed in rounds by chance, with as much spread."""
        missing = np.setdiff1d(sizes, list(self._chance))
        if len(missing):
            points = self.points[self.there]
            n, q = points.shape
            random = np.random.default_rng(n)
            far = np.arange(n) < missing[:, None]
            drawn = [
                Cloud(random.standard_normal((n, q)) * points.std(axis=0), self.ridge).planes(far)[0]
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
