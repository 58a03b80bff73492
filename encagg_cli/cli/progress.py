"""Progress bars on stderr, on a terminal only."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from encagg_cli import console

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield `items`, with a bar that counts them where stderr is a terminal."""
    if not console.stderr().is_terminal:
        yield from items
        return
    from rich.progress import track as rich_track

    yield from rich_track(items, description=what, total=total, console=console.stderr(), transient=True)


class Bar:
    """A bar for work that reports how much of it is done."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._progress: Progress | None = None

    def show(self, done: int, of: int) -> None:
        """Show that `done` of `of` parts are done."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done, total=of)

    def __enter__(self) -> "Bar":
        if console.stderr().is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=console.stderr(), transient=True)
            self._progress.add_task(self._what, total=None)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
