"""Progress bars on stderr, on a terminal only."""

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from encagg_cli import console

if TYPE_CHECKING:
    from rich.progress import Progress

    from encagg_cli.sketch import Progress as Pass

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield `items`, with a bar that counts them where stderr is a terminal."""
    if not console.stderr().is_terminal:
        yield from items
        return
    from rich.progress import track as rich_track

    yield from rich_track(items, description=what, total=total, console=console.stderr(), transient=True)


class ByteBar:
    """A bar for a pass over stored rounds: rounds, bytes a second and time left; and a line about it all at the end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._progress: Progress | None = None
        self._started = 0.0
        self._bytes = 0
        self._rounds = 0

    def show(self, done: "Pass") -> None:
        """Show how far the pass has come."""
        self._bytes, self._rounds = done.bytes, done.rounds
        if self._progress is not None:
            what = f"{self._what} round {min(done.rounds + 1, done.n_rounds)} of {done.n_rounds}"
            self._progress.update(
                self._progress.task_ids[0], completed=done.bytes, total=done.n_bytes, description=what
            )

    def summary(self) -> str:
        """Rounds, bytes, seconds and bytes a second of the pass."""
        from encagg_cli.rounds.estimate import human_bytes

        seconds = perf_counter() - self._started
        if not self._bytes:
            return f"done in {seconds:.1f} s; no update was read again: an earlier run kept what these methods need"
        rate = human_bytes(self._bytes / seconds)
        return f"done in {seconds:.1f} s; read {human_bytes(self._bytes)} of updates, {rate}/s"

    def __enter__(self) -> "ByteBar":
        self._started = perf_counter()
        if console.stderr().is_terminal:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.progress import TransferSpeedColumn as Speed

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=console.stderr(), transient=True)
            self._progress.add_task(self._what, total=None)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


class Bar:
    """A bar for work that reports how much of it is done; it appears with the first report."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._progress: Progress | None = None

    def show(self, done: int, of: int) -> None:
        """Show that `done` of `of` parts are done."""
        if self._progress is None and console.stderr().is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=console.stderr(), transient=True)
            self._progress.add_task(self._what, total=of)
            self._progress.start()
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done, total=of)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
