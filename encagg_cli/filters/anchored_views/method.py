"""The filter: the cascade's findings as verdicts, scores and words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.detector import Findings, detect, suspect_anchor
from encagg_cli.filters.anchored_views.history import DistanceHistory, OwnHistory, SidesHistory
from encagg_cli.filters.anchored_views.scene import Past, Scene
from encagg_cli.filters.anchored_views.views import FEWEST
from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.verdict import REJECT_ABOVE
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch
from encagg_cli.sketch.projection import ProjectionNeed, check_buckets
from encagg_cli.sketch.signs import SignCosinesNeed

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_OWN_ROUNDS = 3  # that a client is compared with its own uploads of: models move on

_WORDS = {
    "kept": "lies among the known-benign in every view",
    "trusted": "known-benign",
    "copy": "one of {size} identical uploads",
    "unrelated": "one of {size} that resemble nobody, as noise does",
    "colluding": "one of {size} more alike than honest uploads are",
    "distant": "one of {size} far from all others",
    "shadowing": "one of {size} closer to a single known-benign upload than honest ones come",
    "separate": "one of {size} that stand apart from the known-benign along the main axis",
    "changed": "one of {size} that turned away from what they themselves uploaded lately",
    "reversed": "one of {size} reversed against what the known-benign and others share",
    "joint": "one of {size} that have something in common which no known-benign upload has",
    "suspect-anchor": "called known-benign, but the other known-benign would reject it",
    "non-finite": "not a number somewhere, or infinite",
    "no-reference": "nothing to compare with: no known-benign upload in this round",
}


@dataclass(kw_only=True)
class AnchoredViews(Filter):
    """Cut off whatever group stands apart, in any of eleven views, from the side on which the known-benign clients are.

    1. *Copies*: uploads that coincide are rejected.
    2. *Views* (views.py): for every client, one number each on how alike it is to others, how close to its nearest
       neighbours and to the nearest known-benign upload, how much of it the others do not explain, absolutely and as a
       share (ridge.py), where it lies on the first principal axis of the updates and of their directions; by the signs
       of its coordinates alone, what share is not explained, and how near its nearest neighbour is; and how much it has
       turned from its own accepted uploads of the last rounds, three at most (history.py); and how far from the others
       it is for its kind, on average over its rounds (distance.py).
    3. *Anchored split* (split.py): in each view, the split that most increases the likelihood of two groups over one,
       among those with all known-benign clients on one side. The clearest split, if clear enough, is cut off.
    4. *Reversed* (reversal.py): before that, unless the split is very clear, all clients are put on two sides, with
       what all share or against it, so that the side of each is predicted best from the others (sides.py). Who is on
       the other side in every good explanation is rejected, and so is a whole side that is far better than those that
       part the known-benign, and has little of what the others share. Where nobody is, clients are also parted in two
       populations (parting.py), and every group that a search or a view has found is weighed by all that is known of
       it (standing.py): how far it falls short of what the others share, how little it spreads where they do most, how
       clearly it stands apart in a view, how well it is told as a side or a population, and how much farther from the
       others it is by signs. All this is looked at in this round, and in the last `history` rounds together
       (evidence.py). Who was clearly reversed in one of those is rejected without a search, as long as it has little of
       what all share.
    5. *Joint* (joint.py): where nobody is, clients are parted in two populations by the updates as they are; whoever is
       told so far better than what parts the known-benign has something in common that honest uploads have not.
    6. Again from 2, with a higher bar, until nothing stands out.

    How clear is clear enough follows from `alpha`, by null distributions measured once (detector.py), and for sides
    also from what chance and rivals reach in the round itself. Nobody tells it how many attackers there are, and there
    may be a majority of them.

    Reasons: `kept`, `trusted`; `copy`, `distant`, `unrelated`, `colluding`, `shadowing`, `separate`,
    `changed`, `reversed`, `joint`; `suspect-anchor` (a known-benign client whom the others would reject; there must be
    three or more, and at most one is given up); `no-reference` (no known-benign upload in the round, so nothing is
    accepted).
    """

    name: ClassVar[str] = "anchored-views"
    summary: ClassVar[str] = (
        "whatever stands apart from the known-benign in any of eleven views, or is against what all share"
    )
    source: ClassVar[str] = "this project"
    grade: ClassVar[Grade] = "A"
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.HISTORY})
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.KNOWN_BENIGN})
    least_known_benign: ClassVar[int] = 2  # a known-benign client is compared with the others

    alpha: float = setting(0.02, "share of honest uploads that may be lost where nobody attacks", above=0, at_most=0.2)
    history: int = setting(7, "rounds that are remembered; 0 for none", at_least=0, at_most=64)
    buckets: int = setting(2048, "size of the projection of a remembered upload (a power of two)", at_least=1)
    seed: int = setting(0, "of the projection", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        check_buckets(self.name, self.buckets)
        self._own = OwnHistory(min(self.history, _OWN_ROUNDS), self.buckets)
        self._sides = SidesHistory(self.history)
        self._distances = DistanceHistory(self.history)

    def needs(self) -> tuple[Need, ...]:
        needs = (GramNeed(), SignCosinesNeed())
        return (*needs, self._projection()) if self.history else needs

    def _projection(self) -> ProjectionNeed:
        return ProjectionNeed(self.buckets, self.seed)

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
        scene = Scene(sketch.gram, sketch[SignCosinesNeed()], self._recall(sketch))
        found = find(scene, context.trusted, self.alpha)
        accepted = ~found.rejected
        if self.history:
            self._remember(sketch, scene, found)
            self._remember_distances(sketch, scene, found)
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

    def state_dict(self) -> dict[str, Any]:
        return {**self._own.state(), **self._sides.state(), **self._distances.state()} if self.history else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not self.history:
            super().load_state_dict(state)
        else:
            self._own.restore(state, self.name)
            self._sides.restore(state, self.name)
            self._distances.restore(state, self.name)

    def _recall(self, sketch: RoundSketch) -> Past:
        if not self.history:
            return Past()
        continuity = self._own.continuity(sketch.clients, sketch[self._projection()].rows)
        clients = sketch.clients
        accused, excess = self._sides.accused(clients), self._distances.recall(clients)
        return Past(continuity, *self._sides.rounds_of(clients), accused, excess)

    def _remember(self, sketch: RoundSketch, scene: Scene, found: Findings) -> None:
        self._own.remember(sketch.clients, sketch[self._projection()].rows, ~found.rejected)
        on_a_side = np.flatnonzero(~found.rejected | np.isin(found.reason, ("reversed", "joint")))
        cosines = scene.telling[np.ix_(on_a_side, on_a_side)]
        clients = [sketch.clients[index] for index in on_a_side]
        updates, deviations = (
            each[np.ix_(on_a_side, on_a_side)] for each in (scene.gram.cosines, scene.gram.deviations)
        )
        self._sides.remember(clients, cosines, updates, deviations, found.accused[on_a_side], searched=found.searched)

    def _remember_distances(self, sketch: RoundSketch, scene: Scene, found: Findings) -> None:
        apart = np.flatnonzero(found.reason != "copy")
        accepted = ~found.rejected[apart]
        if len(apart) >= FEWEST and accepted.any():
            excess = scene.excess(apart)
            clients = [sketch.clients[index] for index in apart]
            self._distances.remember(clients, excess - np.median(excess[accepted]))

    def _plane(self, found: Findings) -> Numbers:
        views = found.first_views
        nothing = np.full(len(found.common), np.nan)
        return np.stack([views.get("unexplained part", nothing), found.common], axis=1)


def find(scene: Scene, trusted: Mask, alpha: float) -> Findings:
    """What `detect` finds, with at most one known-benign client given up first, if the others would reject it."""
    found = detect(scene, trusted, alpha)
    suspect = suspect_anchor(scene, trusted, alpha, found)
    if suspect is None:
        return found
    believed = trusted.copy()
    believed[suspect] = False
    found = detect(scene, believed, alpha)
    found.reject(np.array([suspect]), "suspect-anchor", 1.0)
    return found


def score_of(found: Findings) -> Numbers:
    """Suspicion in [0, 1]: above one half exactly where rejected, by the evidence; for the rest, by what came nearest.

    A client that lies on no side is a little suspect, one that lies on the other side more so.
    """
    evidence = np.where(np.isinf(found.evidence), np.finfo(np.float64).max, found.evidence)
    rejected = 0.5 + 0.5 * evidence / (1.0 + evidence)
    side = np.clip(np.nan_to_num(found.common, nan=1.0), -1.0, 1.0)
    doubt = np.where(side < 0, 0.25 - 0.24 * side, 0.2 * (1.0 - side))
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
