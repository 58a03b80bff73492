"""Min-Sum: as far from the honest mean as the sum of squared distances of some honest update allows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.directed import Directed
from encagg_cli.attacks.directions import Spread


def min_sum_gamma(around: Spread) -> float:
    """The largest `γ` with `Σ_i ‖μ + γp - g_i‖² ≤ max_i Σ_j ‖g_i - g_j‖²`.

    The sum is `Σ_i ‖μ - g_i‖² + b γ² ‖p‖²`, because deviations from the mean cancel. (The authors' notebook bounds it
    by the smallest such sum instead of the largest, which is stricter than their paper.)
    """
    if around.square == 0:
        return 0.0
    bound = float(around.squared_distances.sum(axis=1).max())
    slack = max(bound - float(np.trace(around.inner)), 0.0)
    return float(np.sqrt(slack / (len(around.along) * around.square)))


@dataclass(kw_only=True)
class MinSum(Directed):
    """All attackers upload `μ + γp`, whose squared distances to the known honest updates sum to no more than theirs."""

    name: ClassVar[str] = "min-sum"
    summary: ClassVar[str] = "as far from the honest mean as an honest update's summed distances allow"
    source: ClassVar[str] = "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021"
    grade: ClassVar[Grade] = "A"

    def gamma(self, around: Spread) -> float:
        return min_sum_gamma(around)
