"""Min-Max: as far from the honest mean as one can go without being an outlier by distance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.directed import Directed
from encagg_cli.attacks.directions import Spread


def min_max_gamma(around: Spread) -> float:
    """The largest `γ` with `max_i ‖μ + γp - g_i‖ ≤ max_{i,j} ‖g_i - g_j‖`.

    Each honest update bounds γ by the larger root of a quadratic, so the largest γ is found exactly; the paper and its
    code approach it by halving steps.
    """
    if around.square == 0:
        return 0.0
    slack = np.maximum(float(around.squared_distances.max()) - np.diag(around.inner), 0.0)
    roots = (around.along + np.sqrt(around.along**2 + around.square * slack)) / around.square
    return max(float(roots.min()), 0.0)


@dataclass(kw_only=True)
class MinMax(Directed):
    """All attackers upload `μ + γp`, no farther from any known honest update than two of those are from each other."""

    name: ClassVar[str] = "min-max"
    summary: ClassVar[str] = "as far from the honest mean as two honest updates are from each other"
    source: ClassVar[str] = "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021"
    grade: ClassVar[Grade] = "A"

    def gamma(self, around: Spread) -> float:
        return min_max_gamma(around)
