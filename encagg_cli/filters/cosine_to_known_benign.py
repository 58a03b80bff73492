"""Cosine against the mean of the known-benign updates: FLTrust's rule without its root data set."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch


@dataclass(kw_only=True)
class CosineToKnownBenign(Filter):
    """Reject an upload whose cosine to the known-benign mean is at most `threshold`.

    FLTrust (Cao et al., NDSS 2021) weighs uploads by `ReLU(cos(g_i, g_0))` and scales them to `‖g_0‖`, where `g_0` is
    the server's own gradient on a clean root data set. Here `g_0` is the mean of the known-benign clients' updates, so
    this is *not* FLTrust. A known-benign client is compared with the mean of the others, not with itself.
    """

    name: ClassVar[str] = "cosine-to-known-benign"
    summary: ClassVar[str] = "FLTrust's rule, with the known-benign mean in place of a root gradient"
    source: ClassVar[str] = "Cao et al., FLTrust, NDSS 2021 (rule); known-benign mean: our variant"
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.KNOWN_BENIGN})

    threshold: float = setting(0.0, "reject at this cosine and below", at_least=-1, below=1)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        k = int(context.trusted.sum())
        if k == 0:
            return Decision(
                sketch.clients, np.zeros(n, dtype=bool), np.full(n, 2.0), ("no-reference",) * n, weight=np.zeros(n)
            )
        gram = sketch.gram
        mean = context.trusted / k
        cosine = gram.cosines_to(mean)
        for client in np.flatnonzero(context.trusted) if k > 1 else ():
            others = context.trusted.astype(np.float64)
            others[client] = 0.0
            cosine[client] = gram.cosines_to(others / (k - 1))[client]
        score = 1.0 - cosine
        limit = float(np.nextafter(1.0 - self.threshold, 0.0))
        accepted = score <= limit
        trust = np.where(accepted, np.maximum(cosine, 0.0), 0.0)
        reference_norm = np.sqrt(max(float(mean @ gram.inner @ mean), 0.0))
        scaled = np.divide(trust * reference_norm, gram.norms, out=np.zeros(n), where=gram.norms > 0)
        return Decision(
            clients=sketch.clients,
            accepted=accepted,
            score=score,
            reason=tuple("kept" if kept else "opposed" for kept in accepted),
            threshold=limit,
            weight=scaled / trust.sum() if trust.sum() > 0 else np.zeros(n),
        )
