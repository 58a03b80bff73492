"""Covert model poisoning: as near to a harmful target as the filter still accepts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from encagg_cli.attacks.aimed import AimedWeighed, largest_accepted
from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.mixture import HonestRound, Mixture, mean_of
from encagg_cli.attacks.rehearsal import Outcome
from encagg_cli.attacks.scene import Scene
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class CovertPoisoning(AimedWeighed):
    """All attackers upload `μ + t·(h - μ)`, the largest `t ≤ 1` at which `target` accepts every one of them.

    The paper minimises the distance to a harmful model `h` subject to the rule choosing the upload; here
    `h = -reverse · μ`, and the way there is the straight line from the honest mean, by bisection. Where the filter
    accepts no step, the honest mean itself is sent.
    """

    name: ClassVar[str] = "cmp"
    summary: ClassVar[str] = "as near to the reversed mean as a known filter still accepts"
    source: ClassVar[str] = "Wei et al., Covert Model Poisoning, TDSC 2024, arXiv 2101.11799"
    grade: ClassVar[Grade] = "B"

    reverse: float = setting(5.0, "the harmful target, in reversed honest means", above=0)

    def largest(self, scene: Scene, honest: HonestRound) -> float:
        return 1.0

    def search(self, outcome: Callable[[float], Outcome], largest: float) -> float:
        return largest_accepted(outcome, largest)

    def weights(self, scene: Scene, basis: Any, strength: float) -> Mixture:
        return mean_of(scene, self.knowledge, 1.0 - strength * (1.0 + self.reverse))
