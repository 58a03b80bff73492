"""The rows of a shard, read with `pread` where the shard says they lie."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.rounds import soundness
from encagg_cli.rounds.compression import decompress_chunk
from encagg_cli.rounds.digest import as_text, bytes_digest
from encagg_cli.rounds.encoding import decode, stored_dtype
from encagg_cli.rounds.hdf5 import pread
from encagg_cli.rounds.layout import VECTOR_AS
from encagg_cli.rounds.shard import Shard, Vector, identity_of

# Of compressed chunks kept unfolded, so that reading block by block does not unfold each of them several times.
KEPT_BYTES: Final = 128 * 2**20


class RowReader:
    """Reads rows of one shard. Safe to use from several threads."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self._dtype = stored_dtype(shard.stored_type)
        self._n_parameters = shard.n_parameters
        self._kept: tuple[int, dict[int, NDArray[np.generic]]] = (-1, {})
        with soundness.reading(shard.path):
            self._descriptor = os.open(shard.path, os.O_RDONLY | os.O_CLOEXEC)
        if identity_of(os.fstat(self._descriptor)) != shard.identity:
            self.close()
            raise UnusableInput(f"{shard.path} was replaced while it was read", hint="read the run again")
        chunk_bytes = shard.chunk_columns * self._dtype.itemsize
        self._keeps = len(shard) * chunk_bytes <= KEPT_BYTES

    def __len__(self) -> int:
        return len(self.shard)

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Fill `out` (rows, stop - start)."""
        for row in range(len(self.shard)):
            self.read_row(row, start, stop, out[row])

    def read_row(self, row: int, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Fill `out` (stop - start,) with columns of one row."""
        if self.shard.stored_type == "float32" and not self.shard.is_compressed and out.flags.c_contiguous:
            self._stored(row, start, stop, out)
            return
        stored = np.empty(stop - start, dtype=self._dtype)
        self._stored(row, start, stop, stored)
        decode(stored, self.shard.stored_type, out)

    def read_vector(self, vector: Vector) -> NDArray[np.float32]:
        out = np.empty(self._n_parameters, dtype=VECTOR_AS)
        self._read(out, vector.offset)
        return out

    def stored_row(self, row: int) -> NDArray[np.generic]:
        """(n_parameters,) of the stored type."""
        stored = np.empty(self._n_parameters, dtype=self._dtype)
        self._stored(row, 0, self._n_parameters, stored)
        return stored

    def checked_row(self, row: int) -> tuple[NDArray[np.generic], bytes]:
        """A row as stored, and its digest. Raises UnusableInput where it is not the one that was stored."""
        stored = self.stored_row(row)
        digest = bytes_digest(stored)
        said = self.shard.row_digests
        if said is not None and bytes(said[row]) != digest:
            raise UnusableInput(f"{self.shard.path}: {self._whose(row)}: its update is damaged")
        return stored, digest

    def checked_vector(self, name: str, vector: Vector) -> NDArray[np.float32]:
        """A global model or root gradient. Raises UnusableInput where it is not the one that was stored."""
        values = self.read_vector(vector)
        if vector.digest is not None and as_text(bytes_digest(values)) != vector.digest:
            raise UnusableInput(f"{self.shard.path}: round {self.shard.number}: its {name} is damaged")
        return values

    def chunks(self, row: int) -> Iterator[tuple[int, bytes]]:
        """The compressed chunks of a row as they lie in the file, each with its first column."""
        for piece in range(self.shard.chunk_offsets.shape[1]):
            yield piece * self.shard.chunk_columns, self._chunk(row, piece)

    def row_digests(self) -> Iterator[bytes]:
        """Hash every row anew."""
        for row in range(len(self.shard)):
            yield bytes_digest(self.stored_row(row))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self._kept = (-1, {})

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self.close()

    def _stored(self, row: int, start: int, stop: int, out: NDArray[np.generic]) -> None:
        columns = self.shard.chunk_columns
        while start < stop:
            piece, within = divmod(start, columns)
            count = min(columns - within, stop - start)
            part = out[:count]
            if self.shard.is_compressed:
                part[...] = self._unfolded(row, piece)[within : within + count]
            else:
                self._read(part, int(self.shard.chunk_offsets[row, piece]) + within * self._dtype.itemsize)
            out = out[count:]
            start += count

    def _unfolded(self, row: int, piece: int) -> NDArray[np.generic]:
        kept_piece, kept = self._kept
        if kept_piece != piece:
            kept = {}
            if self._keeps:
                self._kept = (piece, kept)
        chunk = kept.get(row)
        if chunk is None:
            data = self._chunk(row, piece)
            try:
                chunk = decompress_chunk(data, self.shard.chunk_columns, self._dtype, shuffled=self.shard.is_shuffled)
            except ValueError as error:
                raise UnusableInput(f"{self.shard.path}: {self._whose(row)}: {error}") from None
            kept[row] = chunk
        return chunk

    def _chunk(self, row: int, piece: int) -> bytes:
        data = np.empty(int(self.shard.chunk_bytes[row, piece]), dtype=np.uint8)
        self._read(data, int(self.shard.chunk_offsets[row, piece]))
        return data.tobytes()

    def _whose(self, row: int) -> str:
        return f"round {self.shard.number}, client {self.shard.client_ids[row]!r}"

    def _read(self, out: NDArray[np.generic], offset: int) -> None:
        try:
            pread(self._descriptor, out, offset)
        except EOFError:
            raise UnusableInput(f"{self.shard.path} was cut short") from None
        except OSError as error:
            raise UnusableInput(f"{self.shard.path} cannot be read: {os.strerror(error.errno or 0)}") from error
