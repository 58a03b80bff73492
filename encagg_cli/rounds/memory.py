"""A round in memory, exactly as it is stored: what a filter inside the training judges."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.encoding import decode, encode, norm, stored_dtype
from encagg_cli.rounds.layout import POISONED_UNKNOWN, Parameter, StoredType, UpdateKind


def as_stored(updates: NDArray[np.float32], stored_type: StoredType) -> NDArray[np.float32]:
    """Updates (clients, parameters) as they come back from a file that stores them with this type."""
    if stored_type == "float32":
        return updates
    stored = np.empty(updates.shape, dtype=stored_dtype(stored_type))
    for row, bits in zip(updates, stored, strict=True):
        encode(row, stored_type, bits)
    back = np.empty_like(updates)
    decode(stored, stored_type, back)
    return back


@dataclass(frozen=True)
class MemoryRound:
    """All uploads of one round, and the truth about them; the arrays' rows are in the order of `client_ids`.

    updates       (clients, parameters) float32, as stored
    poisoned      (clients,) int8: 1, this upload was crafted or trained to harm; 0, it was not; -1, unknown
    attack        the attack's canonical text, "" for an honest upload
    global_model  (parameters,) float32, from which the round started
    """

    number: int
    client_ids: Sequence[str]
    updates: NDArray[np.float32]
    trusted: NDArray[np.bool_]
    num_examples: NDArray[np.int64]
    poisoned: NDArray[np.int8]
    attack: Sequence[str]
    global_model: NDArray[np.float32]
    parameters: Sequence[Parameter]
    update_kind: UpdateKind

    @classmethod
    def of(
        cls,
        number: int,
        updates: Mapping[str, Mapping[str, NDArray[np.floating]]],
        *,
        trusted: Collection[str],
        num_examples: Mapping[str, int],
        global_model: Mapping[str, NDArray[np.floating]],
        stored_type: StoredType = "float32",
        update_kind: UpdateKind = "delta",
    ) -> "MemoryRound":
        """Gather uploads by client and tensor name, flattened in the order of `global_model`, nothing known of them."""
        parameters: list[Parameter] = []
        for name, tensor in global_model.items():
            offset = parameters[-1].offset + parameters[-1].size if parameters else 0
            parameters.append(Parameter(name, tuple(np.shape(tensor)), offset))
        rows = np.zeros((len(updates), sum(spec.size for spec in parameters)), dtype=stored_dtype(stored_type))
        for row, update in zip(rows, updates.values(), strict=True):
            for spec in parameters:
                part = np.asarray(update[spec.name]).reshape(-1)
                encode(part, stored_type, row[spec.offset : spec.offset + spec.size])
        stored = np.empty(rows.shape, dtype=np.float32)
        decode(rows, stored_type, stored)
        model = [np.asarray(tensor, dtype=np.float32).reshape(-1) for tensor in global_model.values()]
        return cls(
            number=number,
            client_ids=tuple(updates),
            updates=stored,
            trusted=np.array([client in trusted for client in updates], dtype=bool),
            num_examples=np.array([num_examples[client] for client in updates], dtype=np.int64),
            poisoned=np.full(len(updates), POISONED_UNKNOWN, dtype=np.int8),
            attack=("",) * len(updates),
            global_model=np.concatenate(model) if model else np.zeros(0, dtype=np.float32),
            parameters=tuple(parameters),
            update_kind=update_kind,
        )

    @property
    def n_parameters(self) -> int:
        return int(self.updates.shape[1])

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """Norm of every update, computed as the writer computes it: a replay must see the same digits."""
        return np.array([norm(row, "float32") for row in self.updates], dtype=np.float64)

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        out[...] = self.updates[:, start:stop]

    def named(self, client: int) -> Mapping[str, NDArray[np.float32]]:
        """One client's update as tensors by name."""
        return by_name(self.parameters, self.updates[client])


def by_name(parameters: Sequence[Parameter], vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """A vector's tensors by name, as views."""
    return {spec.name: vector[spec.offset : spec.offset + spec.size].reshape(spec.shape) for spec in parameters}
