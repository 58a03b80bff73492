"""Norm clipping, and weak differential privacy (Sun et al., 2019): no upload may be longer than a bound."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from encagg_cli.filters.base import Context, Decision, Filter, Grade
from encagg_cli.filters.verdict import below, clipped_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch


@dataclass(kw_only=True)
class NormBound(Filter):
    """Shorten every upload to norm `M` at most, `g_i / max(1, ‖g_i‖ / M)`, and average all of them.

    The rule rejects nobody, and neither does this filter unless `reject_above` is set. The statistic is `‖g_i‖ / M`.
    The paper's bounds (2 on CIFAR, 1.5 on EMNIST) belong to its models; without one, `M` is the median norm of the
    round. `noise` makes it weak differential privacy: added once, to the aggregate, as in the paper.
    """

    name: ClassVar[str] = "norm-bound"
    summary: ClassVar[str] = "shorten uploads to a norm bound (weak differential privacy with noise)"
    source: ClassVar[str] = "Sun et al., Can You Really Backdoor Federated Learning?, arXiv 1911.07963, 2019"
    grade: ClassVar[Grade] = "A"

    bound: float | None = setting(None, "longest norm M; none: the round's median norm", above=0)
    noise: float = setting(0.0, "standard deviation of the noise on the aggregate, per coordinate", at_least=0)
    reject_above: float | None = setting(None, "reject where the norm is above this many bounds", above=0)

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def rejects(self) -> bool:
        return self.reject_above is not None

    def needs(self) -> tuple[Need, ...]:
        return ()

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        norms = sketch.header.norms
        bound = float(np.median(norms)) if self.bound is None else self.bound
        ratio = norms / bound if bound > 0 else np.where(norms > 0, np.inf, 0.0)
        accepted = below(ratio, self.reject_above)
        decided = verdict(
            sketch,
            accepted,
            ratio,
            dropped="long",
            kept=["shortened" if long else "kept" for long in ratio > 1.0],
            weight=clipped_weights(accepted, norms, bound),
            rejects=self.rejects,
        )
        return replace(decided, noise=self.noise)
