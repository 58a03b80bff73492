"""What a filter may ask of a round: figures that are sums over blocks of columns.

A filter *declares* its needs; the sketch computes the union of what the chosen filters need in one pass. A need knows
how to turn a block of columns into a partial sum (small arrays) and how to read the total. It is a pure function of the
block and the round's header, so that any thread, process or machine may compute it, once or twice, with one result.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch.gram import Gram
from encagg_cli.sketch.products import Products, centred_products

Partial = Mapping[str, NDArray[Any]]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Header:
    """What is known of a round before its columns are read. Clients with finite updates only, in id order.

    `reference` is the index of the row on which columns are centred; `exponents` are those of the rows' scales.
    `update_kind` is "gradient" or "delta".
    """

    number: int
    clients: tuple[str, ...]
    norms: NDArray[np.float64]
    trusted: NDArray[np.bool_]
    num_examples: NDArray[np.int64]
    parameters: tuple[Parameter, ...]
    n_parameters: int
    reference: int
    exponents: NDArray[np.int64]
    update_kind: str = "delta"

    @property
    def scale(self) -> NDArray[np.float64]:
        scale: NDArray[np.float64] = np.ldexp(1.0, self.exponents)
        return scale


@dataclass(frozen=True)
class Block:
    """Some neighbouring columns, `start` to `stop`, of a round: 65,536 or an even part of them.

    How many they are depends on the number of clients alone, never on memory or workers.

    rows       (n, columns) scaled and centred, `2^-e_i (g_i - r)`; the reference row itself is all zero
    reference  (columns,) `2^-e_r r`
    raw        (n, columns) `g_i` as stored; None unless a need says `uses_raw`
    vectors    (columns,) each, what the needs ask for in `vectors` and the round has
    """

    start: int
    stop: int
    rows: NDArray[np.float32]
    reference: NDArray[np.float32]
    raw: NDArray[np.float32] | None = None
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    device: Device = "cpu"
    _products: dict[tuple[int, int], Products] = field(default_factory=dict, init=False, repr=False, compare=False)

    def products(self, header: Header, columns: slice = slice(None)) -> Products:
        """Inner products of the rows over some of the block's columns, and with the reference, in float32.

        Computed once for all needs, on the device that was asked for. Equal rows have exactly equal products.
        """
        start, stop, _ = columns.indices(self.rows.shape[1])
        if (start, stop) not in self._products:
            self._products[start, stop] = centred_products(
                self.rows[:, start:stop], self.reference[start:stop], header.reference, self.device
            )
        return self._products[start, stop]


class Need(ABC):
    """One figure per round. Needs are frozen dataclasses: equal settings are one need, computed once.

    uses_raw       `block.raw` must be there
    vectors        names of what `block.vectors` must hold where the round has it: "global_model", "root_gradient",
                   "last_step" (the global model less that of the round before)
    """

    uses_raw: ClassVar[bool] = False
    vectors: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def partial(self, block: Block, header: Header) -> Partial:
        """This block's contribution: arrays by name, which are added up in block order, in float64.

        A name may be missing where the block contributes nothing to it.
        """

    @abstractmethod
    def total(self, sums: Partial, header: Header) -> Any:
        """The figure, from the sum over all blocks."""

    def held_bytes(self, header: Header) -> int:
        """Bytes of the sums (float64). The default fits a need that keeps one (n, n) matrix and some vectors."""
        n = len(header.clients)
        return 8 * n * (n + 16)

    def working_bytes(self, header: Header, columns: int) -> int:
        """Bytes that `partial` takes beside the block. The default fits one copy of it and one (n, n) matrix."""
        n = len(header.clients)
        return 4 * n * (columns + n)

    def figure_bytes(self, header: Header) -> int:
        """Bytes that the figure and what filters derive from it take. The default: as much as the sums."""
        return self.held_bytes(header)

    @property
    def key(self) -> str:
        """Text that names the need and its settings, for caches; empty where it depends on more and is not kept."""
        return repr(self)


@dataclass(frozen=True)
class GramNeed(Need):
    """Inner products of all pairs of clients, from which norms, distances, cosines and principal planes follow."""

    def partial(self, block: Block, header: Header) -> Partial:
        return block.products(header)._asdict()

    def total(self, sums: Partial, header: Header) -> Gram:
        centred = sums["centred"]
        return Gram(
            centred=(centred + centred.T) / 2.0,
            with_reference=sums["with_reference"],
            scale=header.scale,
            norms=header.norms,
            reference=header.reference,
        )

    def working_bytes(self, header: Header, columns: int) -> int:
        return 4 * len(header.clients) ** 2

    def figure_bytes(self, header: Header) -> int:
        return 8 * 8 * len(header.clients) ** 2  # the matrices of `Gram`, and as much to work with


@dataclass(frozen=True)
class SquaresNeed(Need):
    """Squared norms of the rows: enough to tell whether the stored norms are true, where no Gram matrix is needed."""

    def partial(self, block: Block, header: Header) -> Partial:
        rows, reference = block.rows, block.reference
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found out from the sums
            return {
                "squares": np.einsum("ij,ij->i", rows, rows),
                "with_reference": rows @ reference,
                "reference_square": np.asarray(reference @ reference),
            }

    def total(self, sums: Partial, header: Header) -> NDArray[np.float64]:
        return np.asarray(sums["squares"])

    def held_bytes(self, header: Header) -> int:
        return 32 * len(header.clients)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 32 * len(header.clients)
