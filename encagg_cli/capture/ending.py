"""Recorders come to an end with their process: at exit, on SIGTERM, and in a forked child."""

import atexit
import os
import signal
import threading
import weakref
from contextlib import suppress
from types import FrameType
from typing import Final, Protocol

from encagg_cli.capture.trouble import CaptureWarning


class Ending(Protocol):
    def close(self) -> None:
        """End in good order."""

    def abandon(self, patience: float) -> None:
        """End from within a signal handler, in at most so many seconds and without taking locks."""

    def become_forked(self) -> None:
        """Hold nothing that belongs to the parent."""


_PATIENCE_SECONDS: Final = 30.0

_live: "weakref.WeakSet[Ending]" = weakref.WeakSet()


def watch(recorder: Ending) -> None:
    """Have `recorder` ended with the process. SIGTERM is handled only where training does not handle it itself."""
    _live.add(recorder)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_termination)


def unwatch(recorder: Ending) -> None:
    _live.discard(recorder)


def _at_exit() -> None:
    for recorder in list(_live):
        with suppress(CaptureWarning):
            recorder.close()


def _on_termination(number: int, frame: FrameType | None) -> None:
    for recorder in list(_live):
        recorder.abandon(_PATIENCE_SECONDS)
    # Then die as training would have without us.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _after_fork_in_child() -> None:
    for recorder in list(_live):
        recorder.become_forked()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
