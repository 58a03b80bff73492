"""Where a sketch reads from: anything that can fill a buffer with some columns of all clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.rounds.layout import Parameter


class ColumnSource(Protocol):
    """One round's updates, as stored: any client order, non-finite rows included.

    `client_ids`, `norms` (float64, of each row; not finite where the row is not), `trusted` (the run's own flags) and
    `num_examples` (-1 unknown) are aligned with the rows that `read_columns` fills.
    """

    @property
    def number(self) -> int: ...
    @property
    def client_ids(self) -> Sequence[str]: ...
    @property
    def norms(self) -> NDArray[np.float64]: ...
    @property
    def trusted(self) -> NDArray[np.bool_]: ...
    @property
    def num_examples(self) -> NDArray[np.int64]: ...
    @property
    def parameters(self) -> Sequence[Parameter]: ...
    @property
    def n_parameters(self) -> int: ...
    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Fill `out`, of shape (clients, stop - start), with those columns of every client."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """A round held in memory: `updates` is (clients, parameters), of any float type; read as float32."""

    updates: NDArray[np.floating]
    client_ids: Sequence[str]
    trusted: NDArray[np.bool_]
    number: int = 0

    def __post_init__(self) -> None:
        if self.updates.ndim != 2:
            raise UnusableInput(f"updates must be a matrix of (clients, parameters), not of shape {self.updates.shape}")
        if len(self.client_ids) != len(self.updates):
            raise UnusableInput(f"{len(self.client_ids)} client ids for {len(self.updates)} updates")
        if len(set(self.client_ids)) != len(self.client_ids):
            raise UnusableInput("two updates carry the same client id")

    @property
    def norms(self) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is rejected as such
            stored = self.updates.astype(np.float32)
        norms: NDArray[np.float64] = np.linalg.norm(stored.astype(np.float64), axis=1)
        return norms

    @property
    def num_examples(self) -> NDArray[np.int64]:
        return np.full(len(self.updates), -1, dtype=np.int64)

    @property
    def parameters(self) -> Sequence[Parameter]:
        return (Parameter("update", (self.n_parameters,), 0),)

    @property
    def n_parameters(self) -> int:
        return int(self.updates.shape[1])

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        with np.errstate(over="ignore"):
            out[...] = self.updates[:, start:stop]
