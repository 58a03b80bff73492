"""Sketches kept beside their run, so that filtering again with another method or setting reads nothing.

One file a round and need, `round-000012-<need>.npz`. It says in full what it was made from: the round's digest, the
clients and how they were scaled, and size and time of the files read. Anything that does not match, or cannot be read,
is computed again and replaced. Hashing the updates would cost more than the sketch itself; `encagg inspect --verify`
does that.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from encagg_cli import __version__
from encagg_cli.errors import OutputError
from encagg_cli.sketch.compute import Sums
from encagg_cli.sketch.needs import Header, Need

FOLDER: Final = ".encagg-cache"
SKETCH_VERSION: Final = 1  # of the arithmetic: another one gives other sums
_META = "made_from"

CacheSetting = Path | Literal["beside", "none"]


@dataclass(frozen=True)
class Origin:
    """What a round's sums were made from, as text that is equal when they would come out equal."""

    number: int
    text: str

    @classmethod
    def of(cls, header: Header, digest: str, files: Iterable[Path], device: str) -> "Origin":
        """Take stock before the updates are read. Raises OSError where a file is gone."""
        states = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
        made_from = {
            "sketch": SKETCH_VERSION,
            "digest": digest,
            "header": _fingerprint(header),
            "files": states,
            "device": device,
            "encagg": __version__,
        }
        return cls(header.number, json.dumps(made_from, sort_keys=True))


class SketchCache:
    """Sums by round and need in a folder. Nothing that happens to it stops a filter: at worst it is not there.

    `problem` says why sums could not be kept, once they could not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problem: str | None = None

    @classmethod
    def of(cls, run: Path, setting: CacheSetting) -> "SketchCache | None":
        """The cache of a run (a folder, or a packed file). Raises OutputError where a named folder cannot be made."""
        if setting == "none":
            return None
        run = run.resolve()
        if setting == "beside":
            return cls(run / FOLDER if run.is_dir() else run.parent / FOLDER / run.name)
        place = hashlib.sha256(str(run).encode()).hexdigest()[:12]
        folder = Path(setting) / f"{run.name}-{place}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot keep sketches in {setting}: {os.strerror(error.errno or 0)}") from error
        return cls(folder)

    def load(self, origin: Origin, need: Need) -> Sums | None:
        """The sums that were kept, if they were made from the same; None otherwise."""
        if not need.key:
            return None
        try:
            with zipfile.ZipFile(self._path(origin, need)) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    return None
                sums: Sums = {}
                for name in archive.namelist():
                    with archive.open(name) as member:  # checks the member's CRC when it has been read
                        array = np.lib.format.read_array(member, allow_pickle=False)
                        if member.read(1):
                            return None
                    sums[name] = array
        except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError):
            return None
        made_from = sums.pop(_META, None)
        if made_from is None or made_from.tobytes() != _made_from(origin, need):
            return None
        return sums

    def store(self, origin: Origin, need: Need, sums: Sums) -> None:
        """Keep sums; the file is whole or absent, and readable by its owner alone."""
        if not need.key or self.problem is not None:
            return
        path = self._path(origin, need)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                members = {_META: np.frombuffer(_made_from(origin, need), dtype=np.uint8), **sums}
                for name, array in members.items():
                    with archive.open(name, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            partial.replace(path)  # not synced: a file that a crash leaves damaged is noticed and made again
        except OSError as error:
            self.problem = f"sketches are not kept in {self.folder}: {os.strerror(error.errno or 0)}"
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _path(self, origin: Origin, need: Need) -> Path:
        name = hashlib.sha256(need.key.encode()).hexdigest()[:16]
        return self.folder / f"round-{origin.number:06d}-{name}.npz"


def _made_from(origin: Origin, need: Need) -> bytes:
    return f"{need.key}\n{origin.text}".encode()


def _fingerprint(header: Header) -> str:
    """A hash of everything that a need is told of a round beside its columns."""
    total = hashlib.sha256()
    facts = (
        header.number,
        header.clients,
        header.n_parameters,
        header.reference,
        header.update_kind,
        [(p.name, p.shape, p.offset, p.role) for p in header.parameters],
    )
    total.update(json.dumps(facts).encode())
    for array in (header.norms, header.trusted, header.num_examples, header.exponents):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
