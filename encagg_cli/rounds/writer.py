"""One round file, from the first upload to its publication."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import NothingToDo, OutputError, OutputExists, UnusableInput
from encagg_cli.outputs import sync, writing
from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import Compression
from encagg_cli.rounds.digest import bytes_digest
from encagg_cli.rounds.directory import create_locked, files_of_round, locked
from encagg_cli.rounds.encoding import encode, norm, stored_dtype
from encagg_cli.rounds.estimate import human_bytes, round_bytes
from encagg_cli.rounds.gathered import GatheredRound
from encagg_cli.rounds.hdf5 import fdatasync
from encagg_cli.rounds.layout import Parameter, StoredType, UpdateKind
from encagg_cli.rounds.limits import check_settings, check_upload
from encagg_cli.rounds.locks import LockedFile
from encagg_cli.rounds.replacing import replacing
from encagg_cli.rounds.storage import Beginning, RoundStorage, Upload, WrittenRow
from encagg_cli.rounds.worker import Worker

_INLINE_BYTES: Final = 2**18  # below, handing a row to another thread takes longer than hashing it

_BULK_BYTES: Final = 2**22  # below, waiting for the disk once more takes longer than the disk needs for them

_hashing = Worker("encagg-hash")

# The garbage collector ends what it collects in any order: a writer that is forgotten needs its file to the last.
_files: Final[set[LockedFile]] = set()


class RoundWriter:
    """Writes `round-000012.h5` in `directory`: `add` uploads, then `close` to publish, or `abort`.

    The file is a `.partial`, locked by this process, until `close` has fsynced and renamed it. A round that another
    session has stored is refused with OutputExists (exit 2) unless `force`; then it is replaced when this one is
    published. Where the session itself has stored a part of the round, this file becomes a further shard of it.
    `writer` names this process's shards. `global_model` and `root_gradient` are vectors (n_parameters,).

    Raises UsageError for what cannot be meant, OutputError (exit 6) where the file cannot be written, or where
    `expected_clients` uploads would not fit on the disk.
    """

    def __init__(
        self,
        directory: str | Path,
        number: int,
        *,
        session: str,
        parameters: Sequence[Parameter],
        update_kind: UpdateKind = "delta",
        stored_type: StoredType = "float32",
        compression: Compression | None = None,
        writer: str | None = None,
        global_model: NDArray[np.floating] | None = None,
        root_gradient: NDArray[np.floating] | None = None,
        force: bool = False,
        expected_clients: int = 1,
    ) -> None:
        self._file: LockedFile | None = None
        self.directory = Path(directory)
        self.number = number
        self.session = session
        self.parameters = tuple(parameters)
        self.n_parameters = sum(parameter.size for parameter in self.parameters)
        self.stored_type = stored_type
        check_settings(number, self.parameters, update_kind, stored_type, compression)
        self._dtype = stored_dtype(stored_type)
        self._row_bytes = self.n_parameters * self._dtype.itemsize
        self._force = force
        self._rows: list[WrittenRow] = []
        self._clients: set[str] = set()
        given = {layout.GLOBAL_MODEL: global_model, layout.ROOT_GRADIENT: root_gradient}
        vectors = {name: self._vector(name, vector) for name, vector in given.items() if vector is not None}
        with writing(self.directory / layout.round_file_name(number, writer)):
            self.directory.mkdir(parents=True, exist_ok=True)
            if compression is None:
                needed = round_bytes(expected_clients, self.n_parameters, stored_type, vectors=len(vectors))
                _check_disk(self.directory, number, needed)
            self.path = self._choose_name(writer)
            self._partial = self.path.with_name(self.path.name + layout.PARTIAL_SUFFIX)
            self._file = create_locked(self._partial)
            _files.add(self._file)
            try:
                storage = RoundStorage(
                    self._partial,
                    self._file.descriptor,
                    number,
                    self.n_parameters,
                    stored_type,
                    compressed=compression is not None,
                )
                created = datetime.now(UTC).isoformat(timespec="seconds")
                beginning = Beginning(
                    session, update_kind, created, vectors, new_file=self.parameters, expected_rows=expected_clients
                )
                self._storage: RoundStorage | GatheredRound = storage
                if compression is None:
                    self._storage = GatheredRound(storage, beginning, row_bytes=self._row_bytes)
                else:
                    storage.begin(beginning)
            except BaseException:
                self.abort()
                raise

    def add(
        self,
        client_id: str,
        update: NDArray[np.floating],
        *,
        num_examples: int = layout.EXAMPLES_UNKNOWN,
        trusted: bool = False,
        poisoned: bool | None = None,
        attack: str = "",
    ) -> bool:
        """Write one upload, a vector (n_parameters,) of any float type; returns whether it is within the stored range.

        Values beyond it (float16 ends at 65,504) are stored as infinite, which makes the upload a non-finite one.
        Raises UnusableInput for a second upload of a client, or one of another length; the round can go on.
        """
        upload = Upload(client_id, num_examples, trusted, poisoned, attack)
        self.check(upload)
        if update.shape != (self.n_parameters,):
            raise UnusableInput(
                f"round {self.number}, client {client_id!r}: an update of shape {update.shape}, "
                f"where ({self.n_parameters},) was expected"
            )
        if update.dtype == self._dtype and self.stored_type != "bfloat16" and update.flags.c_contiguous:
            self.add_stored(upload, update)
            return True
        row = np.empty(self.n_parameters, dtype=self._dtype)
        overflowed = encode(update, self.stored_type, row)
        self.add_stored(upload, row)
        return not overflowed

    def check(self, upload: Upload) -> None:
        """Raise UnusableInput or UsageError where this upload cannot be added."""
        check_upload(self.number, upload)
        if upload.client_id in self._clients:
            raise UnusableInput(f"round {self.number}: client {upload.client_id!r} has uploaded already")

    def add_stored(self, upload: Upload, row: NDArray[np.generic]) -> None:
        """Write an upload that passed `check` and whose row (n_parameters,) is encoded already."""
        with writing(self.path):
            if row.nbytes < _INLINE_BYTES:
                digest = bytes_digest(row)
                self._storage.write_row(len(self._rows), row)
                size = norm(row, self.stored_type)
            else:
                job = _hashing.submit(lambda: bytes_digest(row))
                try:
                    self._storage.write_row(len(self._rows), row)
                    size = norm(row, self.stored_type)
                finally:
                    job.wait()  # the caller may reuse the row
                digest = job.result()
        self._clients.add(upload.client_id)
        self._rows.append(WrittenRow(upload, size, digest))

    @property
    def client_ids(self) -> tuple[str, ...]:
        """The clients so far, in order of arrival."""
        return tuple(row.upload.client_id for row in self._rows)

    def close(self) -> Path:
        """Publish the round and return its path; when this returns, it is on the disk.

        Raises NothingToDo where nothing was added (no file is left), OutputExists where another session published this
        round meanwhile, UnusableInput where another process of the session published an upload of the same client: the
        first one stands, the rest of this file is published, and the error says so.
        """
        if not self._rows:
            self.abort()
            raise NothingToDo(f"round {self.number} received no uploads: nothing is stored")
        assert self._file is not None  # it has rows
        try:
            with writing(self.path):
                if len(self._rows) * self._row_bytes >= _BULK_BYTES:
                    fdatasync(self._file.descriptor)  # before others have to wait for us
                with locked(self.directory):
                    replaced, twice = self._look_at_others()
                    with replacing(self.path, os.fstat(self._file.descriptor).st_ino, replaced):
                        self._publish(self._file, twice)
                        sync(self.directory)
        except BaseException:
            self.abort()
            raise
        self._release()
        if twice:
            more = f" (and {len(twice) - 1} more such clients)" if len(twice) > 1 else ""
            raise UnusableInput(
                f"round {self.number}: client {min(twice)!r} has uploaded already, to another process{more}",
                hint="its first upload stands; the other uploads are stored",
            )
        return self.path

    def abort(self) -> None:
        """Give the round up and remove what was written of it. Does nothing after `close`."""
        if self._file is not None and self._file.descriptor >= 0:  # not in a forked child
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        with suppress(Exception):
            self.abort()

    def _vector(self, name: str, vector: NDArray[np.floating]) -> NDArray[np.float32]:
        if vector.shape != (self.n_parameters,):
            raise UnusableInput(f"round {self.number}: {name} has the shape {vector.shape}, not ({self.n_parameters},)")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(vector, dtype=layout.VECTOR_AS)

    def _choose_name(self, writer: str | None) -> Path:
        others = files_of_round(self.directory, self.number)
        foreign = [other for other in others if other.session != self.session]
        if foreign and not self._force:
            raise repeated(self.directory, self.number)
        taken = {other.path.name for other in others if other not in foreign}
        name = layout.round_file_name(self.number, writer)
        attempt = 1
        while name in taken:
            attempt += 1
            name = layout.round_file_name(self.number, f"{writer or 'main'}-{attempt}")
        return self.directory / name

    def _look_at_others(self) -> tuple[list[Path], set[str]]:
        """Files that this one replaces, and clients that another file of the session has already."""
        replaced: list[Path] = []
        present: set[str] = set()
        for other in files_of_round(self.directory, self.number):
            if other.session == self.session:
                present.update(other.client_ids())
            elif self._force:
                replaced.append(other.path)
            else:
                raise repeated(self.directory, self.number)
        return [path for path in replaced if path != self.path], present & self._clients

    def _publish(self, file: LockedFile, without: set[str]) -> None:
        index = 0
        while index < len(self._rows):
            if self._rows[index].upload.client_id in without:
                last = len(self._rows) - 1
                if index < last:
                    self._storage.move_row(last, index)
                self._rows[index] = self._rows[last]
                self._rows.pop()
            else:
                index += 1
        if not self._rows:  # all of them are with another process already
            self._partial.unlink()
            return
        self._storage.finish(self._rows)
        os.fsync(file.descriptor)
        self._partial.replace(self.path)

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            _files.discard(file)
            file.close()


def repeated(directory: Path, number: int) -> OutputExists:
    return OutputExists(
        f"{directory}: round {number} is stored already, by another session",
        hint="record into another folder, or --force (force=True) to replace it",
    )


def _check_disk(directory: Path, number: int, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OutputError(
            f"{directory}: round {number} needs about {human_bytes(needed)}, and the disk has {human_bytes(free)} free",
            hint="free some space; encagg prune drops old rounds",
        )
