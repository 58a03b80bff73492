"""Centred clipping (Karimireddy, He & Jaggi, ICML 2021): bounded steps away from the last aggregate."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.memory import BUCKETS, vector_of
from encagg_cli.filters.verdict import by_weight, clip_factors, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.directions import LastStepNeed, VectorProducts
from encagg_cli.sketch.projection import Projected, ProjectionNeed, check_buckets


@dataclass(kw_only=True)
class CentredClipping(Filter):
    """`v ← v + mean_i (g_i - v) · min(1, τ/‖g_i - v‖)`, one iteration a round, `v` the last aggregate.

    Meant for worker momentum. `τ` has the updates' scale; 10 is typical in print. The last aggregate is the stored step
    where the round has one and updates are deltas (`stored-step`; of a gradient its length is unknown), else this
    filter's own (`own-step`), known through a random projection of `buckets` numbers: distances are then within about
    2 % (8,192 buckets), and exact for updates of no more parameters than buckets. In the first round `v` is zero.

    The aggregate is weights times uploads plus `prior_weight` times `v`. The rule has no verdict of its own: an upload
    is rejected where its clipping factor is at most `reject_at` times the median one. The statistic is `‖g_i - v‖ / τ`.
    """

    name: ClassVar[str] = "centred-clipping"
    summary: ClassVar[str] = "bounded steps away from the last aggregate"
    source: ClassVar[str] = (
        "Karimireddy, He & Jaggi, Learning from History for Byzantine Robust Optimization, ICML 2021"
    )
    grade: ClassVar[Grade] = "A"
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.HISTORY, Requirement.GLOBAL_MODEL})

    tau: float = setting(10.0, "longest step away from the last aggregate", above=0)
    reject_at: float = setting(0.5, "reject at this share of the median clipping factor and below", at_least=0, below=1)
    buckets: int = setting(BUCKETS, "size of the projection of the own last aggregate (a power of two)", at_least=1)
    seed: int = setting(0, "of the projection", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        check_buckets(self.name, self.buckets)
        self._own: NDArray[np.float64] | None = None

    def needs(self) -> tuple[Need, ...]:
        return (LastStepNeed(), self._projection())

    def _projection(self) -> ProjectionNeed:
        return ProjectionNeed(self.buckets, self.seed)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        projected: Projected = sketch[self._projection()]
        rows = projected.rows
        stored: VectorProducts | None = sketch[LastStepNeed()] if sketch.header.update_kind == "delta" else None
        norms = sketch.header.norms
        prior: Literal["", "last_step", "own"] = ""
        if stored is not None and projected.last_step is not None:
            prior, note, centre = "last_step", "stored-step", projected.last_step
            distance = np.sqrt(np.maximum(norms**2 - 2.0 * stored.inner + stored.norm**2, 0.0))
        elif self._own is not None:
            prior, note, centre = "own", "own-step", self._own
            distance = np.linalg.norm(rows - centre, axis=1)
        else:
            note, centre, distance = "first", np.zeros(self.buckets), norms
        factors = clip_factors(distance, self.tau)
        weight = factors / len(factors)
        prior_weight = 1.0 - float(weight.sum())
        self._own = prior_weight * centre + weight @ rows
        decided = verdict(
            sketch,
            by_weight(factors, self.reject_at),
            distance / self.tau,
            dropped="far-from-last",
            notes=(note,),
            weight=weight,
        )
        return replace(decided, prior=prior, prior_weight=prior_weight if prior else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._own is None else {"own": self._own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._own = vector_of(state, "own", self.name, (self.buckets,))
