"""Names, types and version of the stored round (normative: FORMAT.md beside this file).

Imports neither h5py nor anything above `rounds`, so that every layer can speak of parameters and clients.
"""

import re
from dataclasses import dataclass
from math import prod
from typing import Final, Literal

FORMAT: Final = "encagg-rounds"
FORMAT_VERSION: Final = 1
PARTIAL_SUFFIX: Final = ".partial"

UpdateKind = Literal["gradient", "delta"]
StoredType = Literal["float32", "float16", "bfloat16"]
UPDATE_KINDS: Final[tuple[UpdateKind, ...]] = ("gradient", "delta")
STORED_TYPES: Final[tuple[StoredType, ...]] = ("float32", "float16", "bfloat16")

POISONED_UNKNOWN: Final = -1
EXAMPLES_UNKNOWN: Final = -1
ROLE_OUTPUT: Final = "output"

_ROUND_FILE = re.compile(r"round-(\d{6,})(?:\.([A-Za-z0-9_-]+))?\.h5")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One tensor of the model: columns `offset` to `offset + size` of every update hold it, flattened in C order."""

    name: str
    shape: tuple[int, ...]
    offset: int
    role: str = ""

    @property
    def size(self) -> int:
        return prod(self.shape)


def round_file_name(number: int, writer: str | None = None) -> str:
    """`round-000012.h5`, or `round-000012.WRITER.h5` for a further process of the same session."""
    shard = "" if writer is None else f".{writer}"
    return f"round-{number:06d}{shard}.h5"


def parse_round_file_name(name: str) -> tuple[int, str | None] | None:
    """Round number and writer of a published round file's name; None if the name is not one."""
    match = _ROUND_FILE.fullmatch(name)
    return None if match is None else (int(match[1]), match[2])
