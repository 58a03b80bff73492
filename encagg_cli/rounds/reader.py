"""A run, read back: a directory of round files, or one packed file.

Rows are read around the HDF5 library, with `pread` at the places that it names: blocks of columns without loading a
round whole, from any number of threads, and nothing that a file says can make more of memory than was asked for.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import NothingToDo, RoundNotFound, UnusableInput
from encagg_cli.rounds import layout
from encagg_cli.rounds.digest import combine
from encagg_cli.rounds.directory import partial_files, round_files
from encagg_cli.rounds.layout import Parameter, StoredType, UpdateKind
from encagg_cli.rounds.rows import RowReader
from encagg_cli.rounds.shard import Shard, read_outline, read_shard


class Run:
    """The stored rounds of one training. `rounds` are their numbers, ascending."""

    def __init__(self, path: Path, parameters: tuple[Parameter, ...], files: dict[int, tuple[Path, ...]]) -> None:
        self.path = path
        self.parameters = parameters
        self.n_parameters = sum(parameter.size for parameter in parameters)
        self.rounds = tuple(sorted(files))
        self._files = files

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run's directory or a packed file.

        Raises UnusableInput where it is none or is damaged, NothingToDo where it holds no round.
        """
        path = Path(path)
        if not path.exists():
            raise UnusableInput(f"there is no run {path}", hint="encagg capture makes one")
        if path.is_dir():
            files = {number: tuple(f.path for f in found) for number, found in round_files(path).items()}
            if files:
                return cls(path, read_outline(next(iter(files.values()))[0])[0], files)
            interrupted = partial_files(path)
        else:
            parameters, numbers = read_outline(path)
            if numbers:
                return cls(path, parameters, dict.fromkeys(numbers, (path,)))
            interrupted = []
        raise NothingToDo(
            f"{path} holds no round" + (f", only {len(interrupted)} unfinished" if interrupted else ""),
            hint="a run is recorded with encagg capture",
        )

    @property
    def n_bytes(self) -> int:
        """What the run takes on the disk, in bytes."""
        return sum(path.stat().st_size for path in {path for paths in self._files.values() for path in paths})

    def round(self, number: int) -> "StoredRound":
        """One round. Raises RoundNotFound, or UnusableInput where its files are damaged or disagree."""
        if number not in self._files:
            raise RoundNotFound(
                f"{self.path} has no round {number}", hint=f"it has rounds {self.rounds[0]} to {self.rounds[-1]}"
            )
        shards = [read_shard(path, number) for path in self._files[number]]
        for shard in shards:
            if shard.parameters != self.parameters:
                raise UnusableInput(
                    f"{shard.path} holds updates of another model than {self._files[self.rounds[0]][0].name}",
                    hint="a run holds the rounds of one model",
                )
        return StoredRound(shards)

    def __iter__(self) -> Iterator["StoredRound"]:
        for number in self.rounds:
            with self.round(number) as stored:
                yield stored

    def __len__(self) -> int:
        return len(self.rounds)

    def close(self) -> None:
        """Nothing stays open between reads; a run can be closed for symmetry."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StoredRound:
    """One round of a run, its shards merged; rows are in the order of `client_ids`. A `sketch.ColumnSource`.

    norms          (clients,) float64, of each row as stored; not finite where the row is not
    num_examples   (clients,) int64, -1 unknown
    trusted        (clients,) bool
    poisoned       (clients,) int8, -1 unknown, 0 honest, 1 poisoned
    attack         one text a client, "" unknown or none
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        """Merge the shards of a round. Raises UnusableInput where they do not belong together."""
        _check_shards(shards)
        first = shards[0]
        self.shards = tuple(shards)
        self.number = first.number
        self.session = first.session
        self.update_kind: UpdateKind = first.update_kind
        self.stored_type: StoredType = first.stored_type
        self.created = min(shard.created for shard in shards)
        self.parameters = first.parameters
        self.n_parameters = first.n_parameters
        self.client_ids = tuple(client for shard in shards for client in shard.client_ids)
        self.attack = tuple(attack for shard in shards for attack in shard.attack)
        self.norms: NDArray[np.float64] = np.concatenate([shard.norms for shard in shards])
        self.num_examples: NDArray[np.int64] = np.concatenate([shard.num_examples for shard in shards])
        self.trusted: NDArray[np.bool_] = np.concatenate([shard.trusted for shard in shards])
        self.poisoned: NDArray[np.int8] = np.concatenate([shard.poisoned for shard in shards])
        self._readers: tuple[RowReader, ...] | None = None
        self._pid = 0

    @cached_property
    def digest(self) -> str:
        """The digest of the updates; of several shards combined as FORMAT.md says."""
        if len(self.shards) == 1:
            return self.shards[0].digest
        pairs = [
            (client, digest)
            for shard, reader in zip(self.shards, self._open(), strict=True)
            for client, digest in zip(
                shard.client_ids,
                map(bytes, shard.row_digests) if shard.row_digests is not None else reader.row_digests(),
                strict=True,
            )
        ]
        return combine(pairs, self.stored_type, self.n_parameters)

    @property
    def has_global_model(self) -> bool:
        return any(shard.global_model is not None for shard in self.shards)

    @property
    def has_root_gradient(self) -> bool:
        return any(shard.root_gradient is not None for shard in self.shards)

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Fill `out`, of shape (clients, stop - start), with those columns of every client, as float32."""
        if not 0 <= start <= stop <= self.n_parameters or out.shape != (len(self.client_ids), stop - start):
            raise ValueError(f"columns {start}:{stop} of {len(self.client_ids)} clients do not fit {out.shape}")
        begin = 0
        for reader in self._open():
            reader.read_columns(start, stop, out[begin : begin + len(reader)])
            begin += len(reader)

    def rows(self, indices: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float32]:
        """(len(indices), n_parameters) float32: some clients' whole updates."""
        out = np.empty((len(indices), self.n_parameters), dtype=np.float32)
        readers = self._open()
        starts = np.cumsum([0, *map(len, readers)])
        for target, index in enumerate(indices):
            if not 0 <= index < starts[-1]:
                raise IndexError(f"round {self.number} has no row {index}")
            which = int(np.searchsorted(starts, index, side="right")) - 1
            readers[which].read_row(int(index - starts[which]), 0, self.n_parameters, out[target])
        return out

    def global_model(self) -> NDArray[np.float32] | None:
        """(n_parameters,): the model that the round started from, where it is stored."""
        return self._vector(layout.GLOBAL_MODEL)

    def root_gradient(self) -> NDArray[np.float32] | None:
        """(n_parameters,): the server's own gradient on trusted data, where it is stored."""
        return self._vector(layout.ROOT_GRADIENT)

    def row_offsets(self) -> list[tuple[Path, int]] | None:
        """(file, byte) at which each client's row begins, as stored; None unless each row lies in one piece."""
        if any(shard.is_compressed or shard.chunk_offsets.shape[1] != 1 for shard in self.shards):
            return None
        return [(shard.path, int(offset)) for shard in self.shards for offset in shard.chunk_offsets[:, 0]]

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        readers, self._readers = self._readers, None
        for reader in readers or ():
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": None}  # a worker that is sent a round opens its files itself

    def _open(self) -> tuple[RowReader, ...]:
        if self._readers is None or self._pid != os.getpid():
            self._readers, self._pid = tuple(RowReader(shard) for shard in self.shards), os.getpid()
        return self._readers

    def _vector(self, name: str) -> NDArray[np.float32] | None:
        for reader, shard in zip(self._open(), self.shards, strict=True):
            if name in shard.vectors:
                return reader.read_vector(shard.vectors[name])
        return None


def _check_shards(shards: Sequence[Shard]) -> None:
    first = shards[0]
    for shard in shards[1:]:
        if shard.session != first.session:
            raise UnusableInput(
                f"{shard.path} and {first.path.name} hold the same round of two sessions",
                hint="one of them is a repeat that was not finished: remove it",
            )
        for what in ("parameters", "update_kind", "stored_type"):
            if getattr(shard, what) != getattr(first, what):
                raise UnusableInput(f"{shard.path} and {first.path.name} disagree on their {what.replace('_', ' ')}")
        for what in ("global_model", "root_gradient"):
            mine, others = getattr(shard, what), getattr(first, what)
            if mine and others and mine.digest and others.digest and mine.digest != others.digest:
                raise UnusableInput(f"{shard.path} and {first.path.name} disagree on their {what.replace('_', ' ')}")
    ids: set[str] = set()
    for shard in shards:
        twice = ids.intersection(shard.client_ids)
        if twice:
            raise UnusableInput(f"{shard.path}: round {first.number}: client {min(twice)!r} has two uploads")
        ids.update(shard.client_ids)
