"""Coordinate-wise trimmed mean (Yin et al., ICML 2018)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters.attackers import attacker_count, check_attacker_count
from encagg_cli.filters.base import Aggregate, Context, Decision, Filter, Grade
from encagg_cli.filters.verdict import below, verdict
from encagg_cli.settings import AttackerCount, check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.order import RankNeed, Ranks


@dataclass(kw_only=True)
class TrimmedMean(Filter):
    """Drop the `⌊βn⌋` lowest and highest values of every coordinate, and average the rest.

    `f`, where it is given, says how many are dropped on each side instead of `β`. The promise needs as many dropped as
    there are attackers, and fewer than half. The rule has no verdict, and rejects nobody unless `reject_above` is
    set. The statistic is the share of coordinates in which the upload is dropped, equal values sharing the places; an
    honest upload among its like has `2⌊βn⌋ / n`.
    """

    name: ClassVar[str] = "trimmed-mean"
    summary: ClassVar[str] = "mean of every coordinate without its lowest and highest values"
    source: ClassVar[str] = "Yin et al., Byzantine-Robust Distributed Learning, ICML 2018"
    grade: ClassVar[Grade] = "A"
    aggregate: ClassVar[Aggregate] = "coordinate-wise"

    beta: float = setting(0.1, "share of the values dropped on each side", at_least=0, below=0.5)
    f: AttackerCount = setting(None, "in place of beta: how many are dropped; a count, a share, or oracle", at_least=0)
    reject_above: float | None = setting(None, "reject where the dropped share is above this", above=0, below=1)

    def __post_init__(self) -> None:
        check_settings(self)
        check_attacker_count(self.name, self.f)

    @property
    def rejects(self) -> bool:
        return self.reject_above is not None

    def needs(self) -> tuple[Need, ...]:
        return (RankNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        each_side = self._each_side(sketch.number, len(sketch.clients), context)
        ranks: Ranks = sketch[RankNeed()]
        share = ranks.trimmed_share(each_side)
        decided = verdict(
            sketch,
            below(share, self.reject_above),
            share,
            dropped="often-trimmed",
            notes=("oracle",) if self.f == "oracle" else (),
            rejects=self.rejects,
        )
        return replace(decided, trace={"each_side": np.array(each_side)})

    def check_round(self, number: int, clients: int) -> None:
        if clients and self.f != "oracle":
            self._each_side(number, clients, Context(np.zeros(clients, dtype=bool)))

    def _each_side(self, number: int, n: int, context: Context) -> int:
        """How many values are dropped on each side; raises UsageError where that leaves none."""
        each_side = int(self.beta * n) if self.f is None else attacker_count(self.f, n, context)
        if 2 * each_side >= n:
            raise UsageError(
                f"round {number}: {self.name} would drop {each_side} values on each side, and there are {n}",
                hint="fewer than half may be attackers",
            )
        return each_side

    def combine(self, decision: Decision, values: NDArray[np.floating], start: int) -> NDArray[np.float64]:
        chosen = np.sort(values[decision.accepted], axis=0)
        each_side = min(int(decision.trace["each_side"]), (len(chosen) - 1) // 2) if len(chosen) else 0
        kept = chosen[each_side : len(chosen) - each_side]
        return kept.mean(axis=0, dtype=np.float64) if len(kept) else np.zeros(values.shape[1])
