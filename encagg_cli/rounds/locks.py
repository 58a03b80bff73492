"""Locks that end with the process that holds them, however it ends, and that a forked child does not inherit."""

import fcntl
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_no_fork = threading.RLock()


@contextmanager
def without_fork() -> Iterator[None]:
    """No other thread of this process forks meanwhile: a fork waits. So keep it short."""
    with _no_fork:
        yield


class LockedFile:
    """A file that is open for reading and writing, created where it is missing, to be locked with `flock`.

    A forked child lets go of it without releasing it: otherwise the lock would outlive a parent that is killed. Raises
    OSError where the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self._pid = os.getpid()
        with without_fork():
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _held.add(self)

    def lock(self, *, shared: bool = False, wait: bool = False) -> bool:
        """Take the lock, or change it; whether it could be had."""
        try:
            fcntl.flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def is_at(self, path: Path) -> bool:
        """Whether `path` still names this file."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self.descriptor)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    def close(self) -> None:
        """Release the lock and close the file. Does nothing the second time, or in a forked child."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            # Explicitly: a program that forked behind Python's back may have a copy of the descriptor. But never from a
            # forked child, where this may be called before the hook below: the lock is the parent's.
            with suppress(OSError):
                if self._pid == os.getpid():
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


_held: "weakref.WeakSet[LockedFile]" = weakref.WeakSet()


def _in_forked_child() -> None:
    _no_fork.release()
    for file in list(_held):
        descriptor, file.descriptor = file.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_in_forked_child)
