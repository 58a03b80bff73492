"""RFLBAT (Wang et al., 2022): PCA, outliers cut, clusters by the gap statistic, the least alike cluster kept."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade
from encagg_cli.filters.grouping import NOISE, gap_clusters, k_means
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch, principal_coordinates


@dataclass(kw_only=True)
class Rflbat(Filter):
    """On the first principal plane: cut outliers, cluster, keep the cluster of least mutual cosine, cut outliers again.

    An outlier's summed distance to the others is at least `eps1` (then, within the cluster, `eps2`) times the median
    sum. K-means with as many clusters as the gap statistic says, 9 at most; poisoned updates are taken to be more
    alike, so the cluster with the lowest median of mean cosines (of whole updates, itself counted) is kept; clusters of
    one are not candidates unless there are no others. The plane is computed once. The statistic is the distance to the
    kept uploads' mean on the plane.
    """

    name: ClassVar[str] = "rflbat"
    summary: ClassVar[str] = "clusters on the principal plane; keep the least alike one"
    source: ClassVar[str] = "Wang et al., RFLBAT, arXiv 2201.03772, 2022"
    grade: ClassVar[Grade] = "B"

    eps1: float = setting(10.0, "first cut, in median sums of distances", above=1)
    eps2: float = setting(4.0, "second cut, in median sums of distances", above=1)
    most_clusters: int = setting(9, "that the gap statistic may find", at_least=1, at_most=50)
    seed: int = setting(0, "of K-means and the gap statistic", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        plane = principal_coordinates(sketch.gram.deviations)
        between = np.linalg.norm(plane[:, None] - plane[None], axis=2)
        n = len(plane)
        rows = np.flatnonzero(_near(between, self.eps1))
        labels = np.full(n, NOISE, dtype=np.int32)
        clusters = gap_clusters(plane[rows], self.most_clusters, seed=self.seed)
        labels[rows] = k_means(plane[rows], clusters, seed=self.seed)
        alike = [_likeness(sketch.gram.cosines, np.flatnonzero(labels == c)) for c in range(clusters)]
        best = int(np.argmin(alike))
        members = np.flatnonzero(labels == best)
        accepted = np.zeros(n, dtype=bool)
        accepted[members[_near(between[np.ix_(members, members)], self.eps2)]] = True
        return verdict(
            sketch,
            accepted,
            np.linalg.norm(plane - plane[accepted].mean(axis=0), axis=1),
            dropped=["outlier" if label in (NOISE, best) else "other-cluster" for label in labels],
            weight=equal_weights(accepted),
            cluster=labels,
            plane=plane,
        )


def _near(between: NDArray[np.float64], factor: float) -> NDArray[np.bool_]:
    """Whose summed distance to the others is below `factor` times the median sum; all, where that is 0."""
    sums = between.sum(axis=1)
    median = float(np.median(sums))
    near: NDArray[np.bool_] = sums < factor * median if median > 0 else sums <= 0
    return near


def _likeness(cosines: NDArray[np.float64], members: NDArray[np.intp]) -> float:
    """Median over the members of their mean cosine to all members; infinite for fewer than two."""
    if len(members) < 2:
        return np.inf
    return float(np.median(cosines[np.ix_(members, members)].mean(axis=1)))
