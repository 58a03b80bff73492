"""From stored columns to what a need sees: which columns go together, read, centred and scaled in reused buffers.

Two widths matter. A *block* of 65,536 columns is the unit of work and of reduction. Within it, arithmetic goes in
*tiles*, whose width depends on the number of clients alone: a tile stays in the processor's cache, and sums come out
the same under any memory limit. How many tiles are read at a time is free.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.needs import Block, Device, Header
from encagg_cli.sketch.source import ColumnSource, RowSource, VectorSource

BLOCK_COLUMNS = 65_536  # fixed: sums are the same whoever computes them, in whatever pieces
_TILE_ELEMENTS = 2**20
_NARROWEST = 1024
_FACTOR_EXPONENT = 120  # powers of two up to here are ordinary float32 numbers

Columns = NDArray[np.float32]


def tile_columns(n_clients: int) -> int:
    """Width of a tile: a power of two such that a tile has about a million elements, from 1024 to a whole block."""
    width = BLOCK_COLUMNS
    while width > _NARROWEST and width * n_clients > _TILE_ELEMENTS:
        width //= 2
    return width


def block_count(n_parameters: int) -> int:
    """How many blocks a round has."""
    return -(-n_parameters // BLOCK_COLUMNS)


class Buffers:
    """Arrays by name that are allocated once and used again, however wide the next piece is. One set a thread."""

    def __init__(self) -> None:
        self._flat: dict[str, Columns] = {}

    def take(self, name: str, n: int, columns: int) -> Columns:
        """An array of shape (n, columns), whose values are those that its last user left."""
        flat = self._flat.get(name)
        if flat is None or flat.size < n * columns:
            self._flat.pop(name, None)
            flat = self._flat[name] = np.empty(n * columns, dtype=np.float32)
        return flat[: n * columns].reshape(n, columns)


@dataclass(frozen=True)
class Rows:
    """The rows of one round that take part: those of the finite clients, in id order, with what belongs to them.

    `rows` are their indices in `source`; `vectors` the names of the vectors to read with them.
    """

    source: ColumnSource
    header: Header
    rows: NDArray[np.intp]
    vectors: tuple[str, ...] = ()
    keep_raw: bool = False

    def read(self, start: int, stop: int, buffers: Buffers) -> Columns:
        """Stored values of those columns, (n, stop - start)."""
        out = buffers.take("stored", len(self.rows), stop - start)
        stored = len(self.source.client_ids)
        if isinstance(self.source, RowSource):
            self.source.read_rows(self.rows, start, stop, out)
        elif stored == len(self.rows) and np.array_equal(self.rows, np.arange(stored)):
            self.source.read_columns(start, stop, out)
        else:
            everything = buffers.take("everything", stored, stop - start)
            self.source.read_columns(start, stop, everything)
            np.take(everything, self.rows, axis=0, out=out)
        return out

    def read_vectors(self, start: int, stop: int) -> dict[str, Columns]:
        """Those columns of the vectors, by name."""
        read = {}
        for name in self.vectors:
            assert isinstance(self.source, VectorSource)
            read[name] = np.empty(stop - start, dtype=np.float32)
            self.source.read_vector(name, start, stop, read[name])
        return read


@dataclass(frozen=True)
class Piece:
    """Some columns as they were read: one tile or several."""

    rows: Rows
    start: int
    stop: int
    buffers: Buffers
    stored: Columns = field(init=False)
    vectors: Mapping[str, Columns] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored", self.rows.read(self.start, self.stop, self.buffers))
        object.__setattr__(self, "vectors", self.rows.read_vectors(self.start, self.stop))

    def tile(self, start: int, stop: int, device: Device) -> Block:
        """The tile of those columns; may be asked for once, because it is made in place."""
        columns = slice(start - self.start, stop - self.start)
        stored = self.stored[:, columns]
        keep = self.rows.keep_raw
        values = self.buffers.take("centred", *stored.shape) if keep else stored
        reference = centre(stored, self.rows.header, values)
        return Block(
            start=start,
            stop=stop,
            rows=values,
            reference=reference,
            raw=stored if keep else None,
            vectors={name: vector[columns] for name, vector in self.vectors.items()},
            device=device,
        )


def read_tiles(
    index: int, rows: Rows, buffers: Buffers, *, at_a_time: int = 1, device: Device = "cpu"
) -> Iterator[Block]:
    """The tiles of block `index` in order, each valid until the next is asked for; `at_a_time` of them are read."""
    width = tile_columns(len(rows.header.clients))
    for begin, end in _pieces(index, rows, width * at_a_time):
        piece = Piece(rows, begin, end, buffers)
        for start in range(begin, end, width):
            yield piece.tile(start, min(start + width, end), device)


def read_stored(index: int, rows: Rows, buffers: Buffers, *, at_a_time: int = 1) -> Iterator[tuple[int, Columns]]:
    """The same columns as they are stored: first column and values (n, columns) of one tile after the other."""
    width = tile_columns(len(rows.header.clients))
    for begin, end in _pieces(index, rows, width * at_a_time):
        values = rows.read(begin, end, buffers)
        for start in range(begin, end, width):
            yield start, values[:, start - begin : min(start + width, end) - begin]


def _pieces(index: int, rows: Rows, columns: int) -> Iterator[tuple[int, int]]:
    """First and last columns of what is read at a time of block `index`."""
    first = index * BLOCK_COLUMNS
    last = min(first + BLOCK_COLUMNS, rows.header.n_parameters)
    for begin in range(first, last, columns):
        yield begin, min(begin + columns, last)


def centre(stored: Columns, header: Header, out: Columns) -> Columns:
    """Write `2^-e_i (g_i - r)` into `out`, which may be `stored` itself, and return `2^-e_r r`."""
    reference = stored[header.reference].copy()
    exponents = header.exponents
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found out from the sums
        scaled = {int(exponent): _scaled(reference, -int(exponent)) for exponent in np.unique(exponents)}
        if len(scaled) == 1:
            (exponent,) = scaled
            values = stored if exponent == 0 else _scaled(stored, -exponent, out)
            np.subtract(values, scaled[exponent], out=out)
        else:
            for row, exponent in enumerate(exponents.tolist()):
                np.subtract(_scaled(stored[row], -exponent, out[row]), scaled[exponent], out=out[row])
    return scaled[int(exponents[header.reference])]


def _scaled(values: Columns, exponent: int, out: Columns | None = None) -> Columns:
    """`2^exponent values`, exactly, where float32 can hold them."""
    if abs(exponent) <= _FACTOR_EXPONENT:
        scaled: Columns = np.multiply(values, np.float32(2.0**exponent), out=out)
    else:
        scaled = np.ldexp(values, exponent, out=out)
    return scaled
