"""Files opened for writing through HDF5: for a moment only, and never across a fork.

HDF5 keeps changed metadata in memory and writes it when a file is closed, at the latest when the process exits. A
forked child that inherited an open file would do so too, over its parent's file. So a file is opened, changed and
closed at once, and a fork waits for that. The rows themselves are written around HDF5 (see writer.py).
"""

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import LEVEL, chunk_columns
from encagg_cli.rounds.layout import Parameter, StoredType
from encagg_cli.rounds.locks import without_fork

# The oldest layout that has all we need, and none that only the newest library reads.
_LIBRARY_VERSIONS = ("earliest", "v110")
_ERRNO_IN_TEXT = re.compile(r"errno = ([0-9]+)")


@contextmanager
def changed(path: Path, *, create: bool = False) -> Iterator[h5py.File]:
    """Open an HDF5 file to change it, and close it again. Only one file of a process is open in this way.

    HDF5's own locks are off: who may write is decided above (locks.py), and they fail on some network filesystems.
    Raises OSError where the file cannot be written, also where HDF5 learns of it only when it closes the file.
    """
    try:
        with without_fork(), h5py.File(path, "w" if create else "r+", libver=_LIBRARY_VERSIONS, locking=False) as file:
            yield file
    except RuntimeError as error:  # what h5py makes of an error of the system in closing; its number is in the text
        found = _ERRNO_IN_TEXT.search(str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error


def create_rows(group: h5py.Group, n_parameters: int, stored_type: StoredType, *, compressed: bool) -> None:
    """Make the dataset of updates, with no rows yet.

    Plain rows are reserved when the dataset grows, and never filled; compressed chunks find their place one by one.
    """
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
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
    h5py.h5d.create(group.id, layout.UPDATES.encode(), kind, space, creation)


def write_parameters(file: h5py.File, parameters: Sequence[Parameter]) -> None:
    """Store names, shapes, offsets and roles of the tensors."""
    group = file.create_group(layout.PARAMETERS)
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


def reserve(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: str) -> int:
    """Make a contiguous dataset and return the byte at which its values belong; none are written."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = h5py.h5d.create(
        group.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape), creation
    )
    return int(dataset.get_offset())


def write_texts(group: h5py.Group, name: str, texts: Sequence[str]) -> None:
    """Store texts as UTF-8 of one fixed length, padded with NUL: their size is known before they are read."""
    encoded = [text.encode() for text in texts]
    length = max((len(text) for text in encoded), default=1) or 1
    write_values(group, name, np.array(encoded, dtype=h5py.string_dtype("utf-8", length)))


def write_values(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Store a small array. Flushed at once: of an error in writing it later, h5py would tell nobody.

    As `group.create_dataset` does, in half the time: there are eleven of them in every round.
    """
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    kind = h5py.h5t.py_create(values.dtype, logical=True)
    space = h5py.h5s.create_simple(values.shape)
    dataset = h5py.h5d.create(group.id, name.encode(), kind, space, creation)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    dataset.flush()


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
