"""Where a sketch reads from: anything that can fill a buffer with some columns of all clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.rounds.encoding import norm
from encagg_cli.rounds.layout import EXAMPLES_UNKNOWN, Parameter


class ColumnSource(Protocol):
    """One round's updates, as stored: any client order, non-finite rows included.

    `client_ids`, `norms` (float64, of each row; not finite where the row is not), `trusted` (the run's own flags) and
    `num_examples` (-1 unknown) are aligned with the rows that `read_columns` fills. Reading may happen in several
    threads at once.
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


@runtime_checkable
class RowSource(Protocol):
    """A source that can also read some of its rows, in any order, without touching the others."""

    def read_rows(self, rows: NDArray[np.intp], start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Fill `out`, of shape (len(rows), stop - start), with those columns of the given rows."""
        ...


@runtime_checkable
class VectorSource(Protocol):
    """A source that also has vectors of one value a parameter: "global_model", "root_gradient", "last_step"."""

    @property
    def vector_names(self) -> frozenset[str]: ...
    def read_vector(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Fill `out`, of shape (stop - start,), with those columns of the vector."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """A round held in memory: `updates` is (clients, parameters), of any float type; read as float32.

    `vectors` are of shape (parameters,), by the names that `Need.vectors` uses; `examples` are sample counts (-1
    unknown) and `layout` the tensors, where they are known.
    """

    updates: NDArray[np.floating]
    client_ids: Sequence[str]
    trusted: NDArray[np.bool_]
    number: int = 0
    vectors: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    examples: Sequence[int] | None = None
    layout: Sequence[Parameter] | None = None
    update_kind: str = "delta"

    def __post_init__(self) -> None:
        if self.updates.ndim != 2:
            raise UnusableInput(f"updates must be a matrix of (clients, parameters), not of shape {self.updates.shape}")
        if len(self.client_ids) != len(self.updates):
            raise UnusableInput(f"{len(self.client_ids)} client ids for {len(self.updates)} updates")
        if len(set(self.client_ids)) != len(self.client_ids):
            raise UnusableInput("two updates carry the same client id")
        if self.examples is not None and len(self.examples) != len(self.updates):
            raise UnusableInput(f"{len(self.examples)} sample counts for {len(self.updates)} updates")
        if self.layout is not None and sum(parameter.size for parameter in self.layout) != self.n_parameters:
            raise UnusableInput(f"the tensors do not add up to the updates' {self.n_parameters} parameters")
        for name, vector in self.vectors.items():
            if vector.shape != (self.n_parameters,):
                raise UnusableInput(f"{name} has shape {vector.shape}, and the updates {self.n_parameters} parameters")

    @property
    def norms(self) -> NDArray[np.float64]:
        norms = np.empty(len(self.updates))
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is rejected as such
            for row, update in enumerate(self.updates):
                norms[row] = norm(update.astype(np.float32), "float32")
        return norms

    @property
    def num_examples(self) -> NDArray[np.int64]:
        if self.examples is None:
            return np.full(len(self.updates), EXAMPLES_UNKNOWN, dtype=np.int64)
        return np.asarray(self.examples, dtype=np.int64)

    @property
    def parameters(self) -> Sequence[Parameter]:
        if self.layout is not None:
            return self.layout
        return (Parameter("update", (self.n_parameters,), 0),)

    @property
    def n_parameters(self) -> int:
        return int(self.updates.shape[1])

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        with np.errstate(over="ignore"):
            out[...] = self.updates[:, start:stop]

    def read_rows(self, rows: NDArray[np.intp], start: int, stop: int, out: NDArray[np.float32]) -> None:
        with np.errstate(over="ignore"):
            for target, row in enumerate(rows):
                out[target] = self.updates[row, start:stop]

    @property
    def vector_names(self) -> frozenset[str]:
        return frozenset(self.vectors)

    def read_vector(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        out[...] = self.vectors[name][start:stop]
