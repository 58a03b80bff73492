"""Who poisons when: which clients are malicious, whether they poison in a round, and by which attack.

A malicious client may upload honestly, so the truth that is stored belongs to an upload. The share of attackers that a
campaign is given is the largest that a round can have. All draws depend on the seed, the round and the sorted ids.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from encagg_cli.attacks.scene import generator
from encagg_cli.errors import UsageError
from encagg_cli.settings import build, canonical, check_settings, parse_call, setting


@dataclass(kw_only=True)
class Schedule(ABC):
    """Base of all schedules; what they have in common as settings.

    `free` and `full` name rounds as `0:3+7` (half-open ranges and single rounds, joined by +). Attack-free rounds come
    before all-on rounds, and both before the schedule's own decision.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    identities: Literal["fixed", "changing"] = setting("fixed", "who is malicious: one set, or a new one now and then")
    every: int = setting(1, "rounds after which a changing set is drawn anew", at_least=1)
    choice: Literal["switch", "turns", "mix"] = setting(
        "switch", "of several attacks: one drawn a round (switch), in turn (turns), or divided among attackers (mix)"
    )
    free: str = setting("", "rounds without any attack, as 0:3+7")
    full: str = setting("", "rounds in which every attacker poisons, as 0:3+7")

    def __post_init__(self) -> None:
        check_settings(self)
        self._free = parse_rounds(self.free, f"{self.name}.free")
        self._full = parse_rounds(self.full, f"{self.name}.full")

    @abstractmethod
    def decide(self, number: int, attackers: Sequence[str], seed: int) -> tuple[str, ...]:
        """Which of the malicious clients poison in a round that is neither attack-free nor all-on."""

    def poisoning(self, number: int, attackers: Sequence[str], seed: int) -> tuple[str, ...]:
        """Which of the malicious clients `attackers` (sorted) poison in this round."""
        if _contains(self._free, number):
            return ()
        if _contains(self._full, number):
            return tuple(attackers)
        return self.decide(number, attackers, seed)

    def malicious(self, number: int, candidates: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
        """The `count` malicious clients of this round, among the sorted `candidates`."""
        epoch = number // self.every if self.identities == "changing" else 0
        drawn = generator(seed, "malicious", epoch).permutation(len(candidates))[:count]
        return tuple(candidates[index] for index in sorted(drawn))

    def choose(self, number: int, clients: Sequence[str], attacks: int, seed: int) -> dict[str, int]:
        """Which of `attacks` attacks each poisoning client runs in this round."""
        if self.choice == "turns":
            return dict.fromkeys(clients, number % attacks)
        rng = generator(seed, "choice", number)
        if self.choice == "switch":
            return dict.fromkeys(clients, int(rng.integers(attacks)))
        dealt = rng.permutation(len(clients))
        return {client: int(place) % attacks for client, place in zip(clients, dealt, strict=True)}


@dataclass(kw_only=True)
class Bernoulli(Schedule):
    """Every attacker decides afresh in each round, with probability `p` (EnCAgg's dynamic poisoning; `p` is ours)."""

    name: ClassVar[str] = "bernoulli"
    summary: ClassVar[str] = "every attacker decides afresh in each round"

    p: float = setting(0.5, "probability that an attacker poisons in a round", at_least=0, at_most=1)

    def decide(self, number: int, attackers: Sequence[str], seed: int) -> tuple[str, ...]:
        draws = generator(seed, "decision", number).random(len(attackers))
        return tuple(client for client, draw in zip(attackers, draws, strict=True) if draw < self.p)


@dataclass(kw_only=True)
class Always(Schedule):
    """Every attacker poisons in every round."""

    name: ClassVar[str] = "always"
    summary: ClassVar[str] = "every attacker poisons in every round"

    def decide(self, number: int, attackers: Sequence[str], seed: int) -> tuple[str, ...]:
        return tuple(attackers)


@dataclass(kw_only=True)
class Periodic(Schedule):
    """All attackers poison for `on` rounds, are honest for `off` rounds, and so on, from round `start`."""

    name: ClassVar[str] = "periodic"
    summary: ClassVar[str] = "all attackers poison for some rounds, then none for some"

    on: int = setting(5, "rounds with poison", at_least=1)
    off: int = setting(5, "rounds without", at_least=0)
    start: int = setting(0, "the first round with poison", at_least=0)

    def decide(self, number: int, attackers: Sequence[str], seed: int) -> tuple[str, ...]:
        since = number - self.start
        return tuple(attackers) if since >= 0 and since % (self.on + self.off) < self.on else ()


SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in (Bernoulli, Always, Periodic)}


def get_schedule(text: str) -> Schedule:
    """Make a schedule from its canonical text, such as `bernoulli(p=0.5,free=0:2)`; raises UsageError."""
    name, arguments = parse_call(text, "a schedule")
    if name not in SCHEDULES:
        raise UsageError(f"there is no schedule {name!r}", hint=f"choose from {', '.join(SCHEDULES)}")
    return build(SCHEDULES[name], arguments)


def count_of_attackers(ratio: float, clients: int) -> int:
    """How many of `clients` a share of `ratio` is, rounded to the nearest."""
    return int(np.floor(ratio * clients + 0.5 + 1e-9))


def check_share(ratio: float, clients: Collection[str], trusted: Collection[str]) -> int:
    """The number of malicious clients, which are never known-benign ones; raises UsageError where it cannot be."""
    if not 0 <= ratio < 1:
        raise UsageError(f"the share of attackers must be at least 0 and below 1, not {ratio}")
    count = count_of_attackers(ratio, len(clients))
    if ratio > 0 and count == 0:
        raise UsageError(f"a share of {ratio} of {len(clients)} clients is no attacker at all", hint="raise --ratio")
    candidates = len(set(clients) - set(trusted))
    if count > candidates:
        raise UsageError(
            f"a share of {ratio} of {len(clients)} clients is {count} attackers, "
            f"and only {candidates} are not known-benign",
            hint="lower --ratio, or name fewer known-benign clients",
        )
    if count and count == len(clients):
        raise UsageError(f"a share of {ratio} of {len(clients)} clients leaves no honest client", hint="lower --ratio")
    return count


def parse_rounds(text: str, label: str) -> tuple[tuple[int, int | None], ...]:
    """Ranges of rounds, half-open, from `0:3+7+20:`; raises UsageError."""
    ranges: list[tuple[int, int | None]] = []
    for part in filter(None, (part.strip() for part in text.split("+"))):
        first, colon, last = part.partition(":")
        try:
            low = int(first) if first or not colon else 0
            high = (int(last) if last else None) if colon else low + 1
        except ValueError:
            raise UsageError(f"{label} cannot be read from {part!r}", hint="write rounds as 0:3+7") from None
        if low < 0 or (high is not None and high <= low):
            raise UsageError(f"{label} names no round with {part!r}", hint="write rounds as 0:3+7; 3 is not included")
        ranges.append((low, high))
    return tuple(ranges)


def _contains(ranges: tuple[tuple[int, int | None], ...], number: int) -> bool:
    return any(low <= number and (high is None or number < high) for low, high in ranges)


__all__ = ["SCHEDULES", "Always", "Bernoulli", "Periodic", "Schedule", "canonical", "check_share", "get_schedule"]
