"""What lies in a run's directory, and who may write there.

    round-000012.h5              a published round            round-000012.WRITER.h5   a further shard of it
    round-000012.h5.partial      being written; its writer holds a lock on it while it lives
    round-000012.h5.replacing    what a forced repeat of the round replaces (replacing.py)
    .writing.lock                held, shared, by the processes of the session that records here; names the session
    .publishing.lock             held for the moment of publication

Locks are `flock` locks (locks.py): the system releases them when a process ends, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from encagg_cli.errors import OutputError, UnusableInput
from encagg_cli.rounds.layout import PARTIAL_SUFFIX, parse_round_file_name, round_file_name
from encagg_cli.rounds.locks import LockedFile
from encagg_cli.rounds.replacing import replaced_names

WRITING_LOCK: Final = ".writing.lock"
PUBLISHING_LOCK: Final = ".publishing.lock"


@dataclass(frozen=True)
class RoundFile:
    """A published round file, by its name; what it holds is read when asked for."""

    path: Path
    number: int
    writer: str | None

    @cached_property
    def session(self) -> str | None:
        """The session that wrote it; None where the file is damaged and does not say."""
        from encagg_cli.rounds.shard import read_shard

        with suppress(UnusableInput):
            return read_shard(self.path, self.number).session
        return None

    def client_ids(self) -> tuple[str, ...]:
        from encagg_cli.rounds.shard import read_shard

        return read_shard(self.path, self.number).client_ids


@dataclass(frozen=True, slots=True)
class PartialFile:
    """A round that is being written, or (`is_live` false) was when its writer died."""

    path: Path
    number: int
    is_live: bool


def round_files(directory: Path) -> dict[int, list[RoundFile]]:
    """Published files by round, ascending; of a round the unnamed writer's first, then by writer."""
    return _by_round(directory, _names(directory))


def files_of_round(directory: Path, number: int) -> list[RoundFile]:
    """The same of one round. Called for every round of a training, so it must not slow down as rounds add up."""
    begin = round_file_name(number).removesuffix("h5")
    return _by_round(directory, [name for name in _names(directory) if name.startswith(begin)]).get(number, [])


def _by_round(directory: Path, names: Sequence[str]) -> dict[int, list[RoundFile]]:
    found: dict[int, list[RoundFile]] = {}
    replaced = replaced_names(directory, names)
    for name in names:
        if name in replaced:
            continue
        parsed = parse_round_file_name(name)
        if parsed is not None:
            found.setdefault(parsed[0], []).append(RoundFile(directory / name, *parsed))
    return {number: sorted(found[number], key=lambda file: file.writer or "") for number in sorted(found)}


def partial_files(directory: Path) -> list[PartialFile]:
    """Rounds that are being written or were interrupted, by round and name."""
    found = []
    for name in _names(directory):
        parsed = parse_round_file_name(name.removesuffix(PARTIAL_SUFFIX)) if name.endswith(PARTIAL_SUFFIX) else None
        if parsed is not None:
            with suppress(FileNotFoundError):  # published meanwhile
                found.append(PartialFile(directory / name, parsed[0], _is_locked(directory / name)))
    return sorted(found, key=lambda partial: (partial.number, partial.path.name))


def remove_interrupted(directory: Path) -> list[PartialFile]:
    """Remove what dead writers left, and return it."""
    removed = [partial for partial in partial_files(directory) if not partial.is_live]
    for partial in removed:
        partial.path.unlink(missing_ok=True)
    return removed


def create_locked(partial: Path) -> LockedFile:
    """Create a partial file that is locked while this process lives; one whose writer died is replaced.

    Raises OutputError where its writer lives, OSError where it cannot be created.
    """
    while True:
        file = LockedFile(partial)
        if not file.lock():
            file.close()
            raise OutputError(f"{partial} is being written by another process")
        if file.is_at(partial):  # or it was published or removed before the lock was ours
            os.ftruncate(file.descriptor, 0)
            os.fchmod(file.descriptor, 0o600)
            return file
        file.close()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of publication: between a look at what others have published and a rename, nobody publishes."""
    file = LockedFile(directory / PUBLISHING_LOCK)
    try:
        file.lock(wait=True)
        yield
    finally:
        file.close()


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 names alone: a run may have many files
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
