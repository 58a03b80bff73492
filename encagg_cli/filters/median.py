"""Coordinate-wise median (Yin et al., ICML 2018)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Aggregate, Context, Decision, Filter, Grade
from encagg_cli.filters.verdict import below, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.order import RankNeed, Ranks


@dataclass(kw_only=True)
class Median(Filter):
    """The median of every coordinate; of an even number of values, the mean of the two middle ones.

    The rule has no verdict, and rejects nobody unless `reject_above` is set. The statistic is how far an upload ranks
    from the middle, averaged over the coordinates: 0 always in the middle, 1 always the lowest or the highest. Equal
    values share their mean rank. With `reject_above`, the median is over the uploads that are left.
    """

    name: ClassVar[str] = "median"
    summary: ClassVar[str] = "the median of every coordinate"
    source: ClassVar[str] = "Yin et al., Byzantine-Robust Distributed Learning, ICML 2018"
    grade: ClassVar[Grade] = "A"
    aggregate: ClassVar[Aggregate] = "coordinate-wise"

    reject_above: float | None = setting(None, "reject where the mean rank distance is above this", above=0, below=1)

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def rejects(self) -> bool:
        return self.reject_above is not None

    def needs(self) -> tuple[Need, ...]:
        return (RankNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        ranks: Ranks = sketch[RankNeed()]
        distance = ranks.mean_distance_from_middle()
        return verdict(
            sketch,
            below(distance, self.reject_above),
            distance,
            dropped="far-from-middle",
            rejects=self.rejects,
        )

    def combine(self, decision: Decision, values: NDArray[np.floating], start: int) -> NDArray[np.float64]:
        ordered = np.sort(values[decision.accepted], axis=0)  # much faster than the partition of np.median
        if not len(ordered):
            return np.zeros(values.shape[1])
        middle: NDArray[np.float64] = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1].mean(
            axis=0, dtype=np.float64
        )
        return middle
