"""A session's right to record into a run: one session at a time, any number of its processes."""

import os
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from encagg_cli.errors import OutputError, UsageError
from encagg_cli.outputs import writing
from encagg_cli.rounds.directory import WRITING_LOCK, PartialFile, files_of_round, locked, remove_interrupted
from encagg_cli.rounds.layout import TEXT_BYTES_LIMIT
from encagg_cli.rounds.locks import LockedFile
from encagg_cli.rounds.replacing import finish_replacements
from encagg_cli.rounds.writer import RoundWriter, repeated

_PATIENCE_SECONDS: Final = 5.0  # another process needs the lock alone for a moment when it begins


class WritingSession:
    """Holds a run's directory for a session and makes the writers of its rounds. Close it, or use it in a `with`.

    The directory is made where it is missing. What killed captures left there is removed and listed in `interrupted`,
    unless other processes of this session are recording at the moment. `writer` is None for the first process
    of a session, and names the shards of a further one.

    Raises OutputError (exit 6) where another session is recording into this run or it cannot be written, UsageError
    where the path is a packed file.
    """

    def __init__(self, directory: str | Path, *, session: str | None = None, force: bool = False) -> None:
        self.directory = Path(directory)
        self.session = session or secrets.token_hex(8)
        self.force = force
        if len(self.session.encode()) > TEXT_BYTES_LIMIT or "\0" in self.session:
            raise UsageError("a session's name is a text of at most 1,024 bytes")
        if self.directory.is_file():
            raise UsageError(
                f"{self.directory} is a file", hint="a run is recorded into a folder; encagg pack makes one file"
            )
        self.interrupted: tuple[PartialFile, ...] = ()
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = LockedFile(self.directory / WRITING_LOCK)
            try:
                is_first = self._lock()
            except BaseException:
                self.close()
                raise
            if is_first:
                self.interrupted = tuple(remove_interrupted(self.directory))
                with locked(self.directory):
                    finish_replacements(self.directory)
        self.writer = None if is_first else f"p{os.getpid()}-{secrets.token_hex(2)}"

    def refuse_repeat(self, number: int) -> None:
        """Raise OutputExists where another session has stored this round and `force` is not set."""
        if not self.force and any(f.session != self.session for f in files_of_round(self.directory, number)):
            raise repeated(self.directory, number)

    def round(self, number: int, **settings: Any) -> RoundWriter:
        """A writer for a round, with the settings of `RoundWriter`."""
        return RoundWriter(
            self.directory, number, session=self.session, writer=self.writer, force=self.force, **settings
        )

    def close(self) -> None:
        """Let others record here."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> bool:
        """Take the lock; whether this is the only process that holds it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            is_first = self._file.lock()
            if is_first:
                os.ftruncate(self._file.descriptor, 0)
                os.pwrite(self._file.descriptor, f"{self.session}\n{os.getpid()}\n".encode(), 0)
            if self._file.lock(shared=True):
                # Taken anew, not downgraded: another session may have come between, so what it says is what counts.
                holder, _, pid = os.pread(self._file.descriptor, 2 * TEXT_BYTES_LIMIT, 0).decode().partition("\n")
                if holder == self.session:
                    return is_first
                raise OutputError(
                    f"{self.directory} is being written by another session (process {pid.strip()})",
                    hint="wait until it ends, or record into another folder",
                )
            if time.monotonic() > deadline:
                raise OutputError(f"{self.directory} is locked by another process")
            time.sleep(0.01)
