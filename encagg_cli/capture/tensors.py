"""Named arrays from one file of a spool: .npy, .npz, .safetensors, .pt or .pth.

A spool is written by clients, and clients may be hostile. So nothing here follows links, opens pipes or devices, maps
files into memory (a file cut short under a map would kill the process), unpickles code, or makes room for more than a
file can honestly hold. Whatever a file does to its reader, the caller sees UnusableInput (exit 4) with the file's name.
"""

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.rounds.layout import BARE_VECTOR

BARE_NAME: Final = BARE_VECTOR
"""What a file's only array is called where the format gives it no name."""

# A small file may hold large zeros. Beyond both bounds it is a bomb, or should have been saved without compression.
_LARGEST_EXPANSION: Final = 100
_ALWAYS_ALLOWED_BYTES: Final = 256 * 2**20
_SHOWN_OF_A_REASON: Final = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a tensor before it is read: its shape, and whether it holds real numbers or integers."""

    shape: tuple[int, ...]
    is_floating: bool
    n_bytes: int

    @property
    def size(self) -> int:
        return prod(self.shape)


class TensorFile(ABC):
    """The tensors of one open file. `entries` are in the file's own order; values are read one tensor at a time.

    The order is that of the archive (.npz), of the dictionary (.pt), or of the data (.safetensors). `has_order` says
    whether it can be the model's: writers of .safetensors sort tensors by type and name, so theirs cannot. `is_bare`
    marks a single unnamed array, which is called "update". `metadata` is what a .safetensors file carries beside its
    tensors.
    """

    is_bare: bool = False
    has_order: bool = True

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.n_bytes = os.fstat(stream.fileno()).st_size
        self.entries: dict[str, Entry] = {}
        self.metadata: Mapping[str, str] = {}

    @abstractmethod
    def load_entries(self) -> None:
        """Fill `entries` from the headers."""

    @abstractmethod
    def _values(self, name: str) -> NDArray[Any]: ...

    def read(self, name: str) -> NDArray[Any]:
        """The values of one tensor, of its stored shape: integer, float16, 32 or 64; bfloat16 comes as float32."""
        with decoding(self.path):
            values = self._values(name)
        if values.shape != self.entries[name].shape:
            raise UnusableInput(f"{self.path}: tensor {name!r} changed while it was read")
        return values

    def close(self) -> None:
        self.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_tensors(path: Path) -> TensorFile:
    """Open a tensor file and read its headers (a .pt file: all of it).

    Raises UnusableInput where it is no regular file, of no known kind, cut short, damaged, or larger inside than it
    can honestly be. That a file opens means that all of it is there.
    """
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise UnusableInput(f"{path} is not a tensor file", hint=f"known are {', '.join(SUFFIXES)}")
    stream = open_regular(path)
    try:
        with decoding(path):
            opened = opener(path, stream)
            opened.load_entries()
        _check(opened)
    except BaseException:
        stream.close()
        raise
    return opened


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; neither follow a link nor wait for a pipe. Raises UnusableInput."""
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        reason = (
            "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {os.strerror(error.errno or 0)}"
        )
        raise UnusableInput(f"{path} {reason}", hint="a spool holds regular files only") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnusableInput(f"{path} is not a regular file", hint="a spool holds regular files only")
    return os.fdopen(descriptor, "rb")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or hostile file provokes into UnusableInput."""
    try:
        yield
    except UnusableInput:
        raise
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        reason = str(error).strip().partition("\n")[0][:_SHOWN_OF_A_REASON] or type(error).__name__
        raise UnusableInput(f"{path} is damaged or not what its name says: {reason}") from error


def check_expansion(path: Path, n_bytes: int, stored: int) -> None:
    """Refuse `stored` bytes that claim to hold `n_bytes` of values: an archive bomb, or a view of one number."""
    if n_bytes > max(_ALWAYS_ALLOWED_BYTES, _LARGEST_EXPANSION * stored):
        raise UnusableInput(
            f"{path} has {stored:,} bytes and would unfold to {n_bytes:,}",
            hint="if it is meant, save it without compression",
        )


def _check(opened: TensorFile) -> None:
    for name, entry in opened.entries.items():
        if not name or "\0" in name or not _is_text(name):
            raise UnusableInput(f"{opened.path}: {name!r} cannot be the name of a tensor")
        if any(length < 0 for length in entry.shape):
            raise UnusableInput(f"{opened.path}: tensor {name!r} has the shape {entry.shape}")
    check_expansion(opened.path, sum(entry.n_bytes for entry in opened.entries.values()), opened.n_bytes)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _npy(path: Path, stream: BinaryIO) -> TensorFile:
    from encagg_cli.capture.numpy_files import NpyFile

    return NpyFile(path, stream)


def _npz(path: Path, stream: BinaryIO) -> TensorFile:
    from encagg_cli.capture.numpy_files import NpzFile

    return NpzFile(path, stream)


def _safetensors(path: Path, stream: BinaryIO) -> TensorFile:
    from encagg_cli.capture.safetensors_files import SafetensorsFile

    return SafetensorsFile(path, stream)


def _torch(path: Path, stream: BinaryIO) -> TensorFile:
    from encagg_cli.capture.torch_files import TorchFile

    return TorchFile(path, stream)


_OPENERS: Final[dict[str, Callable[[Path, BinaryIO], TensorFile]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
}
SUFFIXES: Final = tuple(_OPENERS)
