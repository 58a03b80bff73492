"""How the tool speaks: data on stdout, everything else on stderr, nothing hostile passed on to a terminal.

`NO_COLOR` and `FORCE_COLOR` are honoured by rich itself.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNLIMITED: Final = 10_000
_LONGEST_NAME: Final = 24
_CI_COMMAND: Final = re.compile(r"##(?=\w*\[)")


@cache
def stdout() -> "Console":
    """Where data goes."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


@cache
def stderr() -> "Console":
    """Where messages, warnings and progress go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def patient_stdout() -> Iterator[None]:
    """Let a reader of stdout leave early (`encagg … | head`) without changing what a command does or returns.

    A gate that fails must exit with 3, whoever reads its table.
    """
    real = sys.stdout
    sys.stdout = _Patient(real)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = real


class _Patient:
    """A stream that goes on into nothing when nobody reads it any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def narrowed(
    make: "Callable[[frozenset[str]], Table]", least_important: Sequence[str], to: "Console | None" = None
) -> "Table":
    """The table that `make` makes without some columns: as few of the `least_important`, in that order, as fits.

    Rich would otherwise squeeze whichever columns may wrap, names first, until nothing can be read.
    """
    from rich.measure import Measurement

    to = to or stdout()
    unlimited = to.options.update(max_width=_UNLIMITED)
    for count in range(len(least_important) + 1):
        left_out = least_important[:count]
        table = make(frozenset(left_out))
        if Measurement.get(to, unlimited, table).minimum <= to.width:
            break
    if left_out:
        names = (name.replace("-\n", "-").replace("\n", " ") for name in left_out)
        table.caption = f"(too narrow for: {', '.join(names)})"
        table.caption_justify = "left"
    return table


def name_width(names: Iterable[str]) -> int:
    """The least width of a column of methods: that of its longest name, without settings, which may be folded."""
    return min(_LONGEST_NAME, max((len(name.partition("(")[0]) for name in names), default=0))


def counted(number: int, what: str) -> str:
    """A count in words: `1 round`, `2 rounds`, `1,000 rounds`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Text from a file made safe to print: control characters, line breaks and ANSI escapes become visible escapes.

    So do the `##[command]` and `##vso[command]` that CI servers obey wherever in a line they stand.
    """
    visible = "".join(
        char
        if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else char.encode("unicode_escape").decode()
        for char in text
    )
    return _CI_COMMAND.sub(r"#\\x23", visible)


def warn(message: str) -> None:
    """One line on stderr about something that went on but should be known."""
    stderr().print(f"warning: {plain(message)}", style="yellow", markup=False, soft_wrap=True)


def note(message: str) -> None:
    """One line on stderr about what was done, or what to do next."""
    stderr().print(plain(message), markup=False, soft_wrap=True)
