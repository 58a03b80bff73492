"""One round file, from the first upload to its publication.

HDF5 keeps the book, the rows go around it: space for them is reserved in the file, and they are written there with
`pwrite`, while another thread hashes them. So no HDF5 file stays open (hdf5.py says why), Python's lock is released
nearly all the time, and what is on the disk are plain chunks like any other.
"""

import fcntl
import os
import shutil
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import NothingToDo, OutputError, OutputExists, UnusableInput, UsageError
from encagg_cli.outputs import sync, writing
from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import COMPRESSIONS, Compression, compress_row
from encagg_cli.rounds.digest import ROW_DIGEST_BYTES, as_text, bytes_digest, combine
from encagg_cli.rounds.directory import locked, round_files
from encagg_cli.rounds.encoding import encode, norm, stored_dtype
from encagg_cli.rounds.estimate import round_bytes
from encagg_cli.rounds.hdf5 import changed, create_rows, pwrite, reserve, write_parameters, write_texts
from encagg_cli.rounds.layout import Parameter, StoredType, UpdateKind
from encagg_cli.rounds.worker import Worker

_RESERVED_BYTES: Final = 8 * 2**20  # small rows are reserved many at a time
_RESERVED_ROWS: Final = 256
_INLINE_BYTES: Final = 2**18  # below, handing a row to another thread takes longer than hashing it
_GATHERED_BYTES: Final = 16 * 2**20  # of compressed chunks, before the file is opened to take them

_hashing = Worker("encagg-hash")


@dataclass(frozen=True, slots=True)
class Upload:
    """What is stored of an upload beside its values. `poisoned` is None where nobody knows."""

    client_id: str
    num_examples: int = layout.EXAMPLES_UNKNOWN
    trusted: bool = False
    poisoned: bool | None = None
    attack: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    upload: Upload
    norm: float
    digest: bytes


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
        self.directory = Path(directory)
        self.number = number
        self.session = session
        self.parameters = tuple(parameters)
        self.n_parameters = sum(parameter.size for parameter in self.parameters)
        self.update_kind = update_kind
        self.stored_type = stored_type
        self.compression = compression
        self.dtype = stored_dtype(stored_type)
        self._check_settings()
        self._force = force
        self._rows: list[_Row] = []
        self._clients: set[str] = set()
        self._offsets: list[list[int]] = []  # of each reserved row's chunks, in the file
        self._descriptor = -1
        _open_writers.add(self)
        with writing(self.directory / layout.round_file_name(number, writer)):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._check_disk(expected_clients, sum(vector is not None for vector in (global_model, root_gradient)))
            self.path = self._choose_name(writer)
            self._partial = self.path.with_name(self.path.name + layout.PARTIAL_SUFFIX)
            self._descriptor = _create_locked(self._partial)
        try:
            with writing(self.path):
                self._begin({layout.GLOBAL_MODEL: global_model, layout.ROOT_GRADIENT: root_gradient})
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
        if update.dtype == self.dtype and self.stored_type != "bfloat16" and update.flags.c_contiguous:
            self.add_stored(upload, update)
            return True
        row = np.empty(self.n_parameters, dtype=self.dtype)
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
                size = norm(row, self.stored_type)
                self._write_row(row)
            else:
                job = _hashing.submit(lambda: bytes_digest(row))
                try:
                    self._write_row(row)
                    size = norm(row, self.stored_type)
                finally:
                    job.wait()  # the caller may reuse the row
                digest = job.result()
        self._clients.add(upload.client_id)
        self._rows.append(_Row(upload, size, digest))

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
        try:
            with writing(self.path):
                os.fdatasync(self._descriptor)  # the bulk, before others have to wait for us
                with locked(self.directory):
                    replaced, twice = self._look_at_others()
                    self._finish(drop=twice)
                    os.fsync(self._descriptor)
                    self._partial.replace(self.path)
                    for path in replaced:
                        path.unlink(missing_ok=True)
                    sync(self.directory)
        except BaseException:
            self.abort()
            raise
        self._release()
        if twice:
            raise UnusableInput(
                f"round {self.number}: client {min(twice)!r} has uploaded already, to another process"
                + (f" ({len(twice)} such clients)" if len(twice) > 1 else ""),
                hint="its first upload stands; the other uploads are stored",
            )
        return self.path

    def abort(self) -> None:
        """Give the round up and remove what was written of it. Does nothing after `close`."""
        if self._descriptor >= 0:
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

    def _check_settings(self) -> None:
        if (
            isinstance(self.number, bool)
            or not isinstance(self.number, int)
            or not 0 <= self.number <= layout.LAST_ROUND
        ):
            raise UsageError(f"a round's number is between 0 and {layout.LAST_ROUND}, not {self.number!r}")
        for what, value, known in (
            ("update_kind", self.update_kind, layout.UPDATE_KINDS),
            ("dtype", self.stored_type, layout.STORED_TYPES),
            ("compression", self.compression, (None, *COMPRESSIONS)),
        ):
            if value not in known:
                raise UsageError(f"{what} {value!r} is not one of {', '.join(map(str, known))}")
        if not self.n_parameters:
            raise UnusableInput(f"round {self.number}: the model has no parameters")

    def _check_disk(self, clients: int, vectors: int) -> None:
        needed = round_bytes(clients, self.n_parameters, self.stored_type, vectors=vectors)
        free = shutil.disk_usage(self.directory).free
        if needed > free and self.compression is None:
            raise OutputError(
                f"{self.directory}: round {self.number} needs about {needed / 1e9:.2g} GB; {free / 1e9:.2g} are free",
                hint="free some space; encagg prune drops old rounds",
            )

    def _choose_name(self, writer: str | None) -> Path:
        others = round_files(self.directory).get(self.number, [])
        foreign = [path for path in others if path.session != self.session]
        if foreign and not self._force:
            raise repeated(self.directory, self.number)
        taken = {path.path.name for path in others if path not in foreign}
        name = layout.round_file_name(self.number, writer)
        attempt = 1
        while name in taken:
            attempt += 1
            name = layout.round_file_name(self.number, f"{writer or 'main'}-{attempt}")
        return self.directory / name

    def _begin(self, vectors: dict[str, NDArray[np.floating] | None]) -> None:
        encoded: dict[str, NDArray[np.float32]] = {}
        for name, vector in vectors.items():
            if vector is not None:
                if vector.shape != (self.n_parameters,):
                    raise UnusableInput(
                        f"round {self.number}: {name} has the shape {vector.shape}, not ({self.n_parameters},)"
                    )
                with np.errstate(over="ignore"):
                    encoded[name] = np.ascontiguousarray(vector, dtype=layout.VECTOR_AS)
        with changed(self._partial, create=True) as file:
            file.attrs[layout.ATTR_FORMAT] = layout.FORMAT
            file.attrs[layout.ATTR_VERSION] = layout.FORMAT_VERSION
            write_parameters(file, self.parameters)
            group = file.create_group(f"{layout.ROUNDS}/{layout.round_group_name(self.number)}")
            group.attrs[layout.ATTR_ROUND] = self.number
            group.attrs[layout.ATTR_SESSION] = self.session
            group.attrs[layout.ATTR_UPDATE_KIND] = self.update_kind
            group.attrs[layout.ATTR_DTYPE] = self.stored_type
            group.attrs[layout.ATTR_CREATED] = datetime.now(UTC).isoformat(timespec="seconds")
            create_rows(group, self.n_parameters, self.stored_type, compressed=self.compression is not None)
            places = {}
            for name, vector in encoded.items():
                places[name] = reserve(group, name, (self.n_parameters,), layout.VECTOR_AS)
                group[name].attrs[layout.ATTR_DIGEST] = as_text(bytes_digest(vector))
        for name, vector in encoded.items():
            pwrite(self._descriptor, vector, places[name])

    def _write_row(self, row: NDArray[np.generic]) -> None:
        index = len(self._rows)
        if self.compression is None:
            if index == len(self._offsets):
                self._reserve_rows()
            columns = layout.plain_chunk_columns(self.n_parameters, self.stored_type)
            for piece, offset in enumerate(self._offsets[index]):
                pwrite(self._descriptor, row[piece * columns : (piece + 1) * columns], offset)
            return
        gathered: list[tuple[int, bytes]] = []
        for chunk in compress_row(row):
            gathered.append(chunk)
            if sum(len(data) for _, data in gathered) >= _GATHERED_BYTES:
                self._write_chunks(index, gathered)
                gathered.clear()
        self._write_chunks(index, gathered)

    def _write_chunks(self, index: int, chunks: list[tuple[int, bytes]]) -> None:
        self._ensure_space(sum(len(data) for _, data in chunks))
        with changed(self._partial) as file:
            updates = self._group(file)[layout.UPDATES]
            if len(updates) <= index:
                updates.resize(index + 1, axis=0)
            for start, data in chunks:
                updates.id.write_direct_chunk((index, start), data)

    def _reserve_rows(self) -> None:
        row_bytes = self.n_parameters * self.dtype.itemsize
        begin = len(self._offsets)
        count = begin + max(1, min(_RESERVED_ROWS, _RESERVED_BYTES // row_bytes))
        columns = layout.plain_chunk_columns(self.n_parameters, self.stored_type)
        self._ensure_space(0)
        with changed(self._partial) as file:
            updates = self._group(file)[layout.UPDATES]
            updates.resize(count, axis=0)
            self._offsets += [
                [
                    int(updates.id.get_chunk_info_by_coord((row, start)).byte_offset)
                    for start in range(0, self.n_parameters, columns)
                ]
                for row in range(begin, count)
            ]

    def _look_at_others(self) -> tuple[list[Path], set[str]]:
        """Files that this one replaces, and clients that another file of the session has already."""
        replaced: list[Path] = []
        present: set[str] = set()
        for other in round_files(self.directory).get(self.number, []):
            if other.session == self.session:
                present.update(other.client_ids())
            elif self._force:
                replaced.append(other.path)
            else:
                raise repeated(self.directory, self.number)
        return [path for path in replaced if path != self.path], present & self._clients

    def _finish(self, drop: set[str]) -> None:
        """Write everything that is known at the end: facts, norms, digests."""
        self._ensure_space(len(self._rows) * 4096)
        with changed(self._partial) as file:
            group = self._group(file)
            updates = group[layout.UPDATES]
            if drop:
                self._drop_rows(updates, drop)
            rows = self._rows
            updates.resize(len(rows), axis=0)
            uploads = [row.upload for row in rows]
            write_texts(group, layout.CLIENT_ID, [upload.client_id for upload in uploads])
            write_texts(group, layout.ATTACK, [upload.attack for upload in uploads])
            group[layout.NUM_EXAMPLES] = np.array([upload.num_examples for upload in uploads], dtype="<i8")
            group[layout.TRUSTED] = np.array([upload.trusted for upload in uploads], dtype=bool)
            group[layout.POISONED] = np.array(
                [layout.POISONED_UNKNOWN if u.poisoned is None else int(u.poisoned) for u in uploads], dtype="<i1"
            )
            group[layout.NORM] = np.array([row.norm for row in rows], dtype="<f8")
            group[layout.ROW_DIGEST] = np.frombuffer(b"".join(row.digest for row in rows), dtype="<u1").reshape(
                len(rows), ROW_DIGEST_BYTES
            )
            pairs = ((row.upload.client_id, row.digest) for row in rows)
            group.attrs[layout.ATTR_DIGEST] = combine(pairs, self.stored_type, self.n_parameters)

    def _drop_rows(self, updates: h5py.Dataset, drop: set[str]) -> None:
        columns = updates.chunks[1]
        index = 0
        while index < len(self._rows):
            if self._rows[index].upload.client_id not in drop:
                index += 1
                continue
            last = len(self._rows) - 1
            if index < last:
                for start in range(0, self.n_parameters, columns):
                    mask, data = updates.id.read_direct_chunk((last, start))
                    updates.id.write_direct_chunk((index, start), data, mask)
            self._rows[index] = self._rows[last]
            self._rows.pop()

    def _group(self, file: h5py.File) -> h5py.Group:
        return file[f"{layout.ROUNDS}/{layout.round_group_name(self.number)}"]

    def _ensure_space(self, n_bytes: int) -> None:
        """Fail while no HDF5 file is open where the disk is full: the library cannot close one that it cannot write."""
        margin = n_bytes + 2**16
        os.posix_fallocate(self._descriptor, os.fstat(self._descriptor).st_size, margin)

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def check_upload(number: int, upload: Upload) -> None:
    """Raise UnusableInput or UsageError where the facts of an upload cannot be stored."""
    for what, text in (("client id", upload.client_id), ("attack", upload.attack)):
        if not isinstance(text, str):
            raise UsageError(f"round {number}: a {what} is text, not {text!r}")
        try:
            encoded = text.encode()
        except UnicodeEncodeError:
            raise UnusableInput(f"round {number}: the {what} {text!r} is not valid Unicode") from None
        if len(encoded) > layout.TEXT_BYTES_LIMIT or b"\0" in encoded:
            shown = text if len(text) < 40 else text[:40] + "…"
            raise UnusableInput(
                f"round {number}: the {what} {shown!r} holds NUL or is longer than {layout.TEXT_BYTES_LIMIT} bytes"
            )
    if not upload.client_id:
        raise UnusableInput(f"round {number}: a client id is empty")
    if not layout.EXAMPLES_UNKNOWN <= upload.num_examples < 2**63:
        raise UnusableInput(f"round {number}, client {upload.client_id!r}: {upload.num_examples} examples")


def repeated(directory: Path, number: int) -> OutputExists:
    return OutputExists(
        f"{directory}: round {number} is stored already, by another session",
        hint="record into another folder, or --force (force=True) to replace it",
    )


def _create_locked(partial: Path) -> int:
    """Create a partial file that is locked while this process lives; one whose writer died is replaced."""
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OutputError(f"{partial} is being written by another process") from None
        except OSError:
            os.close(descriptor)
            raise
        try:
            if os.stat(partial).st_ino == os.fstat(descriptor).st_ino:  # noqa: PTH116 - to be compared with fstat
                os.ftruncate(descriptor, 0)
                os.fchmod(descriptor, 0o600)
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # it was published or removed between open and lock


def _let_go_in_child() -> None:
    """A forked child would hold the lock of a file whose writer is dead; it neither writes nor removes it."""
    for writer in list(_open_writers):
        writer._release()


_open_writers: "weakref.WeakSet[RoundWriter]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_let_go_in_child)
