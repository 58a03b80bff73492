"""The attackers' rehearsal: they run the filter they aim at on a round that they imagine, and see what would pass."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encagg_cli import filters
from encagg_cli.attacks.base import as_stored
from encagg_cli.attacks.mixture import Mixture, rows_of
from encagg_cli.attacks.scene import Columns, Knowledge, Matrix, Scene, Vector, column_blocks, columns_of, read_columns
from encagg_cli.filters import Decision, Filter
from encagg_cli.filters.passes import aggregate_pieces, sketch_for
from encagg_cli.filters.without_columns import needs_without_columns
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch import ColumnSource, GramNeed, Need, RoundSketch, sketch_round
from encagg_cli.sketch.compute import BLOCK_COLUMNS
from encagg_cli.sketch.mixing import mix, mixed_norms
from encagg_cli.sketch.source import VectorSource

Candidate = Callable[[Columns], Matrix]


@dataclass(frozen=True)
class Outcome:
    """What a filter would make of a candidate.

    accepted  (m,) which of the crafted uploads would pass
    harm      `‖aggregate - mean of the known honest updates‖`
    """

    accepted: NDArray[np.bool_]
    harm: float


@dataclass(frozen=True)
class ImaginedRound:
    """A column source: the honest updates that the attackers know, and their candidate.

    With all honest uploads known, it is the round that the server will see. With only their own, these stand for the
    honest clients.
    """

    scene: Scene
    knowledge: Knowledge
    candidate: Candidate
    _kept: dict[str, tuple[int, NDArray[np.float32]]] = field(default_factory=dict, init=False, repr=False)

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
        for start, _ in column_blocks(self.n_parameters):
            crafted = self._block(start)[len(self.known) :]
            squares += np.square(crafted.astype(np.float64)).sum(axis=1)
        honest = np.asarray(self.scene.source.norms)[self.scene.rows(self.known)]
        return np.concatenate([honest, np.sqrt(squares)])

    @property
    def vector_names(self) -> frozenset[str]:
        source = self.scene.source
        return source.vector_names if isinstance(source, VectorSource) else frozenset()

    def read_vector(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        source = self.scene.source
        assert isinstance(source, VectorSource)  # or it has no vectors to ask for
        source.read_vector(name, start, stop, out)

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        first = start // BLOCK_COLUMNS * BLOCK_COLUMNS
        for begin in range(first, stop, BLOCK_COLUMNS):
            block = self._block(begin)
            low, high = max(start, begin), min(stop, begin + block.shape[1])
            out[:, low - start : high - start] = block[:, low - begin : high - begin]

    def _block(self, start: int) -> NDArray[np.float32]:
        """A fixed block, known uploads before crafted ones; the last one is kept, which may be the only one."""
        kept = self._kept.get("block")
        if kept is not None and kept[0] == start:
            return kept[1]
        stop = min(start + BLOCK_COLUMNS, self.n_parameters)
        values = read_columns(self.scene.source, start, stop)
        columns = columns_of(self.scene, self.knowledge, start, stop, values)
        known = values[self.scene.rows(self.known)]
        block = np.concatenate([known, as_stored(self.candidate(columns))])
        self._kept["block"] = (start, block)
        return block


@dataclass(frozen=True)
class WeighedRound(ImaginedRound):
    """An imagined round of which norms are known and columns not needed."""

    known_norms: Vector

    @property
    def norms(self) -> Vector:
        return self.known_norms


def rehearse(target: str, scene: Scene, knowledge: Knowledge, candidate: Candidate) -> Outcome:
    """Let a fresh filter of that text decide on a candidate (m, parameters), given by its columns.

    A filter that is told the number of attackers by `f=oracle` is told the truth.
    """
    imagined = ImaginedRound(scene, knowledge, candidate)
    chosen = filters.get(target)
    return _outcome(imagined, chosen, sketch_for(imagined, [chosen], _with_gram))


def needs_of_target(target: str) -> tuple[Need, ...] | None:
    """What `rehearse_mixture` needs of the honest round's sketch; None where the target must see columns."""
    chosen = filters.get(target)
    return needs_without_columns([chosen]) if chosen.aggregate == "linear" else None


def rehearse_mixture(target: str, scene: Scene, knowledge: Knowledge, mixture: Mixture, honest: RoundSketch) -> Outcome:
    """The same of a candidate that is a mixture, without a column: from the sketch of the honest round."""
    known = scene.known_clients(knowledge)
    column = scene.rows(honest.clients)
    crafted = mixture.of_clients(scene, knowledge)[:, column]
    weights = np.concatenate([np.eye(len(honest.clients))[rows_of(honest, known)], crafted])
    norms = mixed_norms(honest.gram, weights)
    norms[: len(known)] = np.asarray(scene.source.norms)[scene.rows(known)]
    imagined = WeighedRound(scene, knowledge, mixture.columns, norms)
    order = sorted(range(len(weights)), key=lambda row: imagined.client_ids[row])
    return _outcome(imagined, filters.get(target), mix(honest, imagined, weights[order]))


def _outcome(imagined: ImaginedRound, chosen: Filter, sketch: RoundSketch) -> Outcome:
    poisoned = {client: place >= len(imagined.known) for place, client in enumerate(imagined.client_ids)}
    trusted = {client for client, flag in zip(imagined.client_ids, imagined.trusted, strict=True) if flag}
    decision = chosen.decide(sketch, trusted=trusted, poisoned=poisoned)
    accepted = decision.in_order(imagined.client_ids).accepted[len(imagined.known) :]
    if decision.weight is None:
        return Outcome(accepted, _harm_by_columns(imagined, chosen, decision))
    crafted = np.array([poisoned[client] for client in decision.clients])
    return Outcome(accepted, _harm(sketch, decision.clients, decision.weight, crafted))


def _with_gram(source: ColumnSource, needs: Iterable[Need]) -> RoundSketch:
    return sketch_round(source, (*needs, GramNeed()))


def _harm_by_columns(imagined: ImaginedRound, chosen: Filter, decision: Decision) -> float:
    """Distance of a coordinate-wise aggregate from the honest mean, column by column."""
    square = 0.0
    start = 0
    for piece in aggregate_pieces(chosen, decision, imagined):
        values = read_columns(imagined, start, start + len(piece))
        honest = values[: len(imagined.known)].mean(axis=0, dtype=np.float64)
        square += float(np.square(piece - honest).sum())
        start += len(piece)
    return float(np.sqrt(square))


def _harm(sketch: RoundSketch, clients: Sequence[str], weight: Vector, crafted: NDArray[np.bool_]) -> float:
    """Distance of a weighted sum from the honest mean, from the Gram matrix; all but `sketch` in `clients`' order."""
    difference = weight - ~crafted / (~crafted).sum()
    place = {client: row for row, client in enumerate(clients)}
    difference = difference[[place[client] for client in sketch.clients]]
    gram = sketch.gram
    # Weights that sum to the same cancel the origin: then deviations lose no digits.
    inner = gram.deviations if abs(float(difference.sum())) < 1e-9 else gram.inner
    return float(np.sqrt(max(float(difference @ inner @ difference), 0.0)))
