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

# Names inside a file. FORMAT.md says what each holds.
ATTR_FORMAT: Final = "format"
ATTR_VERSION: Final = "format_version"
PARAMETERS: Final = "parameters"
PARAMETER_NAME: Final = "name"
PARAMETER_SHAPE: Final = "shape"
PARAMETER_OFFSET: Final = "offset"
PARAMETER_ROLE: Final = "role"
ROUNDS: Final = "rounds"
ATTR_ROUND: Final = "round"
ATTR_SESSION: Final = "session"
ATTR_UPDATE_KIND: Final = "update_kind"
ATTR_DTYPE: Final = "dtype"
ATTR_CREATED: Final = "created"
ATTR_DIGEST: Final = "digest"  # of a round; also of a stored vector, on its dataset
UPDATES: Final = "updates"
CLIENT_ID: Final = "client_id"
NUM_EXAMPLES: Final = "num_examples"
TRUSTED: Final = "trusted"
NORM: Final = "norm"
POISONED: Final = "poisoned"
ATTACK: Final = "attack"
ROW_DIGEST: Final = "row_digest"
GLOBAL_MODEL: Final = "global_model"
ROOT_GRADIENT: Final = "root_gradient"

# How a number is stored: numpy's name of the file's type. bfloat16 has none, so its bits are stored.
STORED_AS: Final[dict[StoredType, str]] = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
STORED_BYTES: Final[dict[StoredType, int]] = {"float32": 4, "float16": 2, "bfloat16": 2}
VECTOR_AS: Final = "<f4"  # global model and root gradient, whatever the updates are stored as

COMPRESSED_CHUNK_COLUMNS: Final = 262_144
CHUNK_BYTES_LIMIT: Final = 2**32 - 1  # HDF5's own: a chunk is smaller than 4 GiB
LAST_ROUND: Final = 2**31 - 1  # a round is an int32 in the verdicts
TEXT_BYTES_LIMIT: Final = 1024  # of a client id, an attack's or a tensor's name, as UTF-8

BARE_VECTOR: Final = "update"  # the one tensor of an update that came without names

_ROUND_FILE = re.compile(r"round-([0-9]{6,10})(?:\.([A-Za-z0-9_-]+))?\.h5")


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


def round_group_name(number: int) -> str:
    """`000012`: the name of a round's group under `/rounds`."""
    return f"{number:06d}"


def parse_round_file_name(name: str) -> tuple[int, str | None] | None:
    """Round number and writer of a published round file's name; None if the name is not one."""
    match = _ROUND_FILE.fullmatch(name)
    if match is None or int(match[1]) > LAST_ROUND or round_file_name(int(match[1]), match[2]) != name:
        return None
    return int(match[1]), match[2]


def plain_chunk_columns(n_parameters: int, stored_type: StoredType) -> int:
    """Columns of an uncompressed chunk: the whole row, or an even share of it where HDF5's chunks are too small."""
    pieces = -(-n_parameters * STORED_BYTES[stored_type] // CHUNK_BYTES_LIMIT)
    return -(-n_parameters // pieces)
