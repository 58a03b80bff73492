"""SignGuard (Xu et al., ICDCS 2022): norms within bounds, and the largest cluster of sign statistics."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade
from encagg_cli.filters.grouping import by_size, mean_shift
from encagg_cli.filters.verdict import clipped_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.signs import SignCountNeed


@dataclass(kw_only=True)
class SignGuard(Filter):
    """Keep who passes both: `low·med < ‖g_i‖ < high·med`, and membership of the largest cluster of sign shares.

    The sign shares are those of positive, zero and negative values in a random contiguous window of `share` of the
    coordinates, each divided by its largest over the clients (the plain variant, without similarity features). The
    window is drawn once per seed, not anew in every round, so that a round is judged alike however often. MeanShift
    with its bandwidth from the `quantile` of distances, or DBSCAN. Where no cluster is found, the norms alone decide.
    Kept uploads are shortened to the median norm and averaged. The statistic is the distance to the cluster's mean,
    plus by how much the logarithm of the norm is out of bounds.
    """

    name: ClassVar[str] = "signguard"
    summary: ClassVar[str] = "norm bounds and the largest cluster of sign statistics"
    source: ClassVar[str] = (
        "Xu et al., Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering, ICDCS 2022"
    )
    grade: ClassVar[Grade] = "A"

    low: float = setting(0.1, "least norm, in median norms", at_least=0)
    high: float = setting(3.0, "largest norm, in median norms", above=0)
    share: float = setting(0.1, "share of the coordinates whose signs are counted", above=0, at_most=1)
    clustering: Literal["mean-shift", "dbscan"] = setting("mean-shift", "mean-shift, or dbscan")
    quantile: float = setting(0.5, "of pairwise distances: MeanShift's bandwidth", above=0, at_most=1)
    eps: float = setting(0.05, "DBSCAN's radius", above=0)
    min_samples: int = setting(2, "DBSCAN's neighbours of a core point, itself among them", at_least=1)
    seed: int = setting(0, "of the window", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (self._signs(),)

    def _signs(self) -> SignCountNeed:
        return SignCountNeed(self.share, self.seed)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        norms = sketch.header.norms
        median = float(np.median(norms))
        ratio = norms / median if median > 0 else np.where(norms > 0, np.inf, 1.0)
        ordinary = (ratio > self.low) & (ratio < self.high)
        shares = sketch[self._signs()]
        largest = shares.max(axis=0)
        features = np.divide(shares, largest, out=np.zeros_like(shares), where=largest > 0)
        labels = self._clusters(features)
        found = bool((labels == 0).any())
        alike = labels == 0 if found else np.ones(len(labels), dtype=bool)
        accepted = ordinary & alike
        with np.errstate(divide="ignore"):
            excess = np.maximum(0.0, np.maximum(np.log(ratio / self.high), np.log(np.divide(self.low, ratio))))
        return verdict(
            sketch,
            accepted,
            np.linalg.norm(features - features[alike].mean(axis=0), axis=1) + excess,
            dropped=["signs" if within else "norm" for within in ordinary],
            kept="kept" if found else "no-cluster",
            weight=clipped_weights(accepted, norms, median),
            cluster=labels,
        )

    def _clusters(self, features: NDArray[np.float64]) -> NDArray[np.int32]:
        if self.clustering == "mean-shift":
            return mean_shift(features, self.quantile)
        from sklearn.cluster import DBSCAN

        return by_size(DBSCAN(eps=self.eps, min_samples=self.min_samples).fit(features).labels_)
