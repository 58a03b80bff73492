"""The filter: the cascade's findings as verdicts, scores and words."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.detector import Findings, detect
from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.settings import check_settings, setting
from encagg_cli.filters.verdict import REJECT_ABOVE
from encagg_cli.sketch import GramNeed, Need, RoundSketch

Numbers = NDArray[np.float64]

_WORDS = {
    "kept": "lies among the known-benign in every view",
    "trusted": "known-benign",
    "copy": "one of {size} identical uploads",
    "oversized": "one of {size} far larger than the known-benign",
    "unrelated": "one of {size} that resemble nobody, as noise does",
    "colluding": "one of {size} more alike than honest uploads are",
    "distant": "one of {size} far from the known-benign",
    "shadowing": "one of {size} closer to a single known-benign upload than honest ones come",
    "separate": "one of {size} that stand apart from the known-benign along the main axis",
    "reversed": "one of {size} reversed against the known-benign and those who agree with them",
    "suspect-anchor": "called known-benign, but the other known-benign would reject it",
    "no-reference": "nothing to compare with: no known-benign upload in this round",
}


@dataclass(kw_only=True)
class AnchoredViews(Filter):
    """Cut off whatever group stands apart, in any of nine views, from the side on which the known-benign clients are.

    1. *Copies*: uploads that coincide are rejected.
    2. *Views*: for every client, one number each on its size, on its distance from the known-benign mean, on how
       alike it is to others and how close to them, and on the first principal axis (views.py).
    3. *Anchored split* (split.py): in each view, the split that most increases the likelihood of two groups over one,
       among those with all known-benign clients on one side. The clearest split, if clear enough, is cut off.
    4. *Reversed* (trust.py): where no split is very clear, trust flows from the known-benign along agreement and turns
       into distrust along opposition; those it distrusts are rejected, if as a group they oppose the rest.
    5. Again from 2, with a higher bar, until nothing stands out.

    How clear is clear enough follows from `alpha` alone, by a null distribution measured once (detector.py). Nobody
    tells it how many attackers there are, and there may be a majority of them.

    Reasons: `kept`, `trusted`; `copy`, `oversized`, `distant`, `unrelated`, `colluding`, `shadowing`, `separate`,
    `reversed`; `suspect-anchor` (a known-benign client whom the others would reject; from three on); `no-reference`
    (no known-benign upload in the round, so nothing is accepted).
    """

    name: ClassVar[str] = "anchored-views"
    summary: ClassVar[str] = (
        "whatever stands apart from the known-benign in any of nine views, or opposes their friends"
    )
    source: ClassVar[str] = "this project"
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.KNOWN_BENIGN})
    least_known_benign: ClassVar[int] = 2  # a known-benign client is compared with the others

    alpha: float = setting(0.02, "share of honest uploads that may be lost where nobody attacks", above=0, at_most=0.2)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        if not context.trusted.any():
            return Decision(
                clients=sketch.clients,
                accepted=np.zeros(n, dtype=bool),
                score=np.ones(n),
                reason=("no-reference",) * n,
                threshold=REJECT_ABOVE,
                weight=np.zeros(n),
            )
        found = self._find(sketch, context)
        accepted = ~found.rejected
        reason = np.where(found.rejected, found.reason, np.where(context.trusted, "trusted", "kept"))
        return Decision(
            clients=sketch.clients,
            accepted=accepted,
            score=score_of(found),
            reason=tuple(str(word) for word in reason),
            threshold=REJECT_ABOVE,
            weight=accepted / max(1, int(accepted.sum())),
            statistic=found.evidence,
            cluster=found.cluster,
            plane=self._plane(found),
            trace={f"view {name}": values for name, values in found.first_views.items()},
        )

    def _find(self, sketch: RoundSketch, context: Context) -> Findings:
        return detect(sketch.gram, context.trusted, self.alpha)

    def _plane(self, found: Findings) -> Numbers:
        views = found.first_views
        nothing = np.full(len(found.trust), np.nan)
        return np.stack([views.get("reference distance", nothing), found.trust], axis=1)


def score_of(found: Findings) -> Numbers:
    """Suspicion in [0, 1]: above one half exactly where rejected, by the evidence; for the rest, by what came nearest.

    A client that trust hardly reaches is a little suspect, one that distrust reaches more so.
    """
    evidence = np.where(np.isinf(found.evidence), np.finfo(np.float64).max, found.evidence)
    rejected = 0.5 + 0.5 * evidence / (1.0 + evidence)
    trust = np.nan_to_num(found.trust, nan=1.0)
    doubt = np.where(trust < 0, 0.25 - 0.24 * trust, 0.2 * (1.0 - trust))
    accepted = np.minimum(np.maximum(0.5 * evidence, doubt), REJECT_ABOVE)
    return np.where(found.rejected, rejected, accepted)


def in_words(decision: Decision) -> tuple[str, ...]:
    """Each client's reason as people say it, in the order of the decision: "one of 12 identical uploads"."""
    size: dict[tuple[str, int], int] = {}
    cluster = np.zeros(len(decision.clients), dtype=np.int32) if decision.cluster is None else decision.cluster
    groups = list(zip(decision.reason, cluster.tolist(), strict=True))
    for group in groups:
        size[group] = size.get(group, 0) + 1
    return tuple(_WORDS[word].format(size=size[word, label]) for word, label in groups)
