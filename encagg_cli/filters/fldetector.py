"""FLDetector (Zhang et al., KDD 2022): clients whose updates do not follow from their last ones are malicious."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.grouping import gap_clusters, upper_of_two
from encagg_cli.filters.memory import BUCKETS, ClientMemory, vector_of
from encagg_cli.filters.quasi_newton import hessian_products
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.projection import Projected, ProjectionNeed, check_buckets

Numbers = NDArray[np.float64]


@dataclass(kw_only=True)
class FLDetector(Filter):
    """Predict `ĝ_i = g_i(last) + H·(w - w(last))`; score by the mean, over `window` rounds, of `‖ĝ_i - g_i‖`.

    Distances are divided by their sum in each round. `H` is one L-BFGS approximation for all clients, from the last
    `window` steps of the model and changes of the aggregate. A client that was away is predicted from its last upload
    and all steps since. From round `start` of those seen on, the scores are scaled to [0, 1]; where the gap statistic
    finds two clusters or more, exact 2-means splits them, and the cluster of higher scores is rejected in that round.
    The paper then removes it for good and trains again from the start, which a replay cannot; it begins at about round
    50.

    The model's steps are the stored ones where the round has one (`stored-step`), else this filter's own aggregates
    (`own-step`; `H` takes up their unknown scale), and the aggregate is the mean of what is accepted. Everything is
    kept as random projections of `buckets` numbers: distances are within about 2 % (8,192 buckets), and exact for
    updates of no more parameters than buckets. The premise is that clients are consistent: attackers who switch on and
    off break it both ways.
    """

    name: ClassVar[str] = "fldetector"
    summary: ClassVar[str] = "clients whose updates are not what their history predicts"
    source: ClassVar[str] = "Zhang et al., FLDetector, KDD 2022"
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.HISTORY})
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.GLOBAL_MODEL})

    window: int = setting(10, "rounds whose distances are averaged, and pairs that make H", at_least=1, at_most=100)
    start: int = setting(10, "rounds seen before anybody is rejected", at_least=1)
    most_clusters: int = setting(7, "that the gap statistic may find", at_least=2, at_most=50)
    buckets: int = setting(BUCKETS, "size of the projections (a power of two)", at_least=1)
    seed: int = setting(0, "of the projections and the gap statistic", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        check_buckets(self.name, self.buckets)
        self._rounds = 0
        # A client's row: the round of its last upload, its distances (oldest first, NaN unknown), and that upload.
        self._clients = ClientMemory(1 + self.window + self.buckets)
        self._positions = {-1: np.zeros(self.buckets)}  # by round, the steps summed up to it
        self._aggregate: Numbers | None = None
        self._steps: list[Numbers] = []
        self._changes: list[Numbers] = []
        self._stored_steps = False

    def needs(self) -> tuple[Need, ...]:
        return (self._projection(),)

    def _projection(self) -> ProjectionNeed:
        return ProjectionNeed(self.buckets, self.seed)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        projected: Projected = sketch[self._projection()]
        step = self._step_into(projected, sketch.header.update_kind)
        before = self._positions[self._rounds - 1]
        self._positions[self._rounds] = before if step is None else before + step
        distances = self._measure(sketch.clients, projected.rows)
        score = _mean_known(distances)
        accepted = ~self._outliers(score)
        aggregate = equal_weights(accepted) @ projected.rows
        self._learn(step, aggregate)
        self._forget_positions()
        self._rounds += 1
        warming = self._rounds <= self.start or not (score > 0).any()
        return verdict(
            sketch,
            accepted,
            score,
            dropped="inconsistent",
            kept="warming-up" if warming else "kept",
            notes=("stored-step" if self._stored_steps else "own-step" if step is not None else "first",),
            weight=equal_weights(accepted),
        )

    def _step_into(self, projected: Projected, update_kind: str) -> Numbers | None:
        """The step that led to this round, oriented like the updates; None in the first round without a stored one."""
        stored = projected.last_step is not None
        if stored != self._stored_steps:  # own aggregates and stored steps have different scales: H begins anew
            self._stored_steps = stored
            self._steps, self._changes = [], []
        if projected.last_step is None:
            return self._aggregate
        return -projected.last_step if update_kind == "gradient" else projected.last_step

    def _measure(self, clients: tuple[str, ...], rows: Numbers) -> Numbers:
        """(n, window) distances between predicted and actual uploads, this round's last; remembers the uploads."""
        remembered, known = self._clients.recall(clients)
        seen, distances, last = np.split(remembered, [1, 1 + self.window], axis=1)
        distances = np.hstack([distances[:, 1:], np.full((len(rows), 1), np.nan)])
        distances[~known] = np.nan
        if known.any():
            when, which = np.unique(seen[known, 0], return_inverse=True)
            moved = self._positions[self._rounds] - np.stack([self._positions[int(number)] for number in when])
            predicted = last[known] + hessian_products(self._steps, self._changes, moved)[which]
            gap = np.linalg.norm(predicted - rows[known], axis=1)
            distances[known, -1] = gap / gap.sum() if gap.sum() > 0 else 0.0
        here = np.full((len(rows), 1), float(self._rounds))
        self._clients.keep(clients, np.hstack([here, distances, rows]))
        return distances

    def _outliers(self, score: Numbers) -> NDArray[np.bool_]:
        spread = float(np.ptp(score))
        if self._rounds < self.start or not spread > 0:
            return np.zeros(len(score), dtype=bool)
        scaled = (score - score.min()) / spread
        if gap_clusters(scaled[:, None], self.most_clusters, seed=self.seed) < 2:
            return np.zeros(len(score), dtype=bool)
        return upper_of_two(scaled)

    def _forget_positions(self) -> None:
        """Keep those from which some client was last seen, and the latest."""
        needed = {self._rounds, *self._clients.everything()[:, 0].astype(int).tolist()}
        self._positions = {number: position for number, position in self._positions.items() if number in needed}

    def _learn(self, step: Numbers | None, aggregate: Numbers) -> None:
        """Add a pair to those that make H, and remember the aggregate."""
        if step is not None and self._aggregate is not None:
            self._steps = [*self._steps, step][-self.window :]
            self._changes = [*self._changes, aggregate - self._aggregate][-self.window :]
        self._aggregate = aggregate

    def state_dict(self) -> dict[str, Any]:
        state = {
            **self._clients.state(),
            "rounds": self._rounds,
            "position_rounds": np.array(list(self._positions), dtype=np.int64),
            "positions": np.array(list(self._positions.values())),
            "stored_steps": int(self._stored_steps),
            "steps": np.array(self._steps).reshape(-1, self.buckets),
            "changes": np.array(self._changes).reshape(-1, self.buckets),
        }
        return state if self._aggregate is None else {**state, "aggregate": self._aggregate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._clients.restore(state, self.name)
        self._rounds = int(state["rounds"])
        self._stored_steps = bool(state["stored_steps"])
        numbers = np.asarray(state["position_rounds"], dtype=np.int64).tolist()
        positions = vector_of(state, "positions", self.name, (len(numbers), self.buckets))
        self._positions = {} if positions is None else dict(zip(numbers, positions, strict=True))
        self._aggregate = vector_of(state, "aggregate", self.name, (self.buckets,))
        steps, changes = (vector_of(state, name, self.name, (None, self.buckets)) for name in ("steps", "changes"))
        self._steps = [] if steps is None else list(steps)
        self._changes = [] if changes is None else list(changes)


def _mean_known(distances: Numbers) -> Numbers:
    """(n,) mean of each row's known values; 0 where none is."""
    known = np.isfinite(distances)
    sums = np.where(known, distances, 0.0).sum(axis=1)
    means: Numbers = sums / np.maximum(known.sum(axis=1), 1)
    return means
