"""Files opened for writing through HDF5: for a moment only, and never across a fork.

HDF5 keeps changed metadata in memory and writes it when a file is closed, at the latest when the process exits. A
forked child that inherited an open file would do so too, over its parent's file. So a file is opened, changed and
closed at once, and a fork waits for that. The rows themselves are written around HDF5 (see writer.py).
"""

import errno
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import LEVEL, chunk_columns
from encagg_cli.rounds.layout import Parameter, StoredType
from encagg_cli.rounds.locks import without_fork

# The oldest layout that has all we need, and none that only the newest library reads.
_LIBRARY_VERSIONS: Final = (h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_V110)
_ERRNO_IN_TEXT: Final = re.compile(r"errno = ([0-9]+)")
_image_numbers = itertools.count()
_IMAGE_STEP: Final = 2**14  # bytes by which a file in memory grows

Owner: TypeAlias = h5py.h5g.GroupID | h5py.h5d.DatasetID
"""Where attributes are: h5py's own objects for groups and datasets take longer to make than what they are for."""


@contextmanager
def changed(path: Path, *, create: bool = False) -> Iterator[h5py.h5g.GroupID]:
    """Open an HDF5 file to change it, yield its root, and close it again. Only one file of a process is open like this.

    HDF5's own locks are off: who may write is decided above (locks.py), and they fail on some network filesystems.
    Raises OSError where the file cannot be written, also where HDF5 learns of it only when it closes the file.
    """
    access = _access()
    access.set_file_locking(False, True)
    access.set_sieve_buf_size(0)  # of an error in writing values later, h5py would tell nobody
    name = os.fsencode(path)
    try:
        with without_fork():
            if create:
                file = h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fapl=access)
            else:
                file = h5py.h5f.open(name, h5py.h5f.ACC_RDWR, fapl=access)
            try:
                yield h5py.h5g.open(file, b"/")
            finally:
                file.close()
    except RuntimeError as error:  # what h5py makes of an error of the system in closing; its number is in the text
        found = _ERRNO_IN_TEXT.search(str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error


class Image:
    """A new HDF5 file that is made in memory, below `root`, and written when it is complete.

    For files that are small: on the disk, HDF5 cuts a file when it closes it, and waits for that. A forked child that
    inherits one has a copy, which is written nowhere. One that is forgotten is closed.
    """

    def __init__(self) -> None:
        access = _access()
        access.set_fapl_core(_IMAGE_STEP, backing_store=False)
        # HDF5 tells files in memory by their names, and first reads a file of that name: there can be none of this one.
        name = f"{os.devnull}/image-{next(_image_numbers)}"
        with without_fork():
            self._file = h5py.h5f.create(name.encode(), h5py.h5f.ACC_TRUNC, fapl=access)
            self.root = h5py.h5g.open(self._file, b"/")

    def write(self, descriptor: int) -> None:
        """Write it into an empty file, and close it. Raises OSError where it cannot be written."""
        with without_fork():
            h5py.h5f.flush(self._file)
            data = self._file.get_file_image()
            self._file.close()
        pwrite(descriptor, np.frombuffer(data, dtype=np.uint8), 0)


def _access() -> h5py.h5p.PropFAID:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(*_LIBRARY_VERSIONS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    return access


def write_text_attribute(owner: Owner, name: str, text: str) -> None:
    """Give a group or dataset a text. As `owner.attrs[name] = text` does, in a quarter of the time."""
    attribute = h5py.h5a.create(owner, name.encode(), _TEXT_TYPE, _space(()))
    attribute.write(np.array(text, dtype=_TEXT), mtype=_TEXT_IN_MEMORY)


def write_integer_attribute(owner: Owner, name: str, number: int) -> None:
    """Give a group or dataset a number."""
    attribute = h5py.h5a.create(owner, name.encode(), h5py.h5t.STD_I64LE, _space(()))
    attribute.write(np.array(number, dtype="<i8"), mtype=h5py.h5t.STD_I64LE)


# To make such an object takes as long as what a small dataset needs it for.


@lru_cache(maxsize=64)
def _space(shape: tuple[int, ...]) -> h5py.h5s.SpaceID:
    return h5py.h5s.create_simple(shape)


@lru_cache(maxsize=16)
def _number_type(dtype: str) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(np.dtype(dtype), logical=True)


@lru_cache(maxsize=64)
def _text_type(length: int) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(h5py.string_dtype("utf-8", length), logical=True)


def _creation() -> h5py.h5p.PropDCID:
    """Of a dataset without the time at which it was made: the same round makes the same file."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    return creation


_SMALL: Final = _creation()
_TEXT: Final = h5py.string_dtype()
_TEXT_TYPE: Final = h5py.h5t.py_create(_TEXT, logical=True)
_TEXT_IN_MEMORY: Final = h5py.h5t.py_create(_TEXT)


def create_rows(
    group: h5py.h5g.GroupID, n_parameters: int, stored_type: StoredType, *, compressed: bool
) -> h5py.h5d.DatasetID:
    """Make the dataset of updates, with no rows yet.

    Plain rows are reserved when the dataset grows, and never filled; compressed chunks find their place one by one.
    """
    creation = _creation()
    if compressed:
        creation.set_chunk((1, chunk_columns(n_parameters)))
        creation.set_shuffle()
        creation.set_deflate(LEVEL)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_INCR)
    else:
        creation.set_chunk((1, layout.plain_chunk_columns(n_parameters, stored_type)))
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((0, n_parameters), (h5py.h5s.UNLIMITED, n_parameters))
    kind = h5py.h5t.py_create(np.dtype(layout.STORED_AS[stored_type]))
    return h5py.h5d.create(group, layout.UPDATES.encode(), kind, space, creation)


def write_parameters(root: h5py.h5g.GroupID, parameters: Sequence[Parameter]) -> None:
    """Store names, shapes, offsets and roles of the tensors."""
    group = h5py.h5g.create(root, layout.PARAMETERS.encode())
    write_texts(group, layout.PARAMETER_NAME, [parameter.name for parameter in parameters])
    write_texts(group, layout.PARAMETER_SHAPE, [json.dumps(list(parameter.shape)) for parameter in parameters])
    offsets = np.array([parameter.offset for parameter in parameters], dtype="<i8")
    write_values(group, layout.PARAMETER_OFFSET, offsets)
    write_texts(group, layout.PARAMETER_ROLE, [parameter.role for parameter in parameters])


def parameters_bytes(parameters: Sequence[Parameter]) -> int:
    """At most so many bytes of values does `write_parameters` write."""
    names = max((len(parameter.name.encode()) for parameter in parameters), default=0)
    shapes = max((len(json.dumps(list(parameter.shape))) for parameter in parameters), default=0)
    roles = max((len(parameter.role) for parameter in parameters), default=0)
    return len(parameters) * (names + shapes + max(1, roles) + 8)


def reserve(group: h5py.h5g.GroupID, name: str, shape: tuple[int, ...], dtype: str) -> h5py.h5d.DatasetID:
    """Make a contiguous dataset whose values have their place in the file; none are written."""
    creation = _creation()
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return h5py.h5d.create(
        group, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape), creation
    )


def write_texts(group: h5py.h5g.GroupID, name: str, texts: Sequence[str]) -> None:
    """Store texts as UTF-8 of one fixed length, padded with NUL: their size is known before they are read."""
    encoded = [text.encode() for text in texts]
    length = max((len(text) for text in encoded), default=1) or 1
    _write_small(group, name, np.array(encoded, dtype=f"S{length}"), _text_type(length))


def write_values(group: h5py.h5g.GroupID, name: str, values: NDArray[Any]) -> None:
    """Store a small array of numbers. As `group.create_dataset` does, in a quarter of the time."""
    _write_small(group, name, values, _number_type(values.dtype.str))


def _write_small(group: h5py.h5g.GroupID, name: str, values: NDArray[Any], kind: h5py.h5t.TypeID) -> None:
    dataset = h5py.h5d.create(group, name.encode(), kind, _space(values.shape), _SMALL)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=kind)


def allocate(descriptor: int, n_bytes: int) -> None:
    """Fail now where the disk cannot take so much, and not while HDF5 has a file open: it could not even close it."""
    end = os.fstat(descriptor).st_size
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, end, n_bytes)
    else:
        os.pwrite(descriptor, bytes(n_bytes), end)


def start_writing_back(descriptor: int, start: int, stop: int) -> None:
    """Have the system begin to write these bytes of a file to the disk, and do not wait for it.

    Where it would begin by itself only after half a minute, or when somebody waits for an fsync, that wait becomes
    short. (Linux writes dirty pages that it is told nobody needs; they stay in memory until they are written.)
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_DONTNEED)


def fdatasync(descriptor: int) -> None:
    """Wait until a file's contents are on the disk."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def pwrite(descriptor: int, array: NDArray[np.generic], offset: int) -> None:
    """Write all of a contiguous array at a byte of a file, in pieces that a signal may interrupt."""
    rest = array.data.cast("B")
    while rest:
        written = os.pwrite(descriptor, rest[: 2**26], offset)
        rest = rest[written:]
        offset += written


def pread(descriptor: int, array: NDArray[np.generic], offset: int) -> None:
    """Fill a contiguous array from a byte of a file; raises EOFError where the file ends before."""
    rest = array.data.cast("B")
    while rest:
        if hasattr(os, "preadv"):
            got = os.preadv(descriptor, [rest[: 2**30]], offset)
        else:
            data = os.pread(descriptor, min(len(rest), 2**24), offset)
            got = len(data)
            rest[:got] = data
        if got == 0:
            raise EOFError
        rest = rest[got:]
        offset += got
