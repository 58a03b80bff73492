"""What a filter may ask of a round: figures that are sums over blocks of columns.

A filter *declares* its needs; the sketch computes the union of what the chosen filters need in one pass. A need knows
how to turn a block of columns into a partial sum (small float64 arrays) and how to read the total.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch.gram import Gram

Partial = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Header:
    """What is known of a round before its columns are read. Clients with finite updates only, in id order.

    `reference` is the index of the row on which columns are centred; `exponents` are those of the rows' scales.
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

    @property
    def scale(self) -> NDArray[np.float64]:
        scale: NDArray[np.float64] = np.ldexp(1.0, self.exponents)
        return scale


@dataclass(frozen=True)
class Block:
    """Columns `start` to `stop` of a round, scaled and centred: `rows[i] = 2^-e_i (g_i - r)`, float32.

    `reference` holds `2^-e_r r` on the same columns.
    """

    start: int
    stop: int
    rows: NDArray[np.float32]
    reference: NDArray[np.float32]


class Need(ABC):
    """One figure per round. Needs are frozen dataclasses: equal settings are one need, computed once."""

    @abstractmethod
    def partial(self, block: Block, header: Header) -> Partial:
        """This block's contribution; contributions are added up in block order, in float64."""

    @abstractmethod
    def total(self, sums: Partial, header: Header) -> Any:
        """The figure, from the sum over all blocks."""

    @property
    def key(self) -> str:
        """Text that names the need and its settings, for caches."""
        return repr(self)


@dataclass(frozen=True)
class GramNeed(Need):
    """Inner products of all pairs of clients, from which norms, distances, cosines and principal planes follow."""

    def partial(self, block: Block, header: Header) -> Partial:
        return {
            "centred": (block.rows @ block.rows.T).astype(np.float64),
            "with_reference": (block.rows @ block.reference).astype(np.float64),
        }

    def total(self, sums: Partial, header: Header) -> Gram:
        centred = sums["centred"]
        return Gram(
            centred=(centred + centred.T) / 2.0,
            with_reference=sums["with_reference"],
            scale=header.scale,
            norms=header.norms,
            reference=header.reference,
        )
