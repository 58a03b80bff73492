"""Figures a tensor at a time: Gram matrices per tensor and per row of the output layer, and the output layer itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.rounds.layout import ROLE_OUTPUT, Parameter
from encagg_cli.sketch.gram import Gram
from encagg_cli.sketch.needs import Block, Header, Need, Partial
from encagg_cli.sketch.samples import column_name, in_column_order, raw_values

MOST_PIECES = 4096  # n × n matrices kept at once
MOST_COLUMNS = 2**20  # of an output layer that is kept whole


@dataclass(frozen=True)
class Piece:
    """Columns `start` to `stop`, under a name."""

    name: str
    start: int
    stop: int


def tensor_pieces(parameters: Sequence[Parameter]) -> tuple[Piece, ...]:
    """The tensors that hold anything, in order."""
    return tuple(Piece(p.name, p.offset, p.offset + p.size) for p in parameters if p.size)


def output_layer(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The tensors marked as output layer; a model without marks, or a bare vector, has none."""
    return tuple(p for p in parameters if p.role == ROLE_OUTPUT and p.size)


def output_row_pieces(parameters: Sequence[Parameter]) -> tuple[Piece, ...]:
    """One piece a class: the rows of the output layer's weight, its last tensor of two or more dimensions."""
    weights = [p for p in output_layer(parameters) if len(p.shape) >= 2]
    if not weights:
        return ()
    length = weights[-1].size // weights[-1].shape[0]
    first = weights[-1].offset
    return tuple(
        Piece(f"{weights[-1].name}[{row}]", first + row * length, first + (row + 1) * length)
        for row in range(weights[-1].shape[0])
    )


def overlaps(pieces: Sequence[Piece], block: Block) -> Iterator[tuple[int, slice]]:
    """Index of each piece that reaches into the block, and the block's columns that it holds."""
    for index, piece in enumerate(pieces):
        start, stop = max(piece.start, block.start), min(piece.stop, block.stop)
        if start < stop:
            yield index, slice(start - block.start, stop - block.start)


class _PiecewiseGramNeed(Need):
    """Gram matrices over pieces of the columns, by the pieces' names, each with norms of its own."""

    uses_raw = True
    piece_is = "tensor"

    def pieces(self, header: Header) -> tuple[Piece, ...]:
        raise NotImplementedError

    def partial(self, block: Block, header: Header) -> Partial:
        sums: dict[str, NDArray[np.float64] | NDArray[np.float32]] = {}
        raw = raw_values(block)
        for index, columns in overlaps(self._checked_pieces(header), block):
            products = block.products(header, columns)
            sums[f"centred-{index}"] = products.centred
            sums[f"with-reference-{index}"] = products.with_reference
            sums[f"squares-{index}"] = np.square(raw[:, columns], dtype=np.float64).sum(axis=1)
        return sums

    def total(self, sums: Partial, header: Header) -> dict[str, Gram]:
        return {
            piece.name: Gram(
                centred=(sums[f"centred-{index}"] + sums[f"centred-{index}"].T) / 2.0,
                with_reference=sums[f"with-reference-{index}"],
                scale=header.scale,
                norms=np.sqrt(sums[f"squares-{index}"]),
                reference=header.reference,
            )
            for index, piece in enumerate(self._checked_pieces(header))
        }

    def held_bytes(self, header: Header) -> int:
        n = len(header.clients)
        return 8 * n * (n + 2) * len(self.pieces(header))

    def working_bytes(self, header: Header, columns: int) -> int:
        n = len(header.clients)
        return 12 * n * columns + 4 * n * n

    def _checked_pieces(self, header: Header) -> tuple[Piece, ...]:
        pieces = self.pieces(header)
        if len(pieces) > MOST_PIECES:
            raise UsageError(
                f"round {header.number}: a Gram matrix for each {self.piece_is} is asked for, and there are "
                f"{len(pieces)}",
                hint=f"at most {MOST_PIECES} are kept; leave out the methods that ask for them",
            )
        return pieces


@dataclass(frozen=True)
class TensorGramNeed(_PiecewiseGramNeed):
    """A Gram matrix of every tensor's columns."""

    def pieces(self, header: Header) -> tuple[Piece, ...]:
        return tensor_pieces(header.parameters)


@dataclass(frozen=True)
class OutputRowGramNeed(_PiecewiseGramNeed):
    """A Gram matrix of every row (class) of the output layer's weight; empty where no output layer is marked."""

    piece_is = "row of the output layer"

    def pieces(self, header: Header) -> tuple[Piece, ...]:
        return output_row_pieces(header.parameters)


@dataclass(frozen=True)
class OutputLayer:
    """The output layer's columns of `n` clients: updates (n, c), and the global model's, (c,), where it is stored."""

    updates: NDArray[np.float64]
    model: NDArray[np.float64] | None


@dataclass(frozen=True)
class OutputColumnsNeed(Need):
    """The output layer's columns themselves, an `OutputLayer`; None where no output layer is marked."""

    uses_raw = True
    vectors = frozenset({"global_model"})

    def partial(self, block: Block, header: Header) -> Partial:
        pieces = tensor_pieces(output_layer(header.parameters))
        columns = _width(header)
        if columns > MOST_COLUMNS:
            raise UsageError(
                f"round {header.number}: the output layer has {columns} parameters, too many to keep for every client",
                hint=f"the most is {MOST_COLUMNS}; leave out the methods that look at them one by one",
            )
        model = block.vectors.get("global_model")
        kept = {}
        for _, here in overlaps(pieces, block):
            name = column_name(block.start + here.start)
            kept[name] = raw_values(block)[:, here].copy()
            if model is not None:
                kept[f"model-{name}"] = model[here].copy()
        return kept

    def total(self, sums: Partial, header: Header) -> OutputLayer | None:
        if not _width(header):
            return None
        model = [sums[name] for name in sorted(sums) if name.startswith("model-")]
        stored = np.concatenate(model).astype(np.float64) if model else None
        known = stored is not None and bool(np.isfinite(stored).all())
        return OutputLayer(in_column_order(sums, len(header.clients)), stored if known else None)

    def held_bytes(self, header: Header) -> int:
        return 8 * _width(header) * (len(header.clients) + 1)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 4 * (len(header.clients) + 1) * columns


def _width(header: Header) -> int:
    return sum(p.size for p in output_layer(header.parameters))
