"""A round with poisoned uploads in the place of honest ones: nothing is copied, nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks.campaign import Campaign, RoundPlan
from encagg_cli.rounds.encoding import norm
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch.source import ArraySource
from encagg_cli.sketch.stored import StoredSource

Honest = ArraySource | StoredSource


@dataclass(frozen=True, kw_only=True)
class Poisoned:
    """What is known of a poisoned round beside its updates: a column source, but for its norms and columns.

    `place` numbers the poisoning clients; `known_benign` are those of the cell, whatever the run says.
    """

    honest: Honest
    plan: RoundPlan
    known_benign: frozenset[str]

    @cached_property
    def place(self) -> Mapping[str, int]:
        return {client: row for row, client in enumerate(self.plan.poisoning)}

    @cached_property
    def trusted(self) -> NDArray[np.bool_]:
        return np.array([client in self.known_benign for client in self.client_ids], dtype=bool)

    @property
    def number(self) -> int:
        return self.honest.number

    @property
    def client_ids(self) -> Sequence[str]:
        return self.honest.client_ids

    @property
    def num_examples(self) -> NDArray[np.int64]:
        return self.honest.num_examples

    @property
    def parameters(self) -> Sequence[Parameter]:
        return self.honest.parameters

    @property
    def n_parameters(self) -> int:
        return self.honest.n_parameters

    @property
    def update_kind(self) -> str:
        return self.honest.update_kind

    @property
    def vector_names(self) -> frozenset[str]:
        return self.honest.vector_names

    def read_vector(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        self.honest.read_vector(name, start, stop, out)

    @cached_property
    def poisoned(self) -> NDArray[np.int8]:
        return np.array([client in self.place for client in self.client_ids], dtype=np.int8)

    @property
    def attack(self) -> Sequence[str]:
        return tuple(self.plan.attack_name(client) if client in self.place else "" for client in self.client_ids)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The row of each client."""
        return {client: row for row, client in enumerate(self.client_ids)}


@dataclass(frozen=True, kw_only=True)
class PoisonedRound(Poisoned):
    """`honest` with the rows of `crafted` (poisoning clients, parameters) in the place of those clients' uploads."""

    crafted: NDArray[np.float32]

    @classmethod
    def craft(
        cls,
        honest: Honest,
        campaign: Campaign,
        plan: RoundPlan,
        known_benign: frozenset[str],
        alternatives: Honest | None = None,
    ) -> "PoisonedRound":
        """Craft the uploads of a planned round."""
        crafted = np.zeros((len(plan.poisoning), honest.n_parameters), dtype=np.float32)
        for start, stop, values in campaign.craft(honest, plan, alternatives=alternatives):
            crafted[:, start:stop] = values
        return cls(honest=honest, plan=plan, known_benign=known_benign, crafted=crafted)

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        norms = self.honest.norms.copy()
        for client, row in self.place.items():
            norms[self.index[client]] = norm(self.crafted[row], "float32")
        return norms

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        self.honest.read_columns(start, stop, out)
        for client, row in self.place.items():
            out[self.index[client]] = self.crafted[row, start:stop]
