"""FLGuardian (Zhou et al., IEEE TIFS 2025), our reading: a benign set per layer, trust summed over layers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.flame import cosine_distances
from encagg_cli.filters.grouping import upper_of_two
from encagg_cli.filters.settings import check_settings, setting
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.sketch import Gram, Need, RoundSketch
from encagg_cli.sketch.tensors import TensorGramNeed


@dataclass(kw_only=True)
class FLGuardian(Filter):
    """Per tensor, the clients that both cosine and Euclidean distances find benign; deeper tensors count more.

    The abstract says so much; the clustering, the weights and the number selected are ours. The columns of each
    distance matrix are standardised and summed per client, and exact 2-means on the sums keeps the larger cluster (of
    two equally large ones that of smaller distances). Trust is the sum of `β^l` over the tensors `l` in which a client
    is in both kept clusters, as a share of the largest possible. Accepted are those with trust above one half, or, with
    `keep`, that share of the clients with the highest trust. The statistic is 1 less the trust.
    """

    name: ClassVar[str] = "flguardian"
    summary: ClassVar[str] = "benign sets per tensor, trust summed with weight on deeper ones (our reading)"
    source: ClassVar[str] = "Zhou et al., FLGuardian, IEEE TIFS 20:5396-5410, 2025 (our reading of its abstract)"
    grade: ClassVar[Grade] = "C"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.LAYERS})

    beta: float = setting(2.0, "weight of a tensor relative to the one before it", above=0)
    keep: float | None = setting(
        None, "share of clients accepted; none: all with trust above one half", above=0, at_most=1
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (TensorGramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        grams: dict[str, Gram] = sketch[TensorGramNeed()]
        n = len(sketch.clients)
        weights = self.beta ** np.arange(1.0 - len(grams), 1.0)
        if self.beta < 1:
            weights /= weights.max()
        benign = np.array([_benign(gram) for gram in grams.values()]).reshape(len(grams), n)
        doubt = 1.0 - weights @ benign / weights.sum() if len(grams) else np.zeros(n)
        if self.keep is None:
            accepted = doubt < 0.5
        else:
            accepted = np.zeros(n, dtype=bool)
            accepted[np.argsort(doubt, kind="stable")[: max(1, round(self.keep * n))]] = True
        return verdict(sketch, accepted, doubt, dropped="distrusted", weight=equal_weights(accepted))


def _benign(gram: Gram) -> NDArray[np.bool_]:
    return _larger_cluster(cosine_distances(gram)) & _larger_cluster(gram.distances)


def _larger_cluster(distances: NDArray[np.float64]) -> NDArray[np.bool_]:
    deviation = distances.std(axis=0)
    centred = distances - distances.mean(axis=0)
    sums = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0).sum(axis=1)
    far = upper_of_two(sums)
    return far if 2 * far.sum() > len(far) else ~far
