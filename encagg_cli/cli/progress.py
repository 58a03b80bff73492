"""A progress bar on stderr, on a terminal only."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from encagg_cli import console

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield `items`, with a bar that counts them where stderr is a terminal."""
    if not console.stderr().is_terminal:
        yield from items
        return
    from rich.progress import track as rich_track

    yield from rich_track(items, description=what, total=total, console=console.stderr(), transient=True)
