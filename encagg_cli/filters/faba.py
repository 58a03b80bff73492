"""FABA (Xia et al., IJCAI 2019): delete, one by one, the upload farthest from the mean of those that remain."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.filters.attackers import ToldAttackers
from encagg_cli.filters.base import Context, Decision, Grade
from encagg_cli.filters.verdict import equal_weights, relative, verdict
from encagg_cli.sketch import GramNeed, Need, RoundSketch


@dataclass(kw_only=True)
class Faba(ToldAttackers):
    """Delete the upload farthest from the mean of the remaining ones, `f` times, and average the rest.

    All `f` are deleted (a public copy that stops at `f - 1` is off by one). A deleted upload's statistic counts down
    from `f`, the first deleted being the worst; a kept one's is its distance to the final mean, scaled below 1. The
    theory needs honest uploads to be the majority.
    """

    name: ClassVar[str] = "faba"
    summary: ClassVar[str] = "delete the farthest from the mean, f times"
    source: ClassVar[str] = "Xia et al., FABA: An Algorithm for Fast Aggregation against Byzantine Attacks, IJCAI 2019"
    grade: ClassVar[Grade] = "B"
    theory: ClassVar[str] = "2f < n"

    @staticmethod
    def most_attackers(n: int) -> int:
        return (n - 1) // 2

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        f, notes = self.attackers(sketch, context)
        accepted = np.ones(len(sketch.clients), dtype=bool)
        statistic = np.zeros(len(accepted))
        for place in range(f):
            distances = sketch.gram.squared_distances_to(equal_weights(accepted))
            farthest = int(np.where(accepted, distances, -1.0).argmax())
            accepted[farthest] = False
            statistic[farthest] = f - place
        distances = np.sqrt(sketch.gram.squared_distances_to(equal_weights(accepted)))
        share = relative(distances)
        statistic[accepted] = (share / (1.0 + share))[accepted]
        return verdict(
            sketch,
            accepted,
            statistic,
            dropped="far-from-mean",
            notes=notes,
            weight=equal_weights(accepted),
        )
