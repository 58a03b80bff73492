"""Auror (Shen, Tople & Saxena, ACSAC 2016): cluster the clients on the coordinates in which they split."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.grouping import two_means
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.tensors import OutputColumnsNeed, OutputLayer

_CHUNK_COLUMNS = 4096


@dataclass(kw_only=True)
class Auror(Filter):
    """2-means on every coordinate of the output layer finds the indicative ones; 2-means on those finds the minority.

    The variant of FLPoison: the output layer alone, anew in every round (the paper learns the indicative coordinates in
    the first ten epochs, over all). A coordinate is indicative where the two centres are `threshold` or more apart. The
    published thresholds, 7e-5 to 2e-3, belong to their data; without one, the centres must be `separation` standard
    deviations of their own clusters apart, which is ours and does not depend on scale. Where no coordinate is
    indicative, or the clusters are of a size, nobody is rejected. The statistic is the distance to the majority's mean
    over the indicative coordinates.
    """

    name: ClassVar[str] = "auror"
    summary: ClassVar[str] = "2-means on the output coordinates in which the clients split"
    source: ClassVar[str] = "Shen, Tople & Saxena, Auror, ACSAC 2016 (output layer, every round)"
    grade: ClassVar[Grade] = "B"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.OUTPUT_LAYER})

    threshold: float | None = setting(None, "distance of the centres in an indicative coordinate", above=0)
    separation: float = setting(5.0, "the same in the clusters' own deviations, without a threshold", above=0)
    seed: int = setting(0, "of K-means", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (OutputColumnsNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        layer: OutputLayer | None = sketch[OutputColumnsNeed()]
        accepted, distance, kept = np.ones(n, dtype=bool), np.zeros(n), "kept"
        if layer is None:
            kept = "no-output-layer"
        else:
            chosen = layer.updates[:, self._indicative(layer.updates)]
            inner = (chosen - chosen.mean(axis=0)) @ (chosen - chosen.mean(axis=0)).T
            members = two_means(inner, seed=self.seed)
            minority = members if 2 * members.sum() < n else ~members
            if 2 * minority.sum() < n:
                accepted = ~minority
            distance = np.linalg.norm(chosen - chosen[accepted].mean(axis=0), axis=1)
        return verdict(sketch, accepted, distance, dropped="other-cluster", kept=kept, weight=equal_weights(accepted))

    def _indicative(self, columns: NDArray[np.float64]) -> NDArray[np.bool_]:
        chunks = range(0, columns.shape[1], _CHUNK_COLUMNS)
        splits = [split_columns(columns[:, start : start + _CHUNK_COLUMNS]) for start in chunks]
        gap = np.concatenate([gap for gap, _ in splits])
        deviation = np.concatenate([deviation for _, deviation in splits])
        indicative: NDArray[np.bool_] = (
            (gap > 0) & (gap >= self.separation * deviation) if self.threshold is None else gap >= self.threshold
        )
        return indicative


def split_columns(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact 2-means in every column of (n, c): the distance of the centres, and the pooled deviation around them, (c,).

    Both are 0 where all values are equal. The deviation is over `n - 2` degrees of freedom.
    """
    n = len(columns)
    if n < 2:
        return np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    ordered = np.sort(columns - columns.mean(axis=0), axis=0)
    low = np.arange(1, n)[:, None]
    sums = np.cumsum(ordered, axis=0)[:-1]
    gain = sums**2 * (1.0 / low + 1.0 / (n - low))
    best = gain.argmax(axis=0)
    at = np.take_along_axis(sums, best[None], axis=0)[0]
    gap = -at / (best + 1) - at / (n - best - 1)
    within = np.maximum((ordered**2).sum(axis=0) - np.take_along_axis(gain, best[None], axis=0)[0], 0.0)
    return np.maximum(gap, 0.0), np.sqrt(within / max(1, n - 2))
