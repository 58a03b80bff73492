"""K-means with two clusters, the benign one known by the known-benign clients in it: a simple baseline."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.grouping import two_means
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch


@dataclass(kw_only=True)
class KMeans(Filter):
    """Split the uploads in two by 2-means in the whole space, and accept the cluster with more known-benign clients.

    With as many in each, the larger cluster. There are always two clusters, so honest uploads are rejected in a round
    without attack: a baseline, not a defence. The statistic is the squared distance to the accepted cluster's mean.
    """

    name: ClassVar[str] = "k-means"
    summary: ClassVar[str] = "2-means; accept the cluster with the known-benign clients"
    source: ClassVar[str] = "Lloyd, Least Squares Quantization in PCM, 1982; known-benign anchor: a baseline of ours"
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.KNOWN_BENIGN})

    restarts: int = setting(10, "k-means++ beginnings", at_least=1, at_most=1000)
    seed: int = setting(0, "of the beginnings", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        members = two_means(sketch.gram.deviations, seed=self.seed, restarts=self.restarts)
        known = int(context.trusted[members].sum()), int(context.trusted[~members].sum())
        sizes = int(members.sum()), int((~members).sum())
        accepted = members if (known[0], sizes[0]) > (known[1], sizes[1]) else ~members
        figure = sketch.gram.squared_distances_to(equal_weights(accepted))
        return verdict(
            sketch,
            accepted,
            figure,
            dropped="other-cluster",
            weight=equal_weights(accepted),
            cluster=np.where(accepted, 0, 1).astype(np.int32),
        )
