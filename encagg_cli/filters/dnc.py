"""DnC (Shejwalkar & Houmansadr, NDSS 2021): outliers along the top singular vector of random samples of the columns."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.filters.attackers import ToldAttackers
from encagg_cli.filters.base import Context, Decision, Grade
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import setting
from encagg_cli.sketch import Need, RoundSketch, principal_coordinates
from encagg_cli.sketch.samples import SampledGramNeed


@dataclass(kw_only=True)
class DnC(ToldAttackers):
    """Per sample: centre, project on the top right singular vector, drop the `c·f` largest; keep who stays in all.

    The samples of columns are drawn once per seed, not anew in every round, so that a round is judged alike however
    often. Uploads kept in no common round of samples would leave nothing: then the `n - c·f` of smallest mean square
    are kept, and the reason says `fallback`. The statistic is the mean over samples of `⟨g_i - ḡ, v⟩²`.
    """

    name: ClassVar[str] = "dnc"
    summary: ClassVar[str] = "drop the largest projections on the top singular vector of sampled columns"
    source: ClassVar[str] = "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021"
    grade: ClassVar[Grade] = "A"
    theory: ClassVar[str] = "2f < n"

    iterations: int = setting(5, "samples of the columns", at_least=1, at_most=100)
    columns: int = setting(10_000, "columns in a sample", at_least=1)
    c: float = setting(1.0, "how many are dropped per sample, in units of f", above=0)
    seed: int = setting(0, "of the samples", at_least=0)

    @staticmethod
    def most_attackers(n: int) -> int:
        return (n - 1) // 2

    def needs(self) -> tuple[Need, ...]:
        return (self._samples(),)

    def _samples(self) -> SampledGramNeed:
        return SampledGramNeed(self.iterations, self.columns, self.seed)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        f, notes = self.attackers(sketch, context)
        n = len(sketch.clients)
        kept = max(1, n - round(self.c * f))
        accepted = np.ones(n, dtype=bool)
        squares = np.zeros(n)
        for gram in sketch[self._samples()]:
            along = principal_coordinates(gram, axes=1)[:, 0]
            outlying = (along - along.mean()) ** 2
            accepted[np.argsort(outlying, kind="stable")[kept:]] = False
            squares += outlying / self.iterations
        if not accepted.any():
            accepted[np.argsort(squares, kind="stable")[:kept]] = True
            notes = (*notes, "fallback")
        return verdict(
            sketch,
            accepted,
            squares,
            dropped="outlying",
            notes=notes,
            weight=equal_weights(accepted),
        )
