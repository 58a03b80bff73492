"""What every filter is: settings as typed fields, needs declared, one decision per round.

A filter is a dataclass: its fields are its settings, its canonical text (`multi-krum(f=8)`) is how it is shown, stored,
hashed and typed. It works on a `RoundSketch` and never sees a file. What it carries from round to round it keeps
in itself, and hands out and takes back as a dictionary (`state_dict`, `load_state_dict`).
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.sketch import ArraySource, Need, RoundSketch, sketch_round

Grade = Literal["A", "B", "C"]
Aggregate = Literal["linear", "coordinate-wise"]
ACCEPT_THRESHOLD = 0.5  # of scores that `suspicion` makes


class Requirement(Enum):
    """What a run must offer before a filter can work on it; checked before anything is read."""

    KNOWN_BENIGN = "known-benign clients"
    ATTACKER_COUNT = "the number of attackers"
    HISTORY = "earlier rounds"
    LAYERS = "tensor names and shapes"
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


@dataclass(frozen=True)
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
    trace      what a picture needs beside that (radius, pseudo-gradients, second plane), by name
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
    """Base of all filters. Subclasses are keyword-only dataclasses registered in `encagg_cli.filters`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    grade: ClassVar[Grade]
    requires: ClassVar[frozenset[Requirement]] = frozenset()
    aggregate: ClassVar[Aggregate] = "linear"
    least_known_benign: ClassVar[int] = 1  # where KNOWN_BENIGN is required

    @abstractmethod
    def needs(self) -> tuple[Need, ...]:
        """What the sketch of a round must hold."""

    @abstractmethod
    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        """Decide on the finite uploads of one round, `sketch.clients`; at least one."""

    def state_dict(self) -> dict[str, Any]:
        """What this filter carries to the next round: arrays, numbers and text by name. Empty for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        if state:
            raise UsageError(f"{self.name} keeps no state, but was given {', '.join(sorted(state))}")

    def decide(
        self,
        updates: RoundSketch | NDArray[np.floating] | Mapping[str, NDArray[np.floating]],
        *,
        trusted: Collection[str] | Collection[int] | NDArray[np.bool_] = (),
        clients: Iterable[str] | None = None,
        poisoned: Mapping[str, bool] | None = None,
    ) -> Decision:
        """Decide on one round, non-finite uploads included.

        `updates` is a sketch, a matrix of (clients, parameters), or a mapping of client id to vector. `trusted` names
        the known-benign clients by id, by row (for a matrix), or as a mask. For a matrix, `clients` are its ids
        ("0", "1", … where not given). The decision's rows are in the order of the updates (of a sketch: in id order).
        """
        if isinstance(updates, RoundSketch):
            sketch = updates
            order: tuple[str, ...] = tuple(sorted((*sketch.clients, *sketch.non_finite)))
            trusted_ids = {str(client) for client in trusted}
        else:
            source, trusted_ids = _as_source(updates, trusted, clients)
            order = tuple(source.client_ids)
            sketch = sketch_round(source, self.needs())
        unknown = trusted_ids - set(order)
        if unknown and not isinstance(updates, RoundSketch):
            raise UsageError(f"known-benign client {min(unknown)!r} has no update")
        context = Context(
            trusted=np.array([client in trusted_ids for client in sketch.clients], dtype=bool),
            poisoned=None
            if poisoned is None
            else np.array([poisoned.get(client, False) for client in sketch.clients], dtype=bool),
        )
        decision = self.judge(sketch, context) if sketch.clients else _nobody()
        return _with_non_finite(decision, sketch.non_finite).in_order(order)


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


def _as_source(
    updates: NDArray[np.floating] | Mapping[str, NDArray[np.floating]],
    trusted: Collection[str] | Collection[int] | NDArray[np.bool_],
    clients: Iterable[str] | None,
) -> tuple[ArraySource, set[str]]:
    if isinstance(updates, Mapping):
        if clients is not None:
            raise UsageError("clients are named by the mapping of updates already")
        ids = tuple(updates)
        matrix = np.stack([np.asarray(update).ravel() for update in updates.values()]) if ids else np.zeros((0, 0))
    else:
        matrix = np.asarray(updates)
        ids = tuple(str(row) for row in range(len(matrix))) if clients is None else tuple(clients)
    if isinstance(trusted, np.ndarray) and trusted.dtype == bool:
        if trusted.shape != (len(ids),):
            raise UsageError(f"a mask of known-benign clients needs {len(ids)} entries, not {trusted.shape}")
        trusted_ids = {ids[row] for row in np.flatnonzero(trusted)}
    else:
        trusted_ids = {ids[int(t)] if isinstance(t, int | np.integer) else str(t) for t in trusted}
    return ArraySource(matrix, ids, np.array([c in trusted_ids for c in ids], dtype=bool)), trusted_ids
