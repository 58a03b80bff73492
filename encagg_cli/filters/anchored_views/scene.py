"""A round as the detector sees it: its clients' likenesses, what is known of them from before, and every view."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.cloud import Cloud
from encagg_cli.filters.anchored_views.distance import PastExcess, distance_for_its_kind, excess_distances
from encagg_cli.filters.anchored_views.evidence import Evidence, weight_of_signs
from encagg_cli.filters.anchored_views.ridge import shared_with
from encagg_cli.filters.anchored_views.views import (
    View,
    nearest_known_benign,
    own_past,
    views_of,
    views_of_signs,
)
from encagg_cli.sketch import Gram
from encagg_cli.sketch.signs import SignCosines

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Past:
    """What is known of the clients from earlier rounds, aligned with them.

    continuity   (n,) each upload's likeness to the client's own recent ones, NaN where it has none; None: not kept
    rounds       their cosines (n, n), NaN for who was not there: they tell who was on which side (evidence.py)
    updates      the cosines of the updates as they were, likewise
    clouds       where the clients were on their principal axes (cloud.py)
    accused      (n,) masks whom one of them accused of being reversed; None: nobody
    excess       how far they were for their kind (distance.py); None: not kept
    """

    continuity: Numbers | None = None
    rounds: Sequence[Numbers] = ()
    updates: Sequence[Numbers] = ()
    clouds: Sequence[Cloud] = ()
    accused: Mask | None = None
    excess: PastExcess | None = None

    def excess_of(self, alive: NDArray[np.intp]) -> PastExcess | None:
        """That of the clients `alive`."""
        return None if self.excess is None else PastExcess(self.excess.total[alive], self.excess.weight[alive])


@dataclass(frozen=True)
class Scene:
    """A round as the detector sees it, whoever is known-benign: what it takes to compute is computed once."""

    gram: Gram
    signs: SignCosines
    past: Past = field(default_factory=Past)
    _views: dict[bytes, tuple[View, ...]] = field(default_factory=dict)
    _excess: dict[bytes, Numbers] = field(default_factory=dict)
    _evidence: dict[bytes, Evidence] = field(default_factory=dict)
    _of_signs: list[float] = field(default_factory=list)

    @property
    def telling(self) -> Numbers:
        """(n, n) the cosines by which sides are told (evidence.py)."""
        self.look(np.arange(len(self.gram.cosines)))
        weight = self._of_signs[0]
        return weight * self.signs.cosines + (1.0 - weight) * self.gram.cosines

    def look(self, alive: NDArray[np.intp]) -> bool:
        """Whether signs are looked at: decided once, by the clients `alive` when first asked."""
        if not self._of_signs:
            self._of_signs.append(weight_of_signs(self.signs[alive], self.gram.cosines[np.ix_(alive, alive)]))
        return self._of_signs[0] > 0.0

    def shared(self, alive: NDArray[np.intp], far: Mask) -> float:
        """What those of the clients `alive` who are `far` have of what the others share, on average (ridge.py)."""
        return float(shared_with(self.telling[np.ix_(alive, alive)], ~far)[far].mean())

    def updates(self, alive: NDArray[np.intp]) -> list[Numbers]:
        """The cosines of the updates as they are of the clients `alive`, of this round and then of earlier ones."""
        return [cosines[np.ix_(alive, alive)] for cosines in (self.gram.cosines, *self.past.updates)]

    def evidence(self, alive: NDArray[np.intp]) -> Evidence:
        """What this round and earlier ones tell of the sides of the clients `alive`."""
        key = alive.tobytes()
        if key not in self._evidence:
            self.look(alive)
            among = np.ix_(alive, alive)
            earlier = [cosines[among] for cosines in self.past.rounds]
            clouds = [Cloud.of(self.gram.deviations[among]), *(cloud.among(alive) for cloud in self.past.clouds)]
            self._evidence[key] = Evidence.of(self.telling[among], earlier, self.updates(alive), clouds)
        return self._evidence[key]

    def views(self, alive: NDArray[np.intp], trusted: Mask) -> tuple[View, ...]:
        """All views of the clients `alive`; `trusted` (n,) masks the known-benign among all."""
        key = alive.tobytes()
        if key not in self._views:
            of_signs = views_of_signs(self.signs[alive]) if self.look(alive) else ()
            self._views[key] = (*views_of(self.gram, alive), *of_signs)
        far = distance_for_its_kind(self.excess(alive), self.past.excess_of(alive), trusted[alive])
        nearest = nearest_known_benign(self.gram, alive, trusted)
        turned = None if self.past.continuity is None else own_past(self.past.continuity[alive], trusted[alive])
        return (*self._views[key], far, *(view for view in (nearest, turned) if view is not None))

    def excess(self, alive: NDArray[np.intp]) -> Numbers:
        """How far each of the clients `alive` is for its kind (distance.py)."""
        key = alive.tobytes()
        if key not in self._excess:
            among = np.ix_(alive, alive)
            self._excess[key] = excess_distances(self.gram.distances[among], self.gram.cosines[among])
        return self._excess[key]
