"""FedRA (Yi et al., 2022), our reading: quantity-aware distances, and an estimate of how many clients to drop."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.verdict import verdict
from encagg_cli.settings import check_settings
from encagg_cli.sketch import GramNeed, Need, RoundSketch


@dataclass(kw_only=True)
class FedRA(Filter):
    """Score `S_i = Σ_j q_j ‖g_i - g_j‖²`, drop the `m` highest, average the rest by quantity; `m` is estimated.

    The abstract says that claimed quantities are factors of the distances, and that an estimator predicts the number to
    drop from the scores. The estimator is ours: the split of the sorted scores, less than half of them on the upper
    side, that gains most likelihood over one Gaussian when each side is given a Gaussian of its own (`m = 0` where no
    split gains the 1.5 ln n that the Bayesian information criterion asks for three more parameters). Where a sample
    count is unknown, all count alike, and the reasons say `no-counts`.
    """

    name: ClassVar[str] = "fedra"
    summary: ClassVar[str] = "quantity-weighted distances; how many to drop is estimated (our reading)"
    source: ClassVar[str] = "Yi et al., FedRA, arXiv 2205.10848, 2022 (our reading of its abstract)"
    grade: ClassVar[Grade] = "C"
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.SAMPLE_COUNTS})

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        examples = sketch.header.num_examples
        counted = bool((examples > 0).all())
        quantity = examples.astype(np.float64) if counted else np.ones(len(examples))
        score = sketch.gram.squared_distances @ (quantity / quantity.sum())
        accepted = np.ones(len(score), dtype=bool)
        dropped = estimated_attackers(score)
        accepted[np.argsort(score, kind="stable")[len(score) - dropped :]] = False
        weight = np.where(accepted, quantity, 0.0)
        return verdict(
            sketch,
            accepted,
            score,
            dropped="far-from-others",
            notes=() if counted else ("no-counts",),
            weight=weight / weight.sum(),
        )


def estimated_attackers(scores: NDArray[np.float64]) -> int:
    """How many of the highest scores a two-Gaussian split sets apart, fewer than half; 0 where none gains enough.

    The lower side's deviation is at least a tenth of the upper's and √0.001 of the whole's, the upper's at least a
    quarter of the lower's: a side of one or two clients would otherwise have no deviation, and unlimited likelihood.
    """
    n = len(scores)
    ordered = np.sort(scores)
    whole = float(ordered.var())
    if not whole > 0:
        return 0
    best, gain = 0, 1.5 * np.log(n)
    for m in range(1, (n + 1) // 2):
        upper, lower = ordered[n - m :].var(), ordered[: n - m].var()
        lower = max(lower, 0.01 * upper, 1e-3 * whole)
        upper = max(upper, 0.0625 * lower)
        mixing = (n - m) * np.log((n - m) / n) + m * np.log(m / n)
        gained = 0.5 * (n * np.log(whole) - (n - m) * np.log(lower) - m * np.log(upper)) + mixing
        if gained > gain:
            best, gain = m, float(gained)
    return best
