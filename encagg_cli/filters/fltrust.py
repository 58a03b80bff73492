"""FLTrust (Cao et al., NDSS 2021): trust uploads by their cosine to the server's own gradient on clean data."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.settings import check_settings
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.directions import RootGradientNeed, VectorProducts


@dataclass(kw_only=True)
class FLTrust(Filter):
    """Weigh uploads by `TS_i = ReLU(cos(g_i, g_0))`, scaled to `‖g_0‖`; `g_0` is the round's stored root gradient.

    The aggregate is `Σ TS_i (‖g_0‖/‖g_i‖) g_i / Σ TS_i`; `TS_i = 0` is a rejection. For known-benign clients in place
    of a root data set there is `cosine-to-known-benign`. A round without a root gradient (or with one that is all zero,
    NaN or infinite) tells nothing: all are rejected, with the reason `no-reference`.
    """

    name: ClassVar[str] = "fltrust"
    summary: ClassVar[str] = "trust by the cosine to the server's own gradient"
    source: ClassVar[str] = "Cao et al., FLTrust, NDSS 2021"
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.ROOT_GRADIENT})

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (RootGradientNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        root: VectorProducts | None = sketch[RootGradientNeed()]
        if root is None or root.norm == 0:
            return Decision(
                sketch.clients, np.zeros(n, dtype=bool), np.full(n, 2.0), ("no-reference",) * n, weight=np.zeros(n)
            )
        score = 1.0 - root.cosines
        accepted = score < 1.0
        trust = np.where(accepted, root.cosines, 0.0)
        norms = sketch.header.norms
        scaled = np.divide(trust * root.norm, norms, out=np.zeros(n), where=norms > 0)
        return Decision(
            clients=sketch.clients,
            accepted=accepted,
            score=score,
            reason=tuple("kept" if kept else "opposed" for kept in accepted),
            threshold=float(np.nextafter(1.0, 0.0)),
            weight=scaled / trust.sum() if trust.sum() > 0 else np.zeros(n),
        )
