"""A run put into one file."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import OutputError
from encagg_cli.outputs import published, writing
from encagg_cli.rounds import layout
from encagg_cli.rounds.estimate import human_bytes
from encagg_cli.rounds.locks import LockedFile
from encagg_cli.rounds.reader import Run, StoredRound
from encagg_cli.rounds.rows import RowReader
from encagg_cli.rounds.storage import Beginning, RoundStorage, Upload, WrittenRow, begin_file


def pack(run: Run, path: Path, *, force: bool = False) -> Iterator[int]:
    """Write all rounds of `run` into the file `path`, yielding the number of each round that is done.

    A round's shards become one; stored bits, digests and norms stay what they are, compressed rounds stay compressed.
    The file takes its place when the last round is in it. Raises UnusableInput where a row is not what was stored,
    OutputExists (exit 2), OutputError (exit 6).
    """
    with published(path, force=force) as partial, writing(path):
        _check_disk(run, path)
        file = LockedFile(partial)
        try:
            begin_file(partial, file.descriptor, run.parameters)
            for stored in run:
                _copy(stored, partial, file.descriptor)
                yield stored.number
        finally:
            file.close()


def _check_disk(run: Run, path: Path) -> None:
    needed, free = run.n_bytes, shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutputError(
            f"{path} needs about {human_bytes(needed)}, and the disk has {human_bytes(free)} free",
            hint="free some space, or pack onto another disk",
        )


def _copy(stored: StoredRound, path: Path, descriptor: int) -> None:
    storage = RoundStorage(
        path,
        descriptor,
        stored.number,
        stored.n_parameters,
        stored.stored_type,
        compressed=any(shard.is_compressed for shard in stored.shards),
    )
    vectors: dict[str, NDArray[np.float32]] = {}
    for shard in stored.shards:
        reader = RowReader(shard)
        for name, vector in shard.vectors.items():
            vectors.setdefault(name, reader.checked_vector(name, vector))
        reader.close()
    storage.begin(Beginning(stored.session, stored.update_kind, stored.created, vectors))
    rows: list[WrittenRow] = []
    for shard in stored.shards:
        reader = RowReader(shard)
        for index in range(len(shard)):
            row, digest = reader.checked_row(index)
            if shard.is_standard_compressed:
                storage.write_chunks(len(rows), reader.chunks(index))
            else:
                storage.write_row(len(rows), row)
            rows.append(WrittenRow(_upload(stored, len(rows)), float(shard.norms[index]), digest))
        reader.close()
    storage.finish(rows)


def _upload(stored: StoredRound, row: int) -> Upload:
    poisoned = int(stored.poisoned[row])
    return Upload(
        client_id=stored.client_ids[row],
        num_examples=int(stored.num_examples[row]),
        trusted=bool(stored.trusted[row]),
        poisoned=None if poisoned == layout.POISONED_UNKNOWN else bool(poisoned),
        attack=stored.attack[row],
    )
