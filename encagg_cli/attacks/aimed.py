"""What attacks that aim at a filter have in common: they rehearse it, and search the strength that serves them best."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from encagg_cli import filters
from encagg_cli.attacks.base import AttackNeed, Colluding
from encagg_cli.attacks.directions import Direction, spread
from encagg_cli.attacks.rehearsal import Outcome, rehearse
from encagg_cli.attacks.scene import Columns, Knowledge, Matrix, Scene
from encagg_cli.errors import UsageError
from encagg_cli.filters import Requirement
from encagg_cli.settings import setting

_HALVINGS = 12  # of the largest strength, to find where harm passes
_REFINEMENTS = 3  # halvings, in the exponent, of the step around the best strength
_BISECTIONS = 14
_REACH = 4.0  # the largest strength, in diameters of the honest updates


@dataclass(frozen=True)
class Aim:
    """What a survey found: what the attack had to know of the round (`basis`), and the strength it settled on."""

    basis: Any
    strength: float


@dataclass(kw_only=True)
class Aimed(Colluding):
    """An attack on a filter that it knows: it searches the strength of its uploads by rehearsing the filter.

    `target` is any of our filters, with settings: `multi-krum(f=8)`, or `f=oracle` for a filter that is told the truth.
    A fresh filter is rehearsed each time, so what a filter remembers of earlier rounds is not foreseen. The rehearsed
    uploads carry their noise.
    """

    target: str = setting("encagg", "the filter to deceive, with its settings")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._needs_known_benign() and self.knowledge == "own":
            raise UsageError(
                f"{self.name} cannot rehearse {self.target} with the attackers' own updates alone",
                hint="that filter needs known-benign clients: knowledge=all, or aim at another filter",
            )

    def requires(self) -> frozenset[AttackNeed]:
        return frozenset({AttackNeed.KNOWN_BENIGN}) if self._needs_known_benign() else frozenset()

    def _needs_known_benign(self) -> bool:
        return Requirement.KNOWN_BENIGN in filters.get(self.target).requires

    def basis(self, scene: Scene) -> Any:
        """What `at` must be told about the whole round."""
        return None

    @abstractmethod
    def at(self, columns: Columns, basis: Any, strength: float) -> Matrix:
        """The uploads' columns at a strength, without noise, (m, w)."""

    @abstractmethod
    def largest(self, scene: Scene) -> float:
        """The largest strength to try."""

    def search(self, outcome: Callable[[float], Outcome], largest: float) -> float:
        """The strength to settle on, given what the filter would make of each."""
        return most_harm(outcome, largest)

    def survey(self, scene: Scene) -> Aim:
        scene.require_known(self.knowledge, 2, self.name)
        basis = self.basis(scene)

        def outcome(strength: float) -> Outcome:
            aim = Aim(basis, strength)
            return rehearse(self.target, scene, self.knowledge, lambda columns: self.columns(columns, aim))

        return Aim(basis, self.search(outcome, self.largest(scene)))

    def uploads(self, columns: Columns, survey: Any) -> Matrix:
        aim: Aim = survey
        return self.at(columns, aim.basis, aim.strength)


def most_harm(outcome: Callable[[float], Outcome], largest: float) -> float:
    """The strength in (0, `largest`] whose aggregate is farthest from the honest mean while some crafted upload passes.

    Tries `largest` halved again and again, then around the best. Where nothing passes at any strength, the one of most
    harm: a filter can be made to lose honest uploads even so.
    """
    tried: dict[float, tuple[bool, float]] = {}

    def value(strength: float) -> tuple[bool, float]:
        if strength not in tried:
            result = outcome(strength)
            tried[strength] = (bool(result.accepted.any()), result.harm)
        return tried[strength]

    best = max((math.ldexp(largest, -halvings) for halvings in range(_HALVINGS + 1)), key=value)
    step = 2.0
    for _ in range(_REFINEMENTS):
        step = math.sqrt(step)
        best = max((best, best / step, min(best * step, largest)), key=value)
    return best


def largest_accepted(outcome: Callable[[float], Outcome], largest: float) -> float:
    """The largest strength in [0, `largest`] at which all crafted uploads pass, by bisection; 0 where none is found."""
    if outcome(largest).accepted.all():
        return largest
    low, high = 0.0, largest
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if outcome(middle).accepted.all() else (low, middle)
    return low


def reach(scene: Scene, knowledge: Knowledge, direction: Direction) -> float:
    """The `γ` at which `μ + γp` is four honest diameters from the mean (four times `‖p‖`, if all updates are equal)."""
    around = spread(scene, knowledge, direction)
    if around.square == 0:
        return 1.0
    diameter = math.sqrt(around.squared_distances.max())
    return _REACH * (diameter / math.sqrt(around.square) if diameter > 0 else 1.0)
