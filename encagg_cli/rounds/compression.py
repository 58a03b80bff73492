"""Rows compressed chunk by chunk, as HDF5's shuffle and deflate filters would: readable by any HDF5 library.

Done here and not by the library, so that Python's lock is released meanwhile and reading has a bound: a chunk unfolds
to its declared size or is refused.
"""

import zlib
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.layout import COMPRESSED_CHUNK_COLUMNS

Compression = Literal["gzip"]
COMPRESSIONS: Final[tuple[Compression, ...]] = ("gzip",)
LEVEL: Final = (
    1  # more costs two to four times the time for less than 2 % of the size (tests/benchmarks/capture_speed.py)
)


def chunk_columns(n_parameters: int) -> int:
    """Columns of a compressed chunk: HDF5 refuses a chunk wider than its dataset."""
    return min(COMPRESSED_CHUNK_COLUMNS, n_parameters)


def compress_row(row: NDArray[np.generic]) -> Iterator[tuple[int, bytes]]:
    """(first column, compressed bytes) of each chunk of a row; the last one is padded with zeros to full width."""
    columns = chunk_columns(len(row))
    for start in range(0, len(row), columns):
        chunk = row[start : start + columns]
        if len(chunk) < columns:
            chunk = np.concatenate([chunk, np.zeros(columns - len(chunk), dtype=row.dtype)])
        shuffled = chunk.view(np.uint8).reshape(columns, row.dtype.itemsize).T.copy()
        yield start, zlib.compress(shuffled.data.cast("B"), LEVEL)


def decompress_chunk(data: bytes, columns: int, dtype: np.dtype[np.generic], *, shuffled: bool) -> NDArray[np.generic]:
    """The `columns` values of a chunk. Raises ValueError where it holds more, fewer or something else."""
    expected = columns * dtype.itemsize
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(data, expected)
    except zlib.error as error:
        raise ValueError(f"a compressed chunk is damaged ({error})") from error
    if len(plain) != expected or inflate.unconsumed_tail or (not inflate.eof and inflate.decompress(b"", 1)):
        raise ValueError("a compressed chunk does not unfold to its declared size")
    values = np.frombuffer(plain, dtype=np.uint8)
    if shuffled:
        values = values.reshape(dtype.itemsize, columns).T.copy().reshape(-1)
    return values.view(dtype)
