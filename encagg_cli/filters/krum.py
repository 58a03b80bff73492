"""Krum's score (Blanchard et al., NeurIPS 2017) and Multi-Krum, which averages the uploads that score lowest."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.settings import AttackerCount, check_settings, setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch


def krum_scores(squared_distances: NDArray[np.float64], f: int) -> NDArray[np.float64]:
    """Sum of each client's `n - f - 2` smallest squared distances to others, at least one of them; (n,)."""
    n = len(squared_distances)
    neighbours = max(1, min(n - f - 2, n - 1))
    others = squared_distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    scores: NDArray[np.float64] = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return scores


def attacker_count(told: AttackerCount, n: int, context: Context) -> int:
    """The number of attackers in a round of `n` uploads, from a count, a share below 1 (rounded up) or the truth."""
    if told == "oracle":
        if context.poisoned is None:
            raise UsageError("f=oracle needs ground truth, and this run has none")
        return int(context.poisoned.sum())
    assert isinstance(told, int | float)
    return int(np.ceil(told * n)) if told < 1 else int(told)


@dataclass(kw_only=True)
class MultiKrum(Filter):
    """Keep the `n - f` uploads of lowest Krum score, and average them.

    The theory needs `2f + 2 < n`. Outside it the rule still runs if `relaxed` is set, and says so in every row.
    """

    name: ClassVar[str] = "multi-krum"
    summary: ClassVar[str] = "keep the n - f uploads nearest to their neighbours"
    source: ClassVar[str] = "Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017"
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.ATTACKER_COUNT})

    f: AttackerCount = setting(None, "number of attackers: a count, a share below 1, or oracle", at_least=0)
    relaxed: bool = setting(False, "run where 2f + 2 < n fails")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.f is None:
            raise UsageError(
                "multi-krum must be told the number of attackers",
                hint="--set multi-krum.f=8, a share (0.3), or oracle where the run has ground truth",
            )
        if isinstance(self.f, float) and self.f >= 1 and self.f != int(self.f):
            raise UsageError(f"multi-krum.f must be a whole number or a share below 1, not {self.f}")

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        f = attacker_count(self.f, n, context)
        sound = 2 * f + 2 < n
        if not sound and not self.relaxed:
            raise UsageError(
                f"round {sketch.number}: multi-krum with f={f} needs more than {2 * f + 2} uploads, and there are {n}",
                hint="--set multi-krum.relaxed=true runs it outside its theory, and says so in every verdict",
            )
        statistic = krum_scores(sketch.gram.squared_distances, f) if n > 1 else np.zeros(n)
        selected = np.argsort(statistic, kind="stable")[: max(1, n - f)]
        accepted = np.zeros(n, dtype=bool)
        accepted[selected] = True
        suffix = "" if sound else "-relaxed"
        return Decision(
            clients=sketch.clients,
            accepted=accepted,
            score=statistic,
            reason=tuple(("kept" if kept else "far-from-neighbours") + suffix for kept in accepted),
            weight=accepted / accepted.sum(),
        )
