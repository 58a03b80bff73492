"""How the tool speaks: data on stdout, everything else on stderr, nothing hostile passed on to a terminal.

`NO_COLOR` and `FORCE_COLOR` are honoured by rich itself.
"""

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

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
