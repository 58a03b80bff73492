"""One round as its attackers see it, read in blocks of columns so that a large round need not fit in memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.sketch import ColumnSource
from encagg_cli.sketch.compute import BLOCK_COLUMNS

Knowledge = Literal["all", "own"]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator of its own for every purpose: what is drawn for one never depends on what else was drawn."""
    words = [word if isinstance(word, int) else _number(word) for word in purpose]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Scene:
    """The round `source.number`, in which the clients `poisoning` upload what one attack makes.

    `source` holds what every client would have uploaded honestly. `malicious` are all clients of the round that the
    attackers control: some of them may upload honestly in this round, or poison by another attack; `honest_clients` are
    those that upload honestly. `alternatives` holds, for the poisoning clients, updates trained to harm (label-flip).
    """

    source: ColumnSource
    poisoning: tuple[str, ...]
    malicious: tuple[str, ...]
    honest_clients: tuple[str, ...]
    trusted: frozenset[str] = frozenset()
    seed: int = 0
    alternatives: ColumnSource | None = None

    @property
    def number(self) -> int:
        return self.source.number

    @property
    def attackers(self) -> int:
        """How many clients poison by this attack in this round (`m`)."""
        return len(self.poisoning)

    @property
    def n_parameters(self) -> int:
        return self.source.n_parameters

    def rows(self, clients: tuple[str, ...]) -> NDArray[np.intp]:
        """Rows of the source that hold these clients' honest updates."""
        return np.array([self._row[client] for client in clients], dtype=np.intp)

    def known_clients(self, knowledge: Knowledge) -> tuple[str, ...]:
        """Whose honest updates the attackers know, in id order; updates with NaN or infinity are of no use to them.

        "all": the clients that upload honestly in this round; "own": all clients that the attackers control, also
        those that upload honestly or poison by another attack in this round.
        """
        clients = self.honest_clients if knowledge == "all" else self.malicious
        norms = self._norms
        return tuple(client for client in sorted(clients) if np.isfinite(norms[self._row[client]]))

    def require_known(self, knowledge: Knowledge, least: int, attack: str) -> tuple[str, ...]:
        """`known_clients`, refused with UnusableInput where there are fewer than `least`."""
        known = self.known_clients(knowledge)
        if len(known) < least:
            whose = "honest uploads" if knowledge == "all" else "honest updates of the attackers' own"
            raise UnusableInput(
                f"round {self.number}: {attack} needs {least} {whose} to start from, and there are {len(known)}",
                hint="lower the share of attackers"
                if knowledge == "all"
                else "raise it, or let the attackers know=all",
            )
        return known

    def rng(self, client: str, purpose: str, block: int = 0) -> np.random.Generator:
        """A client's own randomness for one block of one round."""
        return generator(self.seed, self.number, client, purpose, block)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {client: row for row, client in enumerate(self.source.client_ids)}

    @cached_property
    def _norms(self) -> Vector:
        return np.asarray(self.source.norms)


def column_blocks(n_parameters: int) -> Iterator[tuple[int, int]]:
    """Bounds of the fixed blocks of columns in which rounds are read and crafted."""
    for start in range(0, n_parameters, BLOCK_COLUMNS):
        yield start, min(start + BLOCK_COLUMNS, n_parameters)


def read_columns(source: ColumnSource, start: int, stop: int) -> NDArray[np.float32]:
    """Columns of every client of a source, (clients, stop - start)."""
    buffer = np.empty((len(source.client_ids), stop - start), dtype=np.float32)
    source.read_columns(start, stop, buffer)
    return buffer


@dataclass(frozen=True)
class Columns:
    """One block of columns: everything in float64.

    known (b, w)  the honest updates that the attackers know (of the attack's own choice of knowledge)
    own   (m, w)  what the poisoning clients would have uploaded honestly
    """

    scene: Scene
    start: int
    stop: int
    known: Matrix
    own: Matrix

    @property
    def block(self) -> int:
        return self.start // BLOCK_COLUMNS

    @cached_property
    def mean(self) -> Vector:
        """Mean of the known updates, (w,)."""
        mean: Vector = self.known.mean(axis=0)
        return mean

    @cached_property
    def deviation(self) -> Vector:
        """Standard deviation of the known updates, (w,), over their number and not one less, as in LIE's own code."""
        deviation: Vector = self.known.std(axis=0)
        return deviation

    def normal(self, purpose: str) -> Matrix:
        """(m, w) standard normal numbers, each attacker's own, the same whenever this block is visited."""
        width = self.stop - self.start
        draws = [self.scene.rng(c, purpose, self.block).standard_normal(width) for c in self.scene.poisoning]
        return np.stack(draws)

    def uniform(self, purpose: str, low: float, high: float) -> Matrix:
        """(m, w) uniform numbers, each attacker's own, the same whenever this block is visited."""
        width = self.stop - self.start
        draws = [self.scene.rng(c, purpose, self.block).uniform(low, high, width) for c in self.scene.poisoning]
        return np.stack(draws)


def visit(scene: Scene, knowledge: Knowledge) -> Iterator[Columns]:
    """The round's blocks in order, each read once."""
    for start, stop in column_blocks(scene.n_parameters):
        yield columns_of(scene, knowledge, start, stop, read_columns(scene.source, start, stop))


def columns_of(scene: Scene, knowledge: Knowledge, start: int, stop: int, values: NDArray[np.float32]) -> Columns:
    """What the attackers see of columns `start` to `stop`, whose `values` (clients, w) are those of the source."""
    return Columns(
        scene=scene,
        start=start,
        stop=stop,
        known=values[scene.rows(scene.known_clients(knowledge))].astype(np.float64),
        own=values[scene.rows(scene.poisoning)].astype(np.float64),
    )
