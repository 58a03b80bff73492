"""Bulyan (El Mhamdi et al., ICML 2018): select by Krum one by one, then a trimmed mean around the median."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.attackers import ToldAttackers
from encagg_cli.filters.base import Aggregate, Context, Decision, Grade
from encagg_cli.filters.verdict import relative, verdict
from encagg_cli.sketch import GramNeed, Need, RoundSketch


@dataclass(kw_only=True)
class Bulyan(ToldAttackers):
    """Select `θ = n - 2f` Krum winners one by one; average per coordinate the `β = θ - 2f` nearest to their median.

    Krum is scored anew after each removal, among those that remain. The verdict is the selection. A selected upload's
    statistic is its place in the selection (1 first); another's is its Krum score among those left at the last step.
    Equally near values of a coordinate are taken in id order. The theory needs `n ≥ 4f + 3`.
    """

    name: ClassVar[str] = "bulyan"
    summary: ClassVar[str] = "Krum winners one by one, then the values nearest to their median"
    source: ClassVar[str] = "El Mhamdi et al., The Hidden Vulnerability of Distributed Learning, ICML 2018"
    grade: ClassVar[Grade] = "A"
    aggregate: ClassVar[Aggregate] = "coordinate-wise"
    theory: ClassVar[str] = "4f + 3 <= n"

    @staticmethod
    def most_attackers(n: int) -> int:
        return (n - 3) // 4

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        f, notes = self.attackers(sketch, context)
        order, last = bulyan_selection(sketch.gram.squared_distances, f)
        n = len(sketch.clients)
        accepted = np.zeros(n, dtype=bool)
        accepted[order] = True
        statistic = last.copy()
        statistic[order] = np.arange(1, len(order) + 1)
        figure = relative(np.where(accepted, 0.0, last))
        figure[order] = np.arange(len(order)) / n
        return verdict(
            sketch,
            accepted,
            figure,
            statistic=statistic,
            dropped="not-selected",
            kept="selected",
            notes=notes,
            trace={"nearest": np.array(max(1, len(order) - 2 * f))},
        )

    def combine(self, decision: Decision, values: NDArray[np.floating], start: int) -> NDArray[np.float64]:
        chosen = values[decision.accepted].astype(np.float64)
        distance = np.abs(chosen - np.median(chosen, axis=0))
        nearest = np.argsort(distance, axis=0, kind="stable")[: int(decision.trace["nearest"])]
        mean: NDArray[np.float64] = np.take_along_axis(chosen, nearest, axis=0).mean(axis=0)
        return mean


def bulyan_selection(squared_distances: NDArray[np.float64], f: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rows of the `max(1, n - 2f)` selected in order, and every row's Krum score when it was last scored, (n,).

    Distances are sorted once: a row that loses a neighbour stays sorted.
    """
    n = len(squared_distances)
    left = np.arange(n)
    others = ~np.eye(n, dtype=bool)
    neighbours = np.broadcast_to(left, (n, n))[others].reshape(n, n - 1)
    squares = squared_distances[others].reshape(n, n - 1)
    nearest = np.argsort(squares, axis=1, kind="stable")
    neighbours = np.take_along_axis(neighbours, nearest, axis=1)
    squares = np.take_along_axis(squares, nearest, axis=1)
    last = np.zeros(n)
    order = []
    for _ in range(max(1, n - 2 * f)):
        last[left] = squares[:, : max(1, len(left) - f - 2)].sum(axis=1)
        winner = left[int(last[left].argmin())]
        order.append(winner)
        rest = left != winner
        left, neighbours, squares = left[rest], neighbours[rest], squares[rest]
        kept = neighbours != winner
        shape = (len(left), max(0, len(left) - 1))
        neighbours, squares = neighbours[kept].reshape(shape), squares[kept].reshape(shape)
    return np.array(order, dtype=np.intp), last
