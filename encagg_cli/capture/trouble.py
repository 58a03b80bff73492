"""How trouble in recording reaches training: as an exception, or as one warning each, as the user chose."""

import warnings
from typing import Final, Literal

from encagg_cli.errors import EncaggError

OnError = Literal["raise", "warn"]
ON_ERROR: Final[tuple[OnError, ...]] = ("raise", "warn")


class CaptureWarning(UserWarning):
    """Something about a recording that its owner should know; training goes on."""


def say(message: str) -> None:
    """Warn of something that is no failure. Where warnings are made errors, this raises."""
    warnings.warn(message, CaptureWarning, stacklevel=2)


class Trouble:
    """What went wrong so far (`failures`), and what is done about it."""

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.failures: list[Exception] = []

    def meet(self, error: Exception, consequence: str) -> None:
        """Raise `error`, or warn of it and say what it means for the recording."""
        self.failures.append(error)
        if self.on_error == "raise":
            raise error
        kind = "" if isinstance(error, EncaggError) else f"{type(error).__name__}: "
        warnings.warn(f"{kind}{error}; {consequence}", CaptureWarning, stacklevel=3)
