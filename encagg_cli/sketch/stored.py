"""A stored round as a source: some of its rows, or of its vectors' columns, without reading the others."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.rounds.encoding import stored_dtype
from encagg_cli.rounds.hdf5 import pread
from encagg_cli.rounds.layout import Parameter, UpdateKind
from encagg_cli.rounds.reader import StoredRound
from encagg_cli.rounds.rows import KEPT_BYTES
from encagg_cli.rounds.shard import identity_of

GLOBAL_MODEL = "global_model"
ROOT_GRADIENT = "root_gradient"
LAST_STEP = "last_step"

Columns = NDArray[np.float32]

_preadv: Any = getattr(os, "preadv", None)  # not on every system


class StoredSource:
    """One round of a run. Plain float32 rows are read straight into place; any number of threads may read at once.

    `before` is the round just before this one, where it is stored: the last step is the difference of the two global
    models.
    """

    def __init__(self, stored: StoredRound, before: StoredRound | None = None) -> None:
        self.stored = stored
        self._before = before
        self._offsets = stored.row_offsets() if stored.stored_type == "float32" else None
        self._files: dict[Path, int] = {}
        self._lock = Lock()
        shards = (*stored.shards, *(before.shards if before is not None else ()))
        self._identities = {shard.path: shard.identity for shard in shards}
        self._vectors = {
            GLOBAL_MODEL: _place(stored, GLOBAL_MODEL),
            ROOT_GRADIENT: _place(stored, ROOT_GRADIENT),
        }
        self._model_before = None if before is None else _place(before, GLOBAL_MODEL)

    @property
    def number(self) -> int:
        return self.stored.number

    @property
    def client_ids(self) -> Sequence[str]:
        return self.stored.client_ids

    @property
    def norms(self) -> NDArray[np.float64]:
        return self.stored.norms

    @property
    def trusted(self) -> NDArray[np.bool_]:
        return self.stored.trusted

    @property
    def num_examples(self) -> NDArray[np.int64]:
        return self.stored.num_examples

    @property
    def parameters(self) -> Sequence[Parameter]:
        return self.stored.parameters

    @property
    def n_parameters(self) -> int:
        return self.stored.n_parameters

    @property
    def update_kind(self) -> UpdateKind:
        return self.stored.update_kind

    def files(self, needs_before: bool) -> tuple[Path, ...]:
        """The files that are read; with `needs_before`, those of the last step as well."""
        before = [self._model_before[0]] if needs_before and self._model_before is not None else []
        return (*(shard.path for shard in self.stored.shards), *before)

    @property
    def is_plain(self) -> bool:
        """Whether any columns of a row can be read without the rest of it."""
        return not any(shard.is_compressed for shard in self.stored.shards)

    @property
    def unfolded_bytes(self) -> int:
        """Bytes of compressed chunks that a process keeps unfolded while it reads them."""
        item = stored_dtype(self.stored.stored_type).itemsize
        chunks = [len(shard) * shard.chunk_columns * item for shard in self.stored.shards if shard.is_compressed]
        return sum(size for size in chunks if size <= KEPT_BYTES)

    def read_columns(self, start: int, stop: int, out: Columns) -> None:
        self.stored.read_columns(start, stop, out)

    def read_rows(self, rows: NDArray[np.intp], start: int, stop: int, out: Columns) -> None:
        if self._offsets is None:
            if len(rows) == len(self.client_ids) and np.array_equal(rows, np.arange(len(rows))):
                self.stored.read_columns(start, stop, out)
            else:
                everything = np.empty((len(self.client_ids), stop - start), dtype=np.float32)
                self.stored.read_columns(start, stop, everything)
                np.take(everything, rows, axis=0, out=out)
            return
        for target, row in enumerate(rows.tolist()):
            path, offset = self._offsets[row]
            self._read(path, offset + 4 * start, out[target])

    @property
    def vector_names(self) -> frozenset[str]:
        names = {name for name, place in self._vectors.items() if place is not None}
        if GLOBAL_MODEL in names and self._model_before is not None:
            names.add(LAST_STEP)
        return frozenset(names)

    def read_vector(self, name: str, start: int, stop: int, out: Columns) -> None:
        if name == LAST_STEP:
            self.read_vector(GLOBAL_MODEL, start, stop, out)
            before = np.empty_like(out)
            assert self._model_before is not None
            self._read_place(self._model_before, start, before)
            with np.errstate(invalid="ignore", over="ignore"):
                np.subtract(out, before, out=out)
            return
        place = self._vectors[name]
        assert place is not None
        self._read_place(place, start, out)

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        with self._lock:
            files, self._files = self._files, {}
        for descriptor in files.values():
            os.close(descriptor)
        self.stored.close()
        if self._before is not None:
            self._before.close()

    def _read_place(self, place: tuple[Path, int], start: int, out: Columns) -> None:
        path, offset = place
        self._read(path, offset + 4 * start, out)

    def _read(self, path: Path, offset: int, out: Columns) -> None:
        descriptor = self._files.get(path)
        try:
            if descriptor is None:
                with self._lock:
                    if path not in self._files:
                        self._files[path] = self._open(path)
                    descriptor = self._files[path]
            if _preadv is None or _preadv(descriptor, [out], offset) != out.nbytes:
                pread(descriptor, out, offset)
        except EOFError:
            raise UnusableInput(f"{path} was cut short") from None
        except OSError as error:
            raise UnusableInput(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error

    def _open(self, path: Path) -> int:
        """Open a file, if it still is the one whose rows were looked up."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if identity_of(os.fstat(descriptor)) != self._identities[path]:
            os.close(descriptor)
            raise UnusableInput(f"{path} was replaced while it was read", hint="read the run again")
        return descriptor


def _place(stored: StoredRound, name: str) -> tuple[Path, int] | None:
    """File and byte at which a vector begins; the vectors of a round are the same in all its shards that have them."""
    for shard in stored.shards:
        vector = getattr(shard, name)
        if vector is not None:
            return shard.path, vector.offset
    return None
