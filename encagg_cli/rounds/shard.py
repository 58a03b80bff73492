"""One round in one file: its facts, and where in the file its rows lie."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import RoundNotFound, UnusableInput
from encagg_cli.rounds import layout, soundness
from encagg_cli.rounds.compression import chunk_columns
from encagg_cli.rounds.digest import ROW_DIGEST_BYTES
from encagg_cli.rounds.layout import Parameter, StoredType, UpdateKind

_ROUND_NAME = re.compile(r"[0-9]{6,10}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DEFLATE_LIMIT: Final = 1100  # no deflated chunk unfolds to more times its size


@dataclass(frozen=True, slots=True)
class Vector:
    """Where a global model or root gradient lies."""

    offset: int
    digest: str | None


@dataclass(frozen=True, eq=False)
class Shard:
    """What a file says of a round, checked. Rows are in the order of `client_ids`.

    identity                     device, inode and size of the file: what a later reader must find again
    chunk_offsets, chunk_bytes   (rows, chunks a row) int64: where each chunk lies in the file, and how long it is
    chunk_columns                columns of a chunk
    is_compressed, is_shuffled   which filters the chunks passed through
    row_digests                  (rows, 32) uint8, or None where the file has none
    """

    path: Path
    identity: tuple[int, int, int]
    number: int
    parameters: tuple[Parameter, ...]
    session: str
    update_kind: UpdateKind
    stored_type: StoredType
    created: str
    digest: str
    client_ids: tuple[str, ...]
    num_examples: NDArray[np.int64]
    trusted: NDArray[np.bool_]
    norms: NDArray[np.float64]
    poisoned: NDArray[np.int8]
    attack: tuple[str, ...]
    row_digests: NDArray[np.uint8] | None
    chunk_offsets: NDArray[np.int64]
    chunk_bytes: NDArray[np.int64]
    chunk_columns: int
    is_compressed: bool
    is_shuffled: bool
    global_model: Vector | None
    root_gradient: Vector | None

    @property
    def n_parameters(self) -> int:
        return sum(parameter.size for parameter in self.parameters)

    @property
    def vectors(self) -> dict[str, Vector]:
        """The stored ones of global model and root gradient, by their names in the file."""
        given = {layout.GLOBAL_MODEL: self.global_model, layout.ROOT_GRADIENT: self.root_gradient}
        return {name: vector for name, vector in given.items() if vector is not None}

    @property
    def is_standard_compressed(self) -> bool:
        """Compressed as our writer does it, so that its chunks can be copied as they are."""
        return self.is_compressed and self.is_shuffled

    def __len__(self) -> int:
        return len(self.client_ids)


def identity_of(status: os.stat_result) -> tuple[int, int, int]:
    """What tells a file from one that took its place."""
    return status.st_dev, status.st_ino, status.st_size


def read_outline(path: Path) -> tuple[tuple[Parameter, ...], tuple[int, ...]]:
    """The parameters and the round numbers of a file. Raises UnusableInput."""
    with soundness.opened(path) as file:
        return _parameters(path, file), _numbers(path, file)


def read_shard(path: Path, number: int) -> Shard:
    """What the file says of a round. Raises UnusableInput, or RoundNotFound where it does not hold that round."""
    with soundness.opened(path) as file:
        parameters = _parameters(path, file)
        rounds = soundness.group(path, file, layout.ROUNDS)
        name = layout.round_group_name(number)
        if not soundness.has(path, rounds, name):
            raise RoundNotFound(f"{path} does not hold round {number}")
        return _shard(path, file, soundness.group(path, rounds, name), number, parameters)


def _shard(path: Path, file: h5py.File, group: h5py.Group, number: int, parameters: tuple[Parameter, ...]) -> Shard:
    if soundness.integer_attribute(path, group, layout.ATTR_ROUND) != number:
        raise UnusableInput(f"{path}: {group.name} says that it is another round")
    update_kind = _choice(path, group, layout.ATTR_UPDATE_KIND, layout.UPDATE_KINDS)
    stored_type = cast(StoredType, _choice(path, group, layout.ATTR_DTYPE, layout.STORED_TYPES))
    digest = soundness.text_attribute(path, group, layout.ATTR_DIGEST)
    if not _DIGEST.fullmatch(digest):
        raise UnusableInput(f"{path}: the digest of {group.name} is not one")
    n_parameters = sum(parameter.size for parameter in parameters)
    chunks = _chunks(path, group, n_parameters, stored_type)
    n = len(chunks["chunk_offsets"])
    client_ids = tuple(soundness.texts(path, group, layout.CLIENT_ID, n))
    _check_ids(path, group, client_ids)
    facts: dict[str, Any] = {
        "num_examples": soundness.numbers(path, group, layout.NUM_EXAMPLES, (n,), "<i8"),
        "trusted": soundness.numbers(path, group, layout.TRUSTED, (n,), "bool"),
        "norms": soundness.numbers(path, group, layout.NORM, (n,), "<f8"),
        "poisoned": soundness.numbers(path, group, layout.POISONED, (n,), "<i1"),
    }
    for name, wrong in (
        (layout.NUM_EXAMPLES, facts["num_examples"] < layout.EXAMPLES_UNKNOWN),
        (layout.NORM, facts["norms"] < 0),
        (layout.POISONED, ~np.isin(facts["poisoned"], (layout.POISONED_UNKNOWN, 0, 1))),
    ):
        if wrong.any():
            client = client_ids[int(np.argmax(wrong))]
            raise UnusableInput(f"{path}: {group.name}/{name} of client {client!r} is out of range")
    has_row_digests = soundness.has(path, group, layout.ROW_DIGEST)
    return Shard(
        path=path,
        identity=identity_of(path.stat()),
        number=number,
        parameters=parameters,
        session=soundness.text_attribute(path, group, layout.ATTR_SESSION),
        update_kind=cast(UpdateKind, update_kind),
        stored_type=stored_type,
        created=soundness.text_attribute(path, group, layout.ATTR_CREATED),
        digest=digest,
        client_ids=client_ids,
        attack=tuple(soundness.texts(path, group, layout.ATTACK, n)),
        row_digests=soundness.numbers(path, group, layout.ROW_DIGEST, (n, ROW_DIGEST_BYTES), "<u1")
        if has_row_digests
        else None,
        global_model=_vector(path, group, layout.GLOBAL_MODEL, n_parameters),
        root_gradient=_vector(path, group, layout.ROOT_GRADIENT, n_parameters),
        **facts,
        **chunks,
    )


def _chunks(path: Path, group: h5py.Group, n_parameters: int, stored_type: StoredType) -> dict[str, Any]:
    updates = soundness.dataset(path, group, layout.UPDATES)
    dtype = np.dtype(layout.STORED_AS[stored_type])
    with soundness.reading(path, updates.name):
        if len(updates.shape) != 2 or updates.shape[1] != n_parameters or not updates.shape[0]:
            raise UnusableInput(
                f"{path}: {updates.name} has the shape {updates.shape}, where (clients, {n_parameters}) was expected"
            )
        if updates.dtype != dtype:
            raise UnusableInput(f"{path}: {updates.name} holds {updates.dtype}, but says it is {stored_type}")
        creation = updates.id.get_create_plist()
        filters = [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
        if filters not in ([], [h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]):
            raise UnusableInput(f"{path}: {updates.name} passes through filters that {layout.FORMAT} does not allow")
        if updates.chunks is None or updates.chunks[0] != 1:
            raise UnusableInput(f"{path}: {updates.name} is not stored row by row")
        n, columns = updates.shape[0], updates.chunks[1]
        if filters and columns != chunk_columns(n_parameters):
            raise UnusableInput(
                f"{path}: {updates.name} is compressed in chunks of another size than {layout.FORMAT}'s"
            )
        per_row = -(-n_parameters // columns)
        file_bytes = path.stat().st_size
        if n * n_parameters * dtype.itemsize > file_bytes * (_DEFLATE_LIMIT if filters else 1):
            raise UnusableInput(f"{path}: {updates.name} claims {updates.shape}, more than its file can hold")
        if updates.id.get_num_chunks() != n * per_row:
            raise UnusableInput(f"{path}: {updates.name} lacks rows, or has more than it says")
        offsets = np.full((n, per_row), -1, dtype=np.int64)
        sizes = np.zeros((n, per_row), dtype=np.int64)

        def visit(chunk: Any) -> None:
            row, column = chunk.chunk_offset
            if chunk.filter_mask:
                raise UnusableInput(f"{path}: {updates.name} skips its filters in row {row}")
            offsets[row, column // columns] = chunk.byte_offset
            sizes[row, column // columns] = chunk.size

        updates.id.chunk_iter(visit)
        outside = (offsets < 0) | (offsets + sizes > file_bytes) | (sizes <= 0)
        if outside.any() or (not filters and (sizes != columns * dtype.itemsize).any()):
            raise UnusableInput(f"{path}: {updates.name} has rows outside of the file")
    return {
        "chunk_offsets": offsets,
        "chunk_bytes": sizes,
        "chunk_columns": int(columns),
        "is_compressed": bool(filters),
        "is_shuffled": len(filters) == 2,
    }


def _vector(path: Path, group: h5py.Group, name: str, n_parameters: int) -> Vector | None:
    if not soundness.has(path, group, name):
        return None
    found = soundness.dataset(path, group, name)
    with soundness.reading(path, found.name):
        if found.shape != (n_parameters,) or found.dtype != np.dtype(layout.VECTOR_AS):
            raise UnusableInput(
                f"{path}: {found.name} is {found.dtype} {found.shape}, where float32 ({n_parameters},) was expected"
            )
        offset = found.id.get_offset()
        if offset is None or offset + found.nbytes > path.stat().st_size:
            raise UnusableInput(f"{path}: {found.name} is not stored in one piece within the file")
    has_digest = layout.ATTR_DIGEST in found.attrs
    return Vector(offset, soundness.text_attribute(path, found, layout.ATTR_DIGEST) if has_digest else None)


def _parameters(path: Path, file: h5py.File) -> tuple[Parameter, ...]:
    group = soundness.group(path, file, layout.PARAMETERS)
    names = soundness.texts(path, group, layout.PARAMETER_NAME)
    count = len(names)
    shapes = soundness.texts(path, group, layout.PARAMETER_SHAPE, count)
    offsets = soundness.numbers(path, group, layout.PARAMETER_OFFSET, (count,), "<i8")
    roles = soundness.texts(path, group, layout.PARAMETER_ROLE, count)
    parameters = []
    expected = 0
    for name, shape, offset, role in zip(names, shapes, offsets.tolist(), roles, strict=True):
        parameter = Parameter(name, _shape(path, group, name, shape), offset, role)
        if offset != expected:
            raise UnusableInput(f"{path}: {group.name}: tensor {name!r} begins at column {offset}, not at {expected}")
        if role not in ("", layout.ROLE_OUTPUT):
            raise UnusableInput(f"{path}: {group.name}: tensor {name!r} has the unknown role {role!r}")
        expected += parameter.size
        parameters.append(parameter)
    if len(set(names)) != count:
        raise UnusableInput(f"{path}: {group.name}: two tensors have the same name")
    if not expected:
        raise UnusableInput(f"{path}: {group.name}: the model has no parameters")
    return tuple(parameters)


def _shape(path: Path, group: h5py.Group, name: str, text: str) -> tuple[int, ...]:
    with soundness.reading(path, f"{group.name}/{layout.PARAMETER_SHAPE}"):
        shape = json.loads(text)
        if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
            raise UnusableInput(f"{path}: {group.name}: tensor {name!r} has no shape but {text!r}")
        return tuple(shape)


def _numbers(path: Path, file: h5py.File) -> tuple[int, ...]:
    group = soundness.group(path, file, layout.ROUNDS)
    with soundness.reading(path, group.name):
        names = list(group)
    for name in names:
        if (
            not isinstance(name, str)  # what is not valid UTF-8 comes as bytes
            or not _ROUND_NAME.fullmatch(name)
            or layout.round_group_name(int(name)) != name
            or int(name) > layout.LAST_ROUND
        ):
            raise UnusableInput(f"{path}: {group.name} has an entry {name!r} that is no round")
    return tuple(sorted(int(name) for name in names))


def _choice(path: Path, group: h5py.Group, name: str, known: Sequence[str]) -> str:
    value = soundness.text_attribute(path, group, name)
    if value not in known:
        raise UnusableInput(f"{path}: attribute {name!r} of {group.name} is {value!r}, not one of {', '.join(known)}")
    return value


def _check_ids(path: Path, group: h5py.Group, ids: tuple[str, ...]) -> None:
    if "" in ids:
        raise UnusableInput(f"{path}: {group.name} has a client without an id")
    if len(set(ids)) != len(ids):
        twice, _ = Counter(ids).most_common(1)[0]
        raise UnusableInput(f"{path}: {group.name}: client {twice!r} has two uploads")
