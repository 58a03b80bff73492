"""A look at the file's heap of texts before HDF5 reads it: some damage there makes the library loop for ever.

HDF5 keeps texts of variable length (our attributes) in collections of objects, each with its size, and trusts these
sizes (HDF5 2.0 and before). Our files have one collection, near their beginning; only that part is looked at. A file
that hides a hostile collection farther back is beyond this: it can stall its reader, and do no more.

Layout of a collection: HDF5 File Format Specification, version 3.0, section III.E.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from encagg_cli.errors import UnusableInput

_SEARCHED_BYTES: Final = 2**16
_LARGEST_COLLECTION: Final = 2**26
_HEADER: Final = struct.Struct("<4sB3sQ")  # signature, version, zeros, size of the collection
_OBJECT: Final = struct.Struct("<HH4xQ")  # index, references, size
_SIGNATURE: Final = b"GCOL\x01\0\0\0"


def check_heaps(path: Path) -> None:
    """Raise UnusableInput where a collection of texts near the beginning of the file does not add up."""
    with path.open("rb") as file:
        beginning = file.read(_SEARCHED_BYTES)
        place = beginning.find(_SIGNATURE)
        while place >= 0:
            if not _adds_up(file, place):
                raise UnusableInput(f"{path} is damaged: its texts cannot be read")
            place = beginning.find(_SIGNATURE, place + 1)


def _adds_up(file: BinaryIO, start: int) -> bool:
    """Whether the objects of a collection fill it exactly."""
    file.seek(start)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return False
    *_, size = _HEADER.unpack(header)
    if not _HEADER.size <= size <= min(os.fstat(file.fileno()).st_size - start, _LARGEST_COLLECTION):
        return False
    place = _HEADER.size
    while size - place >= _OBJECT.size:
        file.seek(start + place)
        index, _, length = _OBJECT.unpack(file.read(_OBJECT.size))
        # Index 0 is the free space at the end, and its size includes its header.
        place += length if index == 0 else _OBJECT.size + (length + 7) // 8 * 8
        if place > size or (index == 0 and place != size):
            return False
    return True
