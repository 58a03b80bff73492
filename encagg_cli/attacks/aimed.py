"""What attacks that aim at a filter have in common: they rehearse it, and search the strength that serves them best."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from encagg_cli import filters
from encagg_cli.attacks.base import AttackNeed, Colluding
from encagg_cli.attacks.directions import Spread
from encagg_cli.attacks.mixture import HonestRound, Mixture, ReadRound
from encagg_cli.attacks.rehearsal import Outcome, needs_of_target, rehearse, rehearse_mixture
from encagg_cli.attacks.scene import Columns, Matrix, Scene
from encagg_cli.errors import UsageError
from encagg_cli.filters import Requirement
from encagg_cli.settings import setting
from encagg_cli.sketch import Need

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

    def basis(self, scene: Scene, honest: HonestRound) -> Any:
        """What `at` must be told about the whole round."""
        return None

    @abstractmethod
    def at(self, columns: Columns, basis: Any, strength: float) -> Matrix:
        """The uploads' columns at a strength, without noise, (m, w)."""

    @abstractmethod
    def largest(self, scene: Scene, honest: HonestRound) -> float:
        """The largest strength to try."""

    def search(self, outcome: Callable[[float], Outcome], largest: float) -> float:
        """The strength to settle on, given what the filter would make of each."""
        return most_harm(outcome, largest)

    def is_weighed(self) -> bool:
        """Whether the uploads are linear combinations of honest updates at every strength, but for their noise."""
        return False

    def weights(self, scene: Scene, basis: Any, strength: float) -> Mixture:
        """Those linear combinations."""
        raise TypeError(f"the uploads of {self.name} are no linear combinations of honest updates")

    def is_linear(self) -> bool:
        return self.noise == 0 and self.is_weighed() and needs_of_target(self.target) is not None

    def sketch_needs(self) -> tuple[Need, ...]:
        return (needs_of_target(self.target) or ()) if self.is_linear() else ()

    def survey(self, scene: Scene) -> Aim:
        return self._settle(scene, ReadRound(scene))

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        aim = self._settle(scene, honest)
        return self.weights(scene, aim.basis, aim.strength)

    def _settle(self, scene: Scene, honest: HonestRound) -> Aim:
        scene.require_known(self.knowledge, 2, self.name)
        basis = self.basis(scene, honest)
        sketch = honest.sketch(self.sketch_needs()) if self.is_linear() else None

        def outcome(strength: float) -> Outcome:
            if sketch is not None:
                mixture = self.weights(scene, basis, strength)
                return rehearse_mixture(self.target, scene, self.knowledge, mixture, sketch)
            aim = Aim(basis, strength)
            return rehearse(self.target, scene, self.knowledge, lambda columns: self.columns(columns, aim))

        return Aim(basis, self.search(outcome, self.largest(scene, honest)))

    def uploads(self, columns: Columns, survey: Any) -> Matrix:
        aim: Aim = survey
        return self.at(columns, aim.basis, aim.strength)


@dataclass(kw_only=True)
class AimedWeighed(Aimed):
    """An attack on a filter whose uploads are linear combinations of honest updates: `weights` says which."""

    def is_weighed(self) -> bool:
        return True

    @abstractmethod
    def weights(self, scene: Scene, basis: Any, strength: float) -> Mixture: ...

    def at(self, columns: Columns, basis: Any, strength: float) -> Matrix:
        return self.weights(columns.scene, basis, strength).columns(columns)


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


def reach(around: Spread) -> float:
    """The `γ` at which `μ + γp` is four honest diameters from the mean (four times `‖p‖`, if all updates are equal)."""
    if around.square == 0:
        return 1.0
    diameter = math.sqrt(around.squared_distances.max())
    return _REACH * (diameter / math.sqrt(around.square) if diameter > 0 else 1.0)
