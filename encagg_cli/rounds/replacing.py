"""A forced repeat of a round replaces all files of the old one, or none, whenever it is interrupted.

Before the new file is published, a note beside it says which files it replaces: `round-000012.h5.replacing`, with the
new file's inode number in its first line, and then a name a line. From the moment that the name is this very file's,
those named do not count, whether or not they are removed already.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from encagg_cli.errors import UnusableInput
from encagg_cli.outputs import sync
from encagg_cli.rounds.layout import parse_round_file_name

NOTE_SUFFIX: Final = ".replacing"
_LARGEST_NOTE: Final = 2**20


@contextmanager
def replacing(new: Path, inode: int, old: Sequence[Path]) -> Iterator[None]:
    """The body publishes the file of that inode number as `new`; then `old` is removed. Raises OSError.

    To be done with the lock of publication held.
    """
    if not old:
        yield
        return
    note = new.with_name(new.name + NOTE_SUFFIX)
    descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, "\n".join([str(inode), *(path.name for path in old)]).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        sync(new.parent)
        yield
    except BaseException:
        if not _is_published(new, str(inode)):  # else what is left to do is left to whoever comes next
            note.unlink(missing_ok=True)
        raise
    _finish(note, old)


def replaced_names(directory: Path, names: Iterable[str]) -> set[str]:
    """Of a run's directory with these names, the files that others have replaced."""
    found: set[str] = set()
    for name in names:
        if name.endswith(NOTE_SUFFIX):
            found.update(_replaced_by(directory / name))
    return found


def finish_replacements(directory: Path) -> None:
    """Do what interrupted repeats have left to do. To be done with the lock of publication held. Raises OSError."""
    for note in sorted(directory.glob(f"round-*.h5{NOTE_SUFFIX}")):
        if note.is_file():  # what else has such a name is nobody's note
            _finish(note, [directory / name for name in _replaced_by(note)])


def _finish(note: Path, old: Iterable[Path]) -> None:
    for path in old:
        path.unlink(missing_ok=True)
    sync(note.parent)
    note.unlink(missing_ok=True)


def _replaced_by(note: Path) -> list[str]:
    """The names in a note, if the new file is published; of its own round only, whoever wrote it."""
    new = note.with_name(note.name.removesuffix(NOTE_SUFFIX))
    parsed = parse_round_file_name(new.name)
    if parsed is None or not note.is_file():  # a pipe would be waited for
        return []
    try:
        with note.open("rb") as file:
            inode, *names = file.read(_LARGEST_NOTE).decode().split("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    except OSError as error:
        raise UnusableInput(f"{note} cannot be read: {os.strerror(error.errno or 0)}") from error
    if not _is_published(new, inode):
        return []
    rounds = {name: parse_round_file_name(name) for name in names if name != new.name}
    return [name for name, found in rounds.items() if found is not None and found[0] == parsed[0]]


def _is_published(new: Path, inode: str) -> bool:
    try:
        return str(new.stat().st_ino) == inode
    except FileNotFoundError:
        return False
