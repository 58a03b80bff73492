"""Where a round's rows go in a file that is being written.

HDF5 keeps the book, the rows go around it: space for them is reserved in the file, and they are written there with
`pwrite`. So no HDF5 file stays open (hdf5.py says why), Python's lock is released nearly all the time, and what is on
the disk are plain chunks like any other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import compress_row
from encagg_cli.rounds.digest import ROW_DIGEST_BYTES, as_text, bytes_digest, combine
from encagg_cli.rounds.encoding import stored_dtype
from encagg_cli.rounds.hdf5 import (
    Image,
    allocate,
    changed,
    create_rows,
    parameters_bytes,
    pwrite,
    reserve,
    start_writing_back,
    write_integer_attribute,
    write_parameters,
    write_text_attribute,
    write_texts,
    write_values,
)
from encagg_cli.rounds.layout import Parameter, StoredType, UpdateKind
from encagg_cli.rounds.locks import without_fork

_RESERVED_BYTES: Final = 8 * 2**20  # small rows are reserved many at a time, as many as there are
_RESERVED_ROWS: Final = 64  # what is reserved beyond is not given back as a whole
_GATHERED_BYTES: Final = 16 * 2**20  # of compressed chunks, before the file is opened to take them
_MARGIN_BYTES: Final = 2**16  # for what HDF5 notes of its own
_WRITTEN_BACK_BYTES: Final = 4 * 2**20
_NOTHING_DIRTY: Final = (2**63, 0)  # an empty range of bytes
_FACTS_BYTES: Final = 2 * layout.TEXT_BYTES_LIMIT + 128  # of one upload, at most


@dataclass(frozen=True, slots=True)
class Upload:
    """What is stored of an upload beside its values. `poisoned` is None where nobody knows."""

    client_id: str
    num_examples: int = layout.EXAMPLES_UNKNOWN
    trusted: bool = False
    poisoned: bool | None = None
    attack: str = ""


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """An upload that is in the file, the norm of its stored row, and the digest of the row's bytes."""

    upload: Upload
    norm: float
    digest: bytes


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a round file holds before its first upload.

    vectors        global model and root gradient, (n_parameters,) each, by their names
    new_file       the tensors of a file that is made with the round; none where there is a file already
    expected_rows  how many uploads are likely to come
    """

    session: str
    update_kind: UpdateKind
    created: str
    vectors: Mapping[str, NDArray[np.float32]]
    new_file: Sequence[Parameter] = ()
    expected_rows: int = 0


def begin_file(path: Path, descriptor: int, parameters: Sequence[Parameter]) -> None:
    """Make the empty file at `path`, which `descriptor` refers to, one of ours."""
    allocate(descriptor, _MARGIN_BYTES + parameters_bytes(parameters))
    with changed(path, create=True) as root:
        _describe(root, parameters)


def _describe(root: h5py.h5g.GroupID, parameters: Sequence[Parameter]) -> None:
    write_text_attribute(root, layout.ATTR_FORMAT, layout.FORMAT)
    write_integer_attribute(root, layout.ATTR_VERSION, layout.FORMAT_VERSION)
    write_parameters(root, parameters)
    h5py.h5g.create(root, layout.ROUNDS.encode())


class RoundStorage:
    """One round in the file `path`, open for writing as `descriptor`. Raises OSError where it cannot be written."""

    def __init__(
        self, path: Path, descriptor: int, number: int, n_parameters: int, stored_type: StoredType, *, compressed: bool
    ) -> None:
        self.path = path
        self._descriptor = descriptor
        self._group = f"{layout.ROUNDS}/{layout.round_group_name(number)}"
        self._number = number
        self._n_parameters = n_parameters
        self._stored_type = stored_type
        self._is_compressed = compressed
        self._row_bytes = n_parameters * stored_dtype(stored_type).itemsize
        self._columns = layout.plain_chunk_columns(n_parameters, stored_type)
        self._offsets: list[list[int]] = []  # of each reserved row's chunks
        self._dirty = _NOTHING_DIRTY
        self._image: Image | None = None
        self._places: dict[str, int] = {}

    def begin(self, beginning: Beginning) -> None:
        """Make the round, and the file where it is new. Room is reserved for the expected rows, as far as it is small.

        All of it at once, for each opening of a file costs: closing it, HDF5 cuts it, which waits for the disk.
        """
        most = max(1, _RESERVED_BYTES // self._row_bytes)
        n_rows = 0 if self._is_compressed else min(beginning.expected_rows, most)
        self._image = None
        values = sum(vector.nbytes for vector in beginning.vectors.values()) + n_rows * self._row_bytes
        allocate(self._descriptor, _MARGIN_BYTES + parameters_bytes(beginning.new_file) + values)
        with changed(self.path, create=bool(beginning.new_file)) as root:
            places = self._lay_out(root, beginning, n_rows)
        self._write_vectors(beginning, places)

    def begin_in_memory(self, beginning: Beginning) -> None:
        """Make the round of a new file, of plain rows that are small together, in memory. Nothing is written."""
        image = Image()
        with without_fork():
            self._places = self._lay_out(image.root, beginning, 0)
        self._image = image

    def write_whole(
        self, beginning: Beginning, values: Sequence[NDArray[np.generic]], rows: Sequence[WrittenRow]
    ) -> None:
        """Write what was begun in memory, and its rows: as `begin`, `write_row` and `finish`, in far less time."""
        image, self._image = self._image, None
        assert image is not None  # it was begun
        with without_fork():
            self._conclude(image.root, rows)
            self._extend(self._updates(image.root), len(rows))
        image.write(self._descriptor)
        self._write_vectors(beginning, self._places)
        for index, row in enumerate(values):
            self.write_row(index, row)

    def write_row(self, index: int, row: NDArray[np.generic]) -> None:
        """Write the row (n_parameters,), of the stored type, at `index`: one more than there are, or one of them."""
        if not self._is_compressed:
            if index == len(self._offsets):
                self._reserve()
            for piece, offset in enumerate(self._offsets[index]):
                pwrite(self._descriptor, row[piece * self._columns : (piece + 1) * self._columns], offset)
            self._start_writing_back(self._offsets[index][0], self._offsets[index][-1] + self._row_bytes)
            return
        self.write_chunks(index, compress_row(row))

    def write_chunks(self, index: int, chunks: Iterable[tuple[int, bytes]]) -> None:
        """Write the compressed chunks of a row, each with its first column."""
        gathered: list[tuple[int, bytes]] = []
        size = 0
        for chunk in chunks:
            gathered.append(chunk)
            size += len(chunk[1])
            if size >= _GATHERED_BYTES:
                self._write_gathered(index, gathered, size)
                gathered, size = [], 0
        self._write_gathered(index, gathered, size)

    def move_row(self, source: int, target: int) -> None:
        """Copy a row over another one."""
        with changed(self.path) as root:
            updates = self._updates(root)
            _, columns = updates.get_create_plist().get_chunk()
            for start in range(0, self._n_parameters, columns):
                mask, data = updates.read_direct_chunk((source, start))
                updates.write_direct_chunk((target, start), data, mask)

    def finish(self, rows: Sequence[WrittenRow]) -> None:
        """Write what is known at the end, of the first `len(rows)` rows: facts, norms, digests. The rest is dropped."""
        allocate(self._descriptor, _MARGIN_BYTES + len(rows) * _FACTS_BYTES)
        with changed(self.path) as root:
            self._updates(root).set_extent((len(rows), self._n_parameters))
            self._conclude(root, rows)

    def _lay_out(self, root: h5py.h5g.GroupID, beginning: Beginning, n_rows: int) -> dict[str, int]:
        """Make what stands in the file before the rows, and reserve `n_rows`; where each vector belongs."""
        if beginning.new_file:
            _describe(root, beginning.new_file)
        group = h5py.h5g.create(root, self._group.encode())
        write_integer_attribute(group, layout.ATTR_ROUND, self._number)
        write_text_attribute(group, layout.ATTR_SESSION, beginning.session)
        write_text_attribute(group, layout.ATTR_UPDATE_KIND, beginning.update_kind)
        write_text_attribute(group, layout.ATTR_DTYPE, self._stored_type)
        write_text_attribute(group, layout.ATTR_CREATED, beginning.created)
        updates = create_rows(group, self._n_parameters, self._stored_type, compressed=self._is_compressed)
        places = {}
        for name, vector in beginning.vectors.items():
            dataset = reserve(group, name, vector.shape, layout.VECTOR_AS)
            write_text_attribute(dataset, layout.ATTR_DIGEST, as_text(bytes_digest(vector)))
            places[name] = int(dataset.get_offset())
        if n_rows:
            self._extend(updates, n_rows)
        return places

    def _conclude(self, root: h5py.h5g.GroupID, rows: Sequence[WrittenRow]) -> None:
        """Make what stands in the file after the rows."""
        uploads = [row.upload for row in rows]
        poisoned = [layout.POISONED_UNKNOWN if upload.poisoned is None else int(upload.poisoned) for upload in uploads]
        digests = np.frombuffer(b"".join(row.digest for row in rows), dtype="<u1")
        group = h5py.h5g.open(root, self._group.encode())
        write_texts(group, layout.CLIENT_ID, [upload.client_id for upload in uploads])
        write_texts(group, layout.ATTACK, [upload.attack for upload in uploads])
        examples = np.array([upload.num_examples for upload in uploads], dtype="<i8")
        write_values(group, layout.NUM_EXAMPLES, examples)
        write_values(group, layout.TRUSTED, np.array([upload.trusted for upload in uploads], dtype=bool))
        write_values(group, layout.POISONED, np.array(poisoned, dtype="<i1"))
        write_values(group, layout.NORM, np.array([row.norm for row in rows], dtype="<f8"))
        write_values(group, layout.ROW_DIGEST, digests.reshape(len(rows), ROW_DIGEST_BYTES))
        pairs = ((row.upload.client_id, row.digest) for row in rows)
        write_text_attribute(group, layout.ATTR_DIGEST, combine(pairs, self._stored_type, self._n_parameters))

    def _write_vectors(self, beginning: Beginning, places: Mapping[str, int]) -> None:
        for name, vector in beginning.vectors.items():
            pwrite(self._descriptor, vector, places[name])

    def _reserve(self) -> None:
        begin = len(self._offsets)
        count = begin + max(1, min(begin, _RESERVED_ROWS, _RESERVED_BYTES // self._row_bytes))
        allocate(self._descriptor, _MARGIN_BYTES + (count - begin) * self._row_bytes)
        with changed(self.path) as root:
            self._extend(self._updates(root), count)

    def _extend(self, updates: h5py.h5d.DatasetID, count: int) -> None:
        """Make it `count` rows, and note where their chunks lie."""
        updates.set_extent((count, self._n_parameters))
        for row in range(len(self._offsets), count):
            starts = range(0, self._n_parameters, self._columns)
            infos = [updates.get_chunk_info_by_coord((row, start)) for start in starts]
            self._offsets.append([int(info.byte_offset) for info in infos])

    def _start_writing_back(self, start: int, stop: int) -> None:
        first, last = self._dirty
        self._dirty = min(start, first), max(stop, last)
        if self._dirty[1] - self._dirty[0] >= _WRITTEN_BACK_BYTES:
            start_writing_back(self._descriptor, *self._dirty)
            self._dirty = _NOTHING_DIRTY

    def _write_gathered(self, index: int, chunks: list[tuple[int, bytes]], size: int) -> None:
        allocate(self._descriptor, _MARGIN_BYTES + size)
        with changed(self.path) as root:
            updates = self._updates(root)
            if updates.shape[0] <= index:
                updates.set_extent((index + 1, self._n_parameters))
            for start, data in chunks:
                updates.write_direct_chunk((index, start), data)

    def _updates(self, root: h5py.h5g.GroupID) -> h5py.h5d.DatasetID:
        return h5py.h5d.open(root, f"{self._group}/{layout.UPDATES}".encode())
