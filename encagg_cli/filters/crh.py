"""CRH truth discovery: uploads weigh by their distance to a truth, and the truth is their weighted mean."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade
from encagg_cli.filters.verdict import by_weight, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Gram, GramNeed, Need, RoundSketch


@dataclass(kw_only=True)
class CrhTruthDiscovery(Filter):
    """Alternate `x = Σ w_i g_i / Σ w_i` and `w_i = -ln(‖g_i - x‖² / Σ_j ‖g_j - x‖²)` from equal weights on.

    CRH (Li et al., SIGMOD 2014) on uploads. Federated defences named TDFL and MODEL build on truth discovery, but
    their equations are not public; this is neither of them. The rule has no verdict of its own: an upload is rejected
    where its weight is at most `reject_at` times the median one. The statistic is `‖g_i - x‖`.
    """

    name: ClassVar[str] = "crh-truth-discovery"
    summary: ClassVar[str] = "weights from distances to a jointly estimated truth"
    source: ClassVar[str] = (
        "Li et al., CRH: Resolving Conflicts in Heterogeneous Data, SIGMOD 2014; on uploads: our reading"
    )
    grade: ClassVar[Grade] = "C"

    iterations: int = setting(100, "at most", at_least=1)
    reject_at: float = setting(0.5, "reject at this share of the median weight and below", at_least=0, below=1)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        weight = crh_weights(sketch.gram, self.iterations)
        distance = np.sqrt(sketch.gram.squared_distances_to(weight / weight.sum()))
        return verdict(
            sketch,
            by_weight(weight, self.reject_at),
            distance,
            dropped="far-from-truth",
            weight=weight / weight.sum(),
        )


def crh_weights(gram: Gram, iterations: int) -> NDArray[np.float64]:
    """(n,) weights when they stand still; all 1 where nothing tells the uploads apart."""
    n = len(gram)
    weight = np.ones(n)
    for _ in range(iterations):
        squares = gram.squared_distances_to(weight / weight.sum())
        total = float(squares.sum())
        if n < 2 or not total > 0:
            return np.ones(n)
        share = np.maximum(squares / total, np.finfo(np.float64).tiny)
        moved = np.maximum(-np.log(share), 0.0)
        still = bool(np.abs(moved - weight).max() <= 1e-12 * moved.max())
        weight = moved
        if still:
            break
    return weight
