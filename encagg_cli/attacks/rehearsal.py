"""The attackers' rehearsal: they run the filter they aim at on a round that they imagine, and see what would pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encagg_cli import filters
from encagg_cli.attacks.base import as_stored
from encagg_cli.attacks.scene import Columns, Knowledge, Matrix, Scene, Vector, column_blocks, columns_of, read_columns
from encagg_cli.filters import Decision, Filter
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch import GramNeed, RoundSketch, sketch_round
from encagg_cli.sketch.compute import BLOCK_COLUMNS

Candidate = Callable[[Columns], Matrix]


@dataclass(frozen=True)
class Outcome:
    """What a filter would make of a candidate.

    accepted  (m,) which of the crafted uploads would pass
    harm      `‖aggregate - mean of the known honest updates‖`; for rules without weights, of the accepted uploads' mean
    """

    accepted: NDArray[np.bool_]
    harm: float


@dataclass(frozen=True)
class ImaginedRound:
    """A column source: the honest updates that the attackers know, and their candidate. Read in fixed blocks only.

    With all honest uploads known, it is the round that the server will see. With only their own, these stand for the
    honest clients.
    """

    scene: Scene
    knowledge: Knowledge
    candidate: Candidate

    @property
    def number(self) -> int:
        return self.scene.number

    @cached_property
    def known(self) -> tuple[str, ...]:
        return self.scene.known_clients(self.knowledge)

    @cached_property
    def client_ids(self) -> Sequence[str]:
        mark = "" if self.knowledge == "all" else " (crafted)"
        return (*self.known, *(client + mark for client in self.scene.poisoning))

    @cached_property
    def trusted(self) -> NDArray[np.bool_]:
        return np.array([client in self.scene.trusted for client in self.client_ids])

    @property
    def num_examples(self) -> NDArray[np.int64]:
        rows = self.scene.rows((*self.known, *self.scene.poisoning))
        examples: NDArray[np.int64] = np.asarray(self.scene.source.num_examples)[rows]
        return examples

    @property
    def parameters(self) -> Sequence[Parameter]:
        return self.scene.source.parameters

    @property
    def n_parameters(self) -> int:
        return self.scene.n_parameters

    @cached_property
    def norms(self) -> Vector:
        squares = np.zeros(self.scene.attackers)
        for start, stop in column_blocks(self.n_parameters):
            squares += np.square(self._block(start, stop)[1].astype(np.float64)).sum(axis=1)
        honest = np.asarray(self.scene.source.norms)[self.scene.rows(self.known)]
        return np.concatenate([honest, np.sqrt(squares)])

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        known, crafted = self._block(start, stop)
        out[: len(known)], out[len(known) :] = known, crafted

    @cached_property
    def _only_block(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._make(0, self.n_parameters)

    def _block(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Known and crafted columns; those of a round of one block are made once."""
        return self._only_block if self.n_parameters <= BLOCK_COLUMNS else self._make(start, stop)

    def _make(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        values = read_columns(self.scene.source, start, stop)
        columns = columns_of(self.scene, self.knowledge, start, stop, values)
        return values[self.scene.rows(self.known)], as_stored(self.candidate(columns))


def rehearse(target: str, scene: Scene, knowledge: Knowledge, candidate: Candidate) -> Outcome:
    """Let a fresh filter of that text decide on a candidate (m, parameters), given by its columns.

    A filter that is told the number of attackers by `f=oracle` is told the truth.
    """
    imagined = ImaginedRound(scene, knowledge, candidate)
    chosen: Filter = filters.get(target)
    sketch = sketch_round(imagined, (*chosen.needs(), GramNeed()))
    poisoned = {client: place >= len(imagined.known) for place, client in enumerate(imagined.client_ids)}
    trusted = {client for client, flag in zip(imagined.client_ids, imagined.trusted, strict=True) if flag}
    decision = chosen.decide(sketch, trusted=trusted, poisoned=poisoned)
    crafted = np.array([poisoned[client] for client in decision.clients])
    return Outcome(
        decision.in_order(imagined.client_ids).accepted[len(imagined.known) :], _harm(sketch, decision, crafted)
    )


def _harm(sketch: RoundSketch, decision: Decision, crafted: NDArray[np.bool_]) -> float:
    """Distance of the filter's aggregate from the honest mean, from the Gram matrix."""
    accepted = decision.accepted / max(1, int(decision.accepted.sum()))
    weight = accepted if decision.weight is None else decision.weight
    difference = weight - ~crafted / (~crafted).sum()
    place = {client: row for row, client in enumerate(decision.clients)}
    difference = difference[[place[client] for client in sketch.clients]]
    gram = sketch.gram
    # Weights that sum to the same cancel the origin: then deviations lose no digits.
    inner = gram.deviations if abs(float(difference.sum())) < 1e-9 else gram.inner
    return float(np.sqrt(max(float(difference @ inner @ difference), 0.0)))
