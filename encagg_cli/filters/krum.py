"""Krum (Blanchard et al., NeurIPS 2017), and Multi-Krum, which averages the uploads that score lowest."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters.attackers import ToldAttackers
from encagg_cli.filters.base import Context, Decision, Grade
from encagg_cli.filters.verdict import equal_weights
from encagg_cli.settings import setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch


def krum_scores(squared_distances: NDArray[np.float64], f: int) -> NDArray[np.float64]:
    """Sum of each client's `n - f - 2` smallest squared distances to others, at least one of them; (n,)."""
    n = len(squared_distances)
    if n < 2:
        return np.zeros(n)
    neighbours = max(1, min(n - f - 2, n - 1))
    others = squared_distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    scores: NDArray[np.float64] = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return scores


@dataclass(kw_only=True)
class _KrumRule(ToldAttackers):
    """What both rules share: the score, and a verdict that keeps the `n - f` lowest."""

    source: ClassVar[str] = "Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017"
    grade: ClassVar[Grade] = "A"
    theory: ClassVar[str] = "2f + 2 < n"

    @staticmethod
    def most_attackers(n: int) -> int:
        return (n - 3) // 2

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def averaged(self, n: int, f: int) -> int:
        """How many of the lowest scores go into the aggregate."""
        raise NotImplementedError

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        f, notes = self.attackers(sketch, context)
        score = krum_scores(sketch.gram.squared_distances, f)
        order = np.argsort(score, kind="stable")
        accepted = np.zeros(n, dtype=bool)
        accepted[order[: max(1, n - f)]] = True
        averaged = np.zeros(n, dtype=bool)
        averaged[order[: self.averaged(n, f)]] = True
        tail = "".join(f"-{note}" for note in notes)
        return Decision(
            clients=sketch.clients,
            accepted=accepted,
            score=score,
            reason=tuple(("kept" if kept else "far-from-neighbours") + tail for kept in accepted),
            weight=equal_weights(averaged),
        )


@dataclass(kw_only=True)
class Krum(_KrumRule):
    """Aggregate to the one upload of lowest Krum score, with *squared* distances to its `n - f - 2` nearest.

    Rejecting the other `n - 1` would say nothing about them, so the verdict is Multi-Krum's: the `n - f` lowest scores
    are accepted. Weight 1 marks the upload that Krum takes.
    """

    name: ClassVar[str] = "krum"
    summary: ClassVar[str] = "take the one upload nearest to its neighbours"

    def averaged(self, n: int, f: int) -> int:
        return 1


@dataclass(kw_only=True)
class MultiKrum(_KrumRule):
    """Keep the `n - f` uploads of lowest Krum score, and average the `m` lowest of them (all, unless `m` is set).

    Scored once, not again after each removal. The theory needs `2f + 2 < n`. Outside it the rule still runs if
    `relaxed` is set, and says so in every row.
    """

    name: ClassVar[str] = "multi-krum"
    summary: ClassVar[str] = "keep the n - f uploads nearest to their neighbours"

    m: int | None = setting(None, "how many of the lowest scores are averaged; none: n - f", at_least=1)

    def averaged(self, n: int, f: int) -> int:
        most = max(1, n - f)
        if self.m is not None and self.m > most and not self.relaxed:
            raise UsageError(
                f"multi-krum.m={self.m} is more than the {most} uploads that are accepted with f={f} of {n}",
                hint="--set multi-krum.relaxed=true averages as many as there are",
            )
        return most if self.m is None else min(self.m, most)
