"""A round of a simulated federation, in memory, exactly as it is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.encoding import decode, encode, norm, stored_dtype
from encagg_cli.rounds.layout import Parameter, StoredType, UpdateKind


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
    poisoned      (clients,) int8, 0 or 1: this upload was crafted or trained to harm
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
