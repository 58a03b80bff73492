"""Everything that can go wrong, as one line a person can act on and one exit code a script can test.

`main()` turns an `EncaggError` into its message and its `exit_code`; any other exception is a defect of ours (exit 1).
Errors that mirror a standard one also subclass it, so that library users can catch what they already know.
"""

from typing import ClassVar


class EncaggError(Exception):
    """Base of all errors that `encagg` raises on purpose.

    The message says what is wrong and where; `hint` says what to do next and is shown on a second line.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:  # KeyError would quote the message
        return self.message


class UsageError(EncaggError, ValueError):
    """A flag, a setting or a combination of them that cannot be meant (exit 2)."""

    exit_code = 2


class GateFailed(EncaggError):
    """A score did not reach its bound (exit 3)."""

    exit_code = 3


class UnusableInput(EncaggError, ValueError):
    """Stored data that is damaged, hostile or inconsistent (exit 4)."""

    exit_code = 4


class RoundNotFound(EncaggError, KeyError):
    """A round that was asked for is not stored (exit 4)."""

    exit_code = 4


class NothingToDo(EncaggError):
    """There is nothing to record, to filter or to score (exit 5)."""

    exit_code = 5


class OutputError(EncaggError, OSError):
    """An output could not be written: full disk, permissions, or it exists already (exit 6)."""

    exit_code = 6


class OutputExists(UsageError):
    """An output exists and `--force` was not given (exit 2)."""
