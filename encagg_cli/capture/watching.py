"""Follow a spool while it is written: import each round when it is complete, and outlive rounds that cannot be.

A round is due when it holds `_done`, when a later round has begun, when nothing in it has changed for `idle` seconds,
or when the spool holds `_end`. It is imported once its files have stopped changing; a file that cannot be read yet is
given time, since it may be half-written.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from encagg_cli.capture.importing import RoundChangedError, SpoolImporter
from encagg_cli.capture.spool import SpoolRound, has_ended, look_at_round, round_folders
from encagg_cli.errors import OutputExists, UnusableInput

POLL_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.4  # a file that was the same for so long between two looks is no longer being written
GRACE_SECONDS: Final = 5.0  # for a file that cannot be read yet, and for one still called .tmp


@dataclass(slots=True)
class Watched:
    """What following a spool came to."""

    imported: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    """Rounds that an earlier import had brought into the run, whether or not they are still there."""
    unusable: dict[int, UnusableInput | OutputExists] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    """Rounds that were not complete when the watch ended."""


@dataclass(slots=True)
class _Sight:
    """A round as it was last seen, and since when it looks like that (on the monotonic clock)."""

    found: SpoolRound
    since: float


@dataclass(slots=True)
class _Handled:
    """A round that needs no further look, unless its folder changes. Without a fingerprint, not even then."""

    time_of_change: int
    fingerprint: str | None


class SpoolWatcher:
    """Follows the importer's spool until it ends or somebody calls `stop`."""

    def __init__(
        self,
        importer: SpoolImporter,
        *,
        idle: float | None = None,
        tell: Callable[[str], None] = lambda message: None,
        poll: float = POLL_SECONDS,
        settle: float = SETTLE_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._is_stopping = False  # no threading.Event: setting one from a signal handler can wait for itself
        self._importer = importer
        self._idle = idle
        self._tell = tell
        self._poll = poll
        self._settle = settle
        self._grace = grace
        self._sights: dict[int, _Sight] = {}
        self._handled: dict[int, _Handled] = {}
        self._outcome = Watched()

    def stop(self) -> bool:
        """Ask the watch to end after the round that it is importing; whether it was asked before."""
        was_asked, self._is_stopping = self._is_stopping, True
        return was_asked

    def follow(self) -> Watched:
        """Import rounds as they become complete. Returns when the spool has ended, or after `stop`.

        A round that cannot be imported is told and passed over; it is tried again when its files change.
        """
        spool = self._importer.spool
        if not spool.is_dir():
            self._tell(f"waiting for {spool}")
        while not self._is_stopping:
            if spool.is_dir():
                is_over = has_ended(spool)  # looked at first: what was there before the mark counts
                if self._look(is_over=is_over) and is_over:
                    break
            time.sleep(self._poll)
        begun = {number for number, sight in self._sights.items() if sight.found.states}
        self._outcome.waiting = sorted(begun - set(self._outcome.unusable))
        return self._outcome

    def _look(self, *, is_over: bool) -> bool:
        """Import what is complete; whether nothing is left to wait for."""
        folders = round_folders(self._importer.spool)
        is_quiet = True
        latest_begun = -1
        for number in reversed(folders):  # from the latest: a round is complete when a later one has begun
            self._see(number, folders[number])
            sight = self._sights.get(number)
            has_begun = number in self._handled or (sight is not None and bool(sight.found.states))
            if latest_begun < 0 and has_begun:
                latest_begun = number
        for number in folders:
            sight = self._sights.get(number)
            if sight is None or self._is_stopping:
                continue
            is_due = is_over or sight.found.is_done or number < latest_begun or self._is_idle(sight)
            if not (is_due and self._is_settled(sight) and self._import(sight)):
                is_empty = not sight.found.states
                is_quiet = is_quiet and (is_empty or number in self._outcome.unusable)
        for number in set(self._sights) - set(folders):
            del self._sights[number]  # removed before it was complete
        return is_quiet

    def _see(self, number: int, folders: list[Path]) -> None:
        """Note how a round looks now, unless it was imported; say so where it changed afterwards."""
        handled = self._handled.get(number)
        if handled is not None and _time_of_change(folders[0]) == handled.time_of_change:
            return
        try:
            found = look_at_round(number, folders)
        except UnusableInput as error:
            self._give_up(number, error)
            return
        if handled is not None:
            if handled.fingerprint not in (None, found.fingerprint()):
                self._tell(
                    f"round {number} changed after it was imported: the change is not recorded "
                    "(encagg capture RUN --from SPOOL --force would)"
                )
                handled.fingerprint = None
            handled.time_of_change = _time_of_change(folders[0])
            return
        sight = self._sights.get(number)
        if sight is None or _looks(sight.found) != _looks(found):
            self._outcome.unusable.pop(number, None)
            self._sights[number] = _Sight(found, time.monotonic())

    def _is_idle(self, sight: _Sight) -> bool:
        has_begun = bool(sight.found.states)
        return self._idle is not None and has_begun and time.monotonic() - sight.since >= self._idle

    def _is_settled(self, sight: _Sight) -> bool:
        is_awaited = bool(sight.found.unfinished) and not sight.found.is_done
        return time.monotonic() - sight.since >= (self._grace if is_awaited else self._settle)

    def _import(self, sight: _Sight) -> bool:
        """Whether the round needs no further look."""
        number = sight.found.number
        if number in self._outcome.unusable:
            return False
        time_of_change = _time_of_change(sight.found.folder)
        try:
            outcome = self._importer.import_round(sight.found)
        except RoundChangedError:
            return False
        except (UnusableInput, OutputExists) as error:
            if isinstance(error, OutputExists) or time.monotonic() - sight.since >= self._grace:
                self._give_up(number, error)
            return False
        if outcome == "empty":
            return False  # clients may still come
        del self._sights[number]
        is_recorded = outcome in {"imported", "known", "removed"}
        self._handled[number] = _Handled(time_of_change, sight.found.fingerprint() if is_recorded else None)
        if outcome == "imported":
            self._outcome.imported.append(number)
            self._tell(f"round {number}: {len(sight.found.clients)} uploads")
        elif outcome in {"known", "removed"}:
            self._outcome.known.append(number)
        return True

    def _give_up(self, number: int, error: UnusableInput | OutputExists) -> None:
        if str(self._outcome.unusable.get(number)) != str(error):
            self._tell(f"round {number} is not recorded: {error}")
        self._outcome.unusable[number] = error


@contextmanager
def stopped_by_signals(watcher: SpoolWatcher) -> Iterator[None]:
    """Within the body, the first SIGINT or SIGTERM asks the watch to stop; a second one interrupts it at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if watcher.stop():
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _looks(found: SpoolRound) -> tuple[object, ...]:
    return found.states, found.unfinished, found.is_done


def _time_of_change(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1
