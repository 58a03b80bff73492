"""A spool: the folder into which any training program, in any language, drops updates as plain files.

    SPOOL/round-0012/client-17.safetensors   (.npz, .npy, .pt, .pth)   the folder's trailing integer is the round
    SPOOL/round-0012/_global.*  _root.*      the global model; the server's own gradient on trusted data
    SPOOL/round-0012/_done                   the round is complete
    SPOOL/labels.csv  SPOOL/trusted.txt      who poisoned when; who is known to be benign
    SPOOL/_end                               no further round will come

Here the folder is looked at, not into its files. Names that begin with a dot or end in .tmp, .partial or the like are
files still being written: they are passed over until they are renamed.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from encagg_cli.capture.tensors import SUFFIXES
from encagg_cli.errors import UnusableInput
from encagg_cli.rounds.layout import LAST_ROUND

DONE: Final = "_done"
END: Final = "_end"
GLOBAL: Final = "_global"
ROOT: Final = "_root"
LABELS: Final = "labels.csv"
TRUSTED: Final = "trusted.txt"

_ROUND_FOLDER = re.compile(r".*?([0-9]+)")
_TEMPORARY: Final = (".tmp", ".temp", ".partial", ".part", ".incomplete", ".lock", ".swp", "~")


@dataclass(frozen=True, slots=True)
class SpoolRound:
    """The files of one round, by name only. `clients` are (client id, file), in the order of the ids."""

    number: int
    folder: Path
    clients: tuple[tuple[str, Path], ...]
    global_model: Path | None
    root_gradient: Path | None
    is_done: bool
    ignored: tuple[str, ...]
    states: Mapping[str, tuple[int, int]]
    """Size and time of last change, in ns, of every file that counts: when they stay the same, the files do."""
    unfinished: Mapping[str, tuple[int, int]]
    """The same of files whose names say that they are still being written."""

    def fingerprint(self, *settings: object) -> str:
        """What tells this state of the round's files, imported with these settings, from any other."""
        content = repr((sorted(self.states.items()), settings))
        return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def round_folders(spool: Path) -> dict[int, list[Path]]:
    """The round folders by number, ascending; a number with two folders is an error only for that round.

    Raises UnusableInput where `spool` is no folder that can be read.
    """
    folders: dict[int, list[Path]] = {}
    for entry in _entries(spool):
        match = _ROUND_FOLDER.fullmatch(entry.name)
        if match is None or is_temporary(entry.name) or not entry.is_dir(follow_symlinks=False):
            continue
        digits = match[1].lstrip("0") or "0"
        number = int(digits) if len(digits) <= len(str(LAST_ROUND)) else LAST_ROUND + 1
        folders.setdefault(number, []).append(spool / entry.name)
    return dict(sorted(folders.items()))


def strange_entries(spool: Path) -> list[str]:
    """Names in the spool that are neither round folders nor files it knows: worth a warning, as updates may be lost."""
    known = {LABELS, TRUSTED, END}
    return sorted(
        entry.name
        for entry in _entries(spool)
        if entry.name not in known
        and not is_temporary(entry.name)
        and not (_ROUND_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False))
        and (entry.is_dir(follow_symlinks=False) or entry.is_symlink() or Path(entry.name).suffix.lower() in SUFFIXES)
    )


def look_at_round(number: int, folders: Sequence[Path]) -> SpoolRound:
    """The files of a round. Raises UnusableInput where two of them claim the same place."""
    if number > LAST_ROUND:
        raise UnusableInput(f"{folders[0]}: round numbers end at {LAST_ROUND}")
    if len(folders) > 1:
        names = ", ".join(sorted(folder.name for folder in folders))
        raise UnusableInput(f"round {number} has several folders in the spool: {names}", hint="keep one of them")
    folder = folders[0]
    clients: dict[str, Path] = {}
    special: dict[str, Path] = {}
    states: dict[str, tuple[int, int]] = {}
    unfinished: dict[str, tuple[int, int]] = {}
    ignored: list[str] = []
    is_done = False
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        stem, suffix = path.stem, path.suffix.lower()
        if entry.name == DONE:
            is_done = True
            continue
        if is_temporary(entry.name) or is_temporary(stem):
            unfinished[entry.name] = _state(entry)
            continue
        if suffix not in SUFFIXES or (stem.startswith("_") and stem not in {GLOBAL, ROOT}):
            ignored.append(entry.name)
            continue
        place = special if stem in {GLOBAL, ROOT} else clients
        if stem in place:
            raise UnusableInput(
                f"round {number}: {stem!r} has two files, {place[stem].name} and {entry.name}", hint="keep one of them"
            )
        place[_as_client_id(stem, folder)] = path
        states[entry.name] = _state(entry)
    return SpoolRound(
        number,
        folder,
        tuple(sorted(clients.items())),
        special.get(GLOBAL),
        special.get(ROOT),
        is_done,
        tuple(ignored),
        states,
        unfinished,
    )


def is_temporary(name: str) -> bool:
    """Whether a name says that its file is hidden, or still being written."""
    return name.startswith(".") or name.lower().endswith(_TEMPORARY)


def has_ended(spool: Path) -> bool:
    """Whether the spool says that no further round will come."""
    return os.path.lexists(spool / END)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UnusableInput(f"cannot read the folder {folder}: {os.strerror(error.errno or 0)}") from error


def _state(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # removed between listing and looking
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def _as_client_id(stem: str, folder: Path) -> str:
    try:
        stem.encode()
    except UnicodeEncodeError:
        raise UnusableInput(f"{folder}: the file name {stem!r} is not UTF-8, so it cannot be a client id") from None
    return stem
