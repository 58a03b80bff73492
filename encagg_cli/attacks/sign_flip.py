"""Sign flip: each attacker uploads its own honest update, reversed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.mixture import HonestRound, Linear, Mixture
from encagg_cli.attacks.scene import Scene
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class SignFlip(Linear):
    """Attacker `i` uploads `-scale · g_i`, where `g_i` is the honest update that it trained.

    ByzFL's attack of this name sends the reversed mean of the honest updates instead: that is `ipm(epsilon=1.0)`.
    """

    name: ClassVar[str] = "sign-flip"
    summary: ClassVar[str] = "each attacker's own honest update, reversed"
    source: ClassVar[str] = "Li et al., RSA, AAAI 2019"
    grade: ClassVar[Grade] = "A"

    scale: float = setting(1.0, "factor on the reversed update", above=0)

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        return Mixture.of_own(np.full(scene.attackers, -self.scale))
