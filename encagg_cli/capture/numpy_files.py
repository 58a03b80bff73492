"""NumPy's own files: one array (.npy) or an archive of them (.npz). Pickled objects are never loaded."""

import zipfile
from math import prod
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from encagg_cli.capture.tensors import BARE_NAME, Entry, TensorFile
from encagg_cli.errors import UnusableInput

_SUFFIX = ".npy"


class NpyFile(TensorFile):
    """One array."""

    is_bare = True

    def load_entries(self) -> None:
        shape, self._in_fortran_order, self._dtype = read_header(self.stream, str(self.path))
        n_bytes = prod(shape) * self._dtype.itemsize
        self._start = self.stream.tell()
        if self.n_bytes != self._start + n_bytes:
            raise UnusableInput(
                f"{self.path} has {self.n_bytes:,} bytes where its header promises {self._start + n_bytes:,}",
                hint="is it still being written? One file holds one array",
            )
        self.entries[BARE_NAME] = Entry(shape, self._dtype.kind == "f", n_bytes)

    def _values(self, name: str) -> NDArray[Any]:
        entry = self.entries[name]
        self.stream.seek(self._start)
        flat = np.fromfile(self.stream, dtype=self._dtype, count=entry.size)
        if flat.size != entry.size:
            raise UnusableInput(f"{self.path} was cut short while it was read")
        return in_native_order(flat.reshape(entry.shape, order="F" if self._in_fortran_order else "C"))


class NpzFile(TensorFile):
    """An archive of arrays, compressed or not."""

    def load_entries(self) -> None:
        self._archive = zipfile.ZipFile(self.stream)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            name = member.filename.removesuffix(_SUFFIX)
            where = f"{self.path}: {member.filename!r}"
            if name == member.filename:
                raise UnusableInput(f"{where} is not an array")
            if name in self.entries:
                raise UnusableInput(f"{where} occurs twice")
            with self._archive.open(member) as stream:
                shape, _, dtype = read_header(stream, where)
                n_bytes = prod(shape) * dtype.itemsize
                promised = stream.tell() + n_bytes
            if member.file_size != promised:
                raise UnusableInput(f"{where} has {member.file_size:,} bytes where its header promises {promised:,}")
            self.entries[name] = Entry(shape, dtype.kind == "f", n_bytes)
            self._members[name] = member

    def _values(self, name: str) -> NDArray[Any]:
        with self._archive.open(self._members[name]) as stream:
            values: NDArray[Any] = npy_format.read_array(stream, allow_pickle=False)
        return in_native_order(values)


def read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of an array in NumPy's format; `stream` then stands at its values."""
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = npy_format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = npy_format.read_array_header_2_0(stream)
    else:  # 3.0 is for structured arrays with field names beyond Latin-1
        raise UnusableInput(f"{where} is in version {version[0]}.{version[1]} of NumPy's format")
    if dtype.hasobject:
        raise UnusableInput(f"{where} holds pickled Python objects, which are never loaded", hint="save plain arrays")
    if dtype.kind not in "fiub":
        hint = "NumPy knows no bfloat16: use .safetensors, or float32" if dtype.kind == "V" else None
        raise UnusableInput(f"{where} holds values of type {dtype}, not real numbers", hint=hint)
    return shape, fortran, dtype


def in_native_order(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in this machine's byte order."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
