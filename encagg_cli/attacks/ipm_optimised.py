"""IPM with the factor that does most harm to one known filter's aggregate."""

from dataclasses import dataclass
from typing import Any, ClassVar

from encagg_cli.attacks.aimed import AimedWeighed, reach
from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.mixture import HonestRound, Mixture, mean_of
from encagg_cli.attacks.scene import Scene


@dataclass(kw_only=True)
class IpmOptimised(AimedWeighed):
    """All attackers upload `-ε·μ`, `ε > 0` found by rehearsing `target`."""

    name: ClassVar[str] = "ipm-optimised"
    summary: ClassVar[str] = "the honest mean, reversed and scaled to harm a known filter most"
    source: ClassVar[str] = "Xie et al., UAI 2020; line search as in Allouah et al., AISTATS 2023"
    grade: ClassVar[Grade] = "A"

    def largest(self, scene: Scene, honest: HonestRound) -> float:
        return reach(honest.spread(self.knowledge))

    def weights(self, scene: Scene, basis: Any, strength: float) -> Mixture:
        return mean_of(scene, self.knowledge, -strength)
