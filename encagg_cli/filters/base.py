"""What every filter is: settings as typed fields, needs declared, one decision per round.

A filter is a dataclass: its fields are its settings, its canonical text (`multi-krum(f=8)`) is how it is shown, stored,
hashed and typed. It works on a `RoundSketch` and never sees a file. What it carries from round to round it keeps
in itself, and hands out and takes back as a dictionary (`state_dict`, `load_state_dict`). Needs may depend on that
state (a rule that looks back at its own last output), so they are asked for before every round.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from encagg_cli.console import counted
from encagg_cli.engine import one_blas_thread
from encagg_cli.errors import UsageError
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch import ArraySource, Need, RoundSketch

Grade = Literal["A", "B", "C"]
Aggregate = Literal["linear", "coordinate-wise"]
Vector = NDArray[np.floating]
ACCEPT_THRESHOLD = 0.5  # of scores that `suspicion` makes


class Requirement(Enum):
    """What a run may have to offer before a filter can work on it; checked before anything is read."""

    KNOWN_BENIGN = "known-benign clients"
    ATTACKER_COUNT = "the number of attackers"
    HISTORY = "earlier rounds"
    LAYERS = "tensor names and shapes"
    OUTPUT_LAYER = "a marked output layer"
    GLOBAL_MODEL = "the stored global model"
    ROOT_GRADIENT = "the stored root gradient"
    SAMPLE_COUNTS = "sample counts"


@dataclass(frozen=True)
class Context:
    """What a filter is told about a round, aligned with `sketch.clients`.

    `trusted` marks the known-benign clients. `poisoned` is ground truth where the run has it, for `f=oracle` alone.
    """

    trusted: NDArray[np.bool_]
    poisoned: NDArray[np.bool_] | None = None


@dataclass(frozen=True, repr=False)
class Decision:
    """A filter's answer for one round; every array is aligned with `clients`.

    accepted   the verdict
    score      suspicion, higher is worse; no accepted upload scores above a rejected one
    reason     why, in a word
    threshold  the score above which this method rejects, where it has one
    weight     each upload's coefficient in this method's aggregate; None for coordinate-wise rules
    statistic  the rule's own figure, where it is not such a score
    cluster    cluster label, -1 noise
    plane      (clients, 2) where the uploads lie in the method's first plane
    trace      what a picture, or a coordinate-wise aggregate, needs beside that, by name

    A linear aggregate is `Σ_i weight_i g_i + prior_weight · v + noise · z`: `v` is the aggregate before this one (the
    stored step where `prior` is "last_step", the filter's own where it is "own") and `z` standard normal noise. Most
    rules have neither.
    """

    clients: tuple[str, ...]
    accepted: NDArray[np.bool_]
    score: NDArray[np.float64]
    reason: tuple[str, ...]
    threshold: float | None = None
    weight: NDArray[np.float64] | None = None
    statistic: NDArray[np.float64] | None = None
    cluster: NDArray[np.int32] | None = None
    plane: NDArray[np.float64] | None = None
    trace: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    prior: Literal["", "last_step", "own"] = ""
    prior_weight: float = 0.0
    noise: float = 0.0

    def __repr__(self) -> str:
        """Short, for a prompt: the arrays say the rest."""
        rejected = len(self.accepted) - int(self.accepted.sum())
        reasons = Counter(reason for reason, kept in zip(self.reason, self.accepted, strict=True) if not kept)
        why = f" ({', '.join(f'{reason} {count}' for reason, count in reasons.most_common())})" if reasons else ""
        return f"<Decision on {counted(len(self.clients), 'upload')}: {rejected} rejected{why}>"

    def in_order(self, clients: Sequence[str]) -> "Decision":
        """The same decision with its rows in the given order of clients."""
        index = {client: row for row, client in enumerate(self.clients)}
        rows = np.array([index[client] for client in clients], dtype=np.intp)
        return replace(
            self,
            clients=tuple(clients),
            accepted=self.accepted[rows],
            score=self.score[rows],
            reason=tuple(self.reason[row] for row in rows),
            weight=None if self.weight is None else self.weight[rows],
            statistic=None if self.statistic is None else self.statistic[rows],
            cluster=None if self.cluster is None else self.cluster[rows],
            plane=None if self.plane is None else self.plane[rows],
        )


class Filter(ABC):
    """Base of all filters. Subclasses are keyword-only dataclasses registered in `encagg_cli.filters`.

    requires    what a run must have; `uses` what is made use of where it is there
    aggregate   "linear" where `Decision.weight` says it all, else `combine` makes the aggregate
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    grade: ClassVar[Grade]
    requires: ClassVar[frozenset[Requirement]] = frozenset()
    uses: ClassVar[frozenset[Requirement]] = frozenset()
    aggregate: ClassVar[Aggregate] = "linear"
    least_known_benign: ClassVar[int] = 1  # where KNOWN_BENIGN is required

    @property
    def rejects(self) -> bool:
        """Whether this filter, as it is set, has a verdict of its own; else it only aggregates, and rejects nobody."""
        return True

    @abstractmethod
    def needs(self) -> tuple[Need, ...]:
        """What the sketch of the next round must hold."""

    def check_round(self, number: int, clients: int) -> None:  # noqa: B027 - most filters can judge any round
        """Raise UsageError where a round of so many finite uploads cannot be judged: known before it is read."""

    def refine(self, sketch: RoundSketch) -> tuple[Need, ...]:
        """What a second pass over the round must add, now that the first is known; nothing, for nearly all filters."""
        return ()

    @abstractmethod
    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        """Decide on the finite uploads of one round, `sketch.clients`; at least one."""

    def combine(self, decision: Decision, values: NDArray[np.floating], start: int) -> NDArray[np.float64]:
        """Some columns of a coordinate-wise aggregate, (c,): `values` is (clients, c), from column `start` on.

        Its rows, and those of `decision`, are the finite uploads in id order, as `judge` saw them.
        """
        raise TypeError(f"the aggregate of {self.name} is its weights times the updates")

    def wants_aggregate(self) -> bool:
        """Whether `see_aggregate` must be told, before the next round, what came of this one."""
        return False

    def see_aggregate(self, pieces: Iterable[NDArray[np.float64]]) -> None:
        """Take note of this filter's own aggregate of the round just judged, given in pieces from the first column."""
        raise TypeError(f"{self.name} does not look back at its own aggregate")

    def state_dict(self) -> dict[str, Any]:
        """What this filter carries to the next round: arrays, numbers and text by name. Empty for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        if state:
            raise UsageError(f"{self.name} keeps no state, but was given {', '.join(sorted(state))}")

    def decide(
        self,
        updates: RoundSketch | Vector | Mapping[str, Vector],
        *,
        trusted: Collection[str] | Collection[int] | NDArray[np.bool_] = (),
        clients: Iterable[str] | None = None,
        poisoned: Mapping[str, bool] | None = None,
        num_examples: Mapping[str, int] | Sequence[int] | None = None,
        parameters: Sequence[Parameter] | None = None,
        vectors: Mapping[Literal["global_model", "root_gradient", "last_step"], Vector] | None = None,
        update_kind: Literal["gradient", "delta"] = "delta",
    ) -> Decision:
        """Decide on one round, non-finite uploads included.

        `updates` is a sketch, a matrix of (clients, parameters), or a mapping of client id to vector. `trusted` names
        the known-benign clients by id, by row (for a matrix), or as a mask. For a matrix, `clients` are its ids
        ("0", "1", … where not given). `num_examples` are sample counts by id, or in the order of the updates;
        `parameters` the tensors that the updates are made of; `vectors` the global model that the round started from,
        the server's own gradient, and the model's step into this round. (A sketch knows all of these already.) The
        decision's rows are in the order of the updates (of a sketch: in id order).

        Raises UsageError where updates come without the known-benign clients, or the root gradient, that the filter
        requires. (Not for a sketch: single rounds of a stored run may lack them, and `encagg filter` checks the run.)
        """
        from encagg_cli.filters.arrays import as_source
        from encagg_cli.filters.passes import aggregate_pieces, sketch_for
        from encagg_cli.filters.requirements import check_reference

        source: ArraySource | None = None
        if isinstance(updates, RoundSketch):
            sketch = updates
            order: tuple[str, ...] = tuple(sorted((*sketch.clients, *sketch.non_finite)))
            trusted_ids = {str(client) for client in trusted}
        else:
            named = cast("Mapping[str, Vector]", vectors or {})
            source, trusted_ids = as_source(updates, trusted, clients, num_examples, parameters, named, update_kind)
            order = tuple(source.client_ids)
            sketch = sketch_for(source, [self])
        unknown = trusted_ids - set(order)
        if unknown and not isinstance(updates, RoundSketch):
            raise UsageError(f"known-benign client {min(unknown)!r} has no update")
        if source is not None and order:
            check_reference(self, known_benign=len(trusted_ids), root_gradient="root_gradient" in source.vector_names)
        context = Context(
            trusted=np.array([client in trusted_ids for client in sketch.clients], dtype=bool),
            poisoned=None
            if poisoned is None
            else np.array([poisoned.get(client, False) for client in sketch.clients], dtype=bool),
        )
        with one_blas_thread():  # the same bits on any number of cores; and small decompositions are faster
            decision = self.judge(sketch, context) if sketch.clients else _nobody()
        decision = _with_non_finite(decision, sketch.non_finite).in_order(order)
        if source is not None and sketch.clients and self.wants_aggregate():
            self.see_aggregate(aggregate_pieces(self, decision, source))
        return decision


def suspicion(accepted: NDArray[np.bool_], statistic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores in [0, 1) that respect a verdict and, on either side of it, the order of a non-negative statistic.

    Accepted uploads score below `ACCEPT_THRESHOLD`, rejected ones at or above: `0.5 u/(1+u)`, plus 0.5 if rejected.
    """
    share = np.where(np.isinf(statistic), 1.0, statistic / (1.0 + np.where(np.isinf(statistic), 0.0, statistic)))
    return np.where(accepted, np.minimum(0.5 * share, np.nextafter(0.5, 0)), 0.5 + 0.5 * share)


def _nobody() -> Decision:
    return Decision((), np.zeros(0, dtype=bool), np.zeros(0), ())


def _with_non_finite(decision: Decision, non_finite: tuple[str, ...]) -> Decision:
    """Add the uploads that hold NaN or infinity: rejected, with more suspicion than any other."""
    if not non_finite:
        return decision
    m = len(non_finite)
    worst = 1.0 + max(1.0, float(decision.score.max(initial=0.0)))

    def nans(values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        return None if values is None else np.concatenate([values, np.full((m, *values.shape[1:]), np.nan)])

    return replace(
        decision,
        clients=(*decision.clients, *non_finite),
        accepted=np.concatenate([decision.accepted, np.zeros(m, dtype=bool)]),
        score=np.concatenate([decision.score, np.full(m, worst)]),
        reason=(*decision.reason, *("non-finite",) * m),
        weight=None if decision.weight is None else np.concatenate([decision.weight, np.zeros(m)]),
        statistic=nans(decision.statistic),
        cluster=None
        if decision.cluster is None
        else np.concatenate([decision.cluster, np.full(m, -1, dtype=np.int32)]),
        plane=nans(decision.plane),
    )
