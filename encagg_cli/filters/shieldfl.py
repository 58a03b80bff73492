"""ShieldFL (Ma et al., IEEE TIFS 2022): confidence by unlikeness to the upload that fits the last step least."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.memory import BUCKETS, unit_rows, vector_of
from encagg_cli.filters.verdict import by_weight, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch
from encagg_cli.sketch.directions import LastStepNeed, VectorProducts
from encagg_cli.sketch.projection import Projected, ProjectionNeed, check_buckets


@dataclass(kw_only=True)
class ShieldFL(Filter):
    """Find `g*`, least alike (cosine) the last aggregate; weigh the others by `co_i = 1 - cos(g_i, g*)`.

    Uploads count with norm 1, and the aggregate `Σ co_i g_i/‖g_i‖ / Σ co_i` is given the round's median norm back (that
    is ours, so that it is a step of ordinary length). Cosines keep their signs (a public port rescales the values
    first). The homomorphic encryption around it changes no number, and is left out. In the first round there is no last
    aggregate: the plain mean of the directions.

    The last aggregate is the stored step where the round has one (`stored-step`), else this filter's own (`own-step`),
    known through a random projection of `buckets` numbers: cosines to it
    are then off by about 0.01 (8,192 buckets). The rule has no verdict of its own: an upload is rejected
    where its confidence is at most `reject_at` times the median one. The statistic is `cos(g_i, g*)`.
    """

    name: ClassVar[str] = "shieldfl"
    summary: ClassVar[str] = "confidence by unlikeness to the upload least like the last aggregate"
    source: ClassVar[str] = "Ma et al., ShieldFL, IEEE TIFS 2022 (without encryption)"
    grade: ClassVar[Grade] = "B"
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.HISTORY, Requirement.GLOBAL_MODEL})

    reject_at: float = setting(0.5, "reject at this share of the median confidence and below", at_least=0, below=1)
    buckets: int = setting(BUCKETS, "size of the projection of the own last aggregate (a power of two)", at_least=1)
    seed: int = setting(0, "of the projection", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        check_buckets(self.name, self.buckets)
        self._own: NDArray[np.float64] | None = None

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(), LastStepNeed(), self._projection())

    def _projection(self) -> ProjectionNeed:
        return ProjectionNeed(self.buckets, self.seed)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        norms = sketch.header.norms
        n = len(norms)
        projected: Projected = sketch[self._projection()]
        likeness, note = self._likeness(sketch, projected.rows)
        if likeness is None:
            statistic, confidence = np.zeros(n), np.ones(n)
        else:
            statistic = sketch.gram.cosines[int(likeness.argmin())]
            confidence = 1.0 - statistic
        accepted = by_weight(confidence, self.reject_at)
        if not (confidence > 0).any():  # all point the same way, so that nobody stands out
            confidence = np.ones(n)
        unit = np.divide(float(np.median(norms)), norms, out=np.zeros(n), where=norms > 0)
        weight = confidence / confidence.sum() * unit
        self._own = weight @ projected.rows
        return verdict(
            sketch,
            accepted,
            1.0 + statistic,
            statistic=statistic,
            dropped="like-the-least-alike",
            notes=(note,),
            weight=weight,
        )

    def _likeness(self, sketch: RoundSketch, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, str]:
        """(n,) cosines to the last aggregate, and which that is."""
        stored: VectorProducts | None = sketch[LastStepNeed()]
        if stored is not None and stored.norm > 0:
            return stored.cosines * (-1.0 if sketch.header.update_kind == "gradient" else 1.0), "stored-step"
        if self._own is None or not self._own.any():
            return None, "first"
        return unit_rows(rows) @ unit_rows(self._own[None, :])[0], "own-step"

    def state_dict(self) -> dict[str, Any]:
        return {} if self._own is None else {"own": self._own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._own = vector_of(state, "own", self.name, (self.buckets,))
