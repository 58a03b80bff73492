"""Filters that must be told how many attackers there are: a count, a share, or the truth, and what theory allows."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.errors import UsageError
from encagg_cli.filters.base import Context, Filter, Requirement
from encagg_cli.settings import AttackerCount, check_settings, setting
from encagg_cli.sketch import RoundSketch


def attacker_count(told: AttackerCount, n: int, context: Context) -> int:
    """The number of attackers in a round of `n` uploads, from a count, a share below 1 (rounded up) or the truth."""
    if told == "oracle":
        if context.poisoned is None:
            raise UsageError("f=oracle needs ground truth, and this run has none")
        return int(context.poisoned.sum())
    assert isinstance(told, int | float)
    # Rounded first: 0.7 · 10 is a little more than 7 in floating point.
    return int(np.ceil(round(told * n, 9))) if told < 1 else int(told)


def check_attacker_count(name: str, told: AttackerCount) -> None:
    """Raise UsageError for what is neither a whole number, nor a share below 1, nor the truth."""
    if isinstance(told, float) and told >= 1 and told != int(told):
        raise UsageError(f"{name}.f must be a whole number or a share below 1, not {told}")


@dataclass(kw_only=True)
class ToldAttackers(Filter):
    """Base of filters that are told `f`; `theory` is the condition under which they promise anything."""

    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.ATTACKER_COUNT})
    theory: ClassVar[str]

    f: AttackerCount = setting(None, "number of attackers: a count, a share below 1, or oracle", at_least=0)
    relaxed: bool = setting(False, "run where the theory's condition on f fails, and say so in every verdict")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.f is None:
            raise UsageError(
                f"{self.name} must be told the number of attackers",
                hint=f"write {self.name}(f=8); or a share (f=0.3), or f=oracle where the run has ground truth",
            )
        check_attacker_count(self.name, self.f)

    @staticmethod
    @abstractmethod
    def most_attackers(n: int) -> int:
        """The largest `f` that the theory admits among `n` uploads; negative where it admits none."""

    def attackers(self, sketch: RoundSketch, context: Context) -> tuple[int, tuple[str, ...]]:
        """`f` for this round, below the number of uploads, and what to note in every verdict.

        Raises UsageError where the theory's condition fails and `relaxed` is not set.
        """
        n = len(sketch.clients)
        f = attacker_count(self.f, n, context)
        notes = ("oracle",) if self.f == "oracle" else ()
        if self._sound(sketch.number, n, f):
            return f, notes
        return min(f, n - 1), (*notes, "relaxed")

    def check_round(self, number: int, clients: int) -> None:
        if clients and self.f is not None and self.f != "oracle":
            self._sound(number, clients, attacker_count(self.f, clients, Context(np.zeros(clients, dtype=bool))))

    def _room(self, n: int) -> str:
        most = self.most_attackers(n)
        return f"f can be {most} at most; " if most >= 0 else ""

    def _sound(self, number: int, n: int, f: int) -> bool:
        """Whether the theory admits `f` of `n`; raises UsageError where it does not and `relaxed` is not set."""
        if f <= self.most_attackers(n):
            return True
        if not self.relaxed:
            raise UsageError(
                f"round {number}: {self.name} with f={f} needs {self.theory}, and there are {n} uploads",
                hint=f"{self._room(n)}{self.name}(…,relaxed=true) runs it all the same, and says so in every verdict",
            )
        return False
