"""How far a pass over stored rounds has come."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a pass has come: rounds done of all, and bytes of updates read of what (as far as is known) there is."""

    rounds: int
    n_rounds: int
    bytes: int
    n_bytes: int


@dataclass
class Tally:
    """What a stream has done, and what it expects to do."""

    n_rounds: int
    report: Callable[[Progress], None] | None
    rounds: int = 0
    opened: int = 0
    bytes: int = 0
    opened_bytes: int = 0

    def open(self, n_bytes: int) -> None:
        self.opened += 1
        self.opened_bytes += n_bytes

    def add(self, n_bytes: int = 0, rounds: int = 0) -> None:
        self.bytes += n_bytes
        self.rounds += rounds
        if self.report is not None:
            expected = self.opened_bytes * self.n_rounds // max(1, self.opened)
            self.report(Progress(self.rounds, self.n_rounds, self.bytes, max(expected, self.bytes)))
