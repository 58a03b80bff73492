"""What a damaged or hostile file may not do.

Every element is looked at before it is read: that it lies in this file (no soft, external or virtual links, no external
storage), is of the type and shape that FORMAT.md demands, passes through no filter but ours, and is no larger than a
file of this size can hold. What is wrong becomes UnusableInput, with the file and the key.

The HDF5 library is trusted with the structure of a file, not with the updates: they are read around it (shard.py).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import EncaggError, UnusableInput
from encagg_cli.rounds import layout
from encagg_cli.rounds.heaps import check_heaps

_FILTERS: Final = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE}
_NUMBERS: Final = {"i": "an integer", "f": "a real number", "b": "a truth value", "u": "an unsigned integer"}
_SHOWN: Final = 200
_CHUNK_BYTES: Final = 2**24  # of a chunked dataset of facts, which the library reads whole


@contextmanager
def reading(path: Path, key: str = "") -> Iterator[None]:
    """Turn whatever a damaged file provokes in the library into UnusableInput."""
    where = f"{path}: {key}" if key else f"{path}"
    try:
        yield
    except EncaggError:
        raise
    except Exception as error:  # the library raises nearly anything on hostile bytes
        reason = str(error).strip().partition("\n")[0][:_SHOWN] or type(error).__name__
        raise UnusableInput(f"{where} is damaged: {reason}") from error


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open one of our files for reading. Raises UnusableInput where it is none."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UnusableInput(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISREG(mode):
        raise UnusableInput(f"{path} is not a regular file")
    try:
        check_heaps(path)
        file = h5py.File(path, "r", locking=False)
    except UnusableInput:
        raise
    except PermissionError as error:
        raise UnusableInput(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    except Exception as error:
        reason = str(error).partition("\n")[0][:_SHOWN]
        raise UnusableInput(f"{path} is not an {layout.FORMAT} file, or was cut short ({reason})") from error
    with file, reading(path):
        _check_root(path, file)
        yield file


def _check_root(path: Path, file: h5py.File) -> None:
    if layout.ATTR_FORMAT not in file.attrs or text_attribute(path, file, layout.ATTR_FORMAT) != layout.FORMAT:
        raise UnusableInput(f"{path} is not an {layout.FORMAT} file", hint="a run is written by encagg capture")
    version = integer_attribute(path, file, layout.ATTR_VERSION)
    if version != layout.FORMAT_VERSION:
        raise UnusableInput(
            f"{path} has format version {version}, and this program reads version {layout.FORMAT_VERSION}",
            hint="update encagg" if version > layout.FORMAT_VERSION else None,
        )
    if file.userblock_size:
        raise UnusableInput(f"{path} begins with a user block, which {layout.FORMAT} does not allow")


def group(path: Path, parent: h5py.Group, name: str) -> h5py.Group:
    """A group that lies in this very file."""
    return _child(path, parent, name, h5py.Group)


def dataset(path: Path, parent: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset whose values lie in this very file."""
    found = _child(path, parent, name, h5py.Dataset)
    creation = found.id.get_create_plist()
    if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
        raise UnusableInput(f"{path}: {found.name} keeps its values in another file")
    filters = {creation.get_filter(index)[0] for index in range(creation.get_nfilters())}
    if filters - _FILTERS:
        raise UnusableInput(f"{path}: {found.name} passes through a filter that {layout.FORMAT} does not allow")
    return found


def has(path: Path, parent: h5py.Group, name: str) -> bool:
    """Whether an optional element is there."""
    with reading(path, f"{parent.name}/{name}"):
        return bool(parent.id.links.exists(name.encode()))


def text_attribute(path: Path, owner: h5py.Group | h5py.Dataset, name: str) -> str:
    """A text, at most `TEXT_BYTES_LIMIT` bytes of UTF-8."""
    with reading(path, f"attribute {name!r} of {owner.name}"):
        attribute = owner.attrs.get_id(name)
        kind = h5py.check_string_dtype(attribute.dtype)
        if attribute.shape != () or kind is None or (kind.length or 0) > layout.TEXT_BYTES_LIMIT:
            raise UnusableInput(f"{path}: attribute {name!r} of {owner.name} is not a (short) text")
        value = owner.attrs[name]
        encoded = value.encode() if isinstance(value, str) else bytes(value)
        return _decode(path, f"attribute {name!r} of {owner.name}", encoded)


def integer_attribute(path: Path, owner: h5py.Group | h5py.Dataset, name: str) -> int:
    with reading(path, f"attribute {name!r} of {owner.name}"):
        attribute = owner.attrs.get_id(name)
        if attribute.shape != () or attribute.dtype.kind not in "iu":
            raise UnusableInput(f"{path}: attribute {name!r} of {owner.name} is not an integer")
        return int(owner.attrs[name])


def numbers(path: Path, parent: h5py.Group, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """A small dataset of exactly that shape and type (the caller has bounded the shape by the size of the file)."""
    found = dataset(path, parent, name)
    with reading(path, found.name):
        _check_small(path, found, shape)
        if found.dtype != np.dtype(dtype):
            wanted = np.dtype(dtype)
            kind = _NUMBERS.get(wanted.kind, "a number")
            raise UnusableInput(f"{path}: {found.name} holds {found.dtype}, where {wanted.name} ({kind}) was expected")
        values: NDArray[Any] = found[...]
        return values


def texts(path: Path, parent: h5py.Group, name: str, count: int | None = None) -> list[str]:
    """A list of texts, each at most `TEXT_BYTES_LIMIT` bytes of UTF-8, of fixed or variable length."""
    found = dataset(path, parent, name)
    with reading(path, found.name):
        if count is None:
            count = found.shape[0] if len(found.shape) == 1 else -1
        _check_small(path, found, (count,))
        kind = h5py.check_string_dtype(found.dtype)
        if kind is None:
            raise UnusableInput(f"{path}: {found.name} holds {found.dtype}, where texts were expected")
        if kind.length is not None:
            if kind.length > layout.TEXT_BYTES_LIMIT:
                raise UnusableInput(f"{path}: {found.name} holds texts of up to {kind.length:,} bytes")
            values = found[...].tolist()
        else:
            # One by one, so that entries which all refer to the same huge text are refused at the first.
            values = []
            for index in range(count):
                values.append(found[index])
                if len(values[-1]) > layout.TEXT_BYTES_LIMIT:
                    raise UnusableInput(f"{path}: {found.name}[{index}] is longer than {layout.TEXT_BYTES_LIMIT} bytes")
        return [_decode(path, f"{found.name}[{index}]", value) for index, value in enumerate(values)]


def _check_small(path: Path, found: h5py.Dataset, shape: tuple[int, ...]) -> None:
    if found.shape != shape:
        raise UnusableInput(f"{path}: {found.name} has the shape {found.shape}, where {shape} was expected")
    if found.nbytes > path.stat().st_size:
        raise UnusableInput(f"{path}: {found.name} claims {found.nbytes:,} bytes, more than its file can hold")
    creation = found.id.get_create_plist()
    chunk_bytes = prod(found.chunks or (0,)) * found.dtype.itemsize
    if creation.get_nfilters() or chunk_bytes > _CHUNK_BYTES:
        raise UnusableInput(f"{path}: {found.name} is compressed or in oversized chunks")


def _child(path: Path, parent: h5py.Group, name: str, kind: type) -> Any:
    key = f"{parent.name.rstrip('/')}/{name}"
    with reading(path, key):
        if not parent.id.links.exists(name.encode()):
            raise UnusableInput(f"{path} lacks {key}")
        if parent.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise UnusableInput(f"{path}: {key} is a link that leads elsewhere")
        found = parent[name]
        if not isinstance(found, kind):
            raise UnusableInput(f"{path}: {key} is not a {kind.__name__.lower()}")
        return found


def _decode(path: Path, key: str, value: bytes) -> str:
    if len(value) > layout.TEXT_BYTES_LIMIT:
        raise UnusableInput(f"{path}: {key} is longer than {layout.TEXT_BYTES_LIMIT} bytes")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UnusableInput(f"{path}: {key} is not valid UTF-8") from None
