"""IPM with the factor that does most harm to one known filter's aggregate."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from encagg_cli.attacks.aimed import Aimed, reach
from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.scene import Columns, Matrix, Scene


@dataclass(kw_only=True)
class IpmOptimised(Aimed):
    """All attackers upload `-ε·μ`, `ε > 0` found by rehearsing `target`."""

    name: ClassVar[str] = "ipm-optimised"
    summary: ClassVar[str] = "the honest mean, reversed and scaled to harm a known filter most"
    source: ClassVar[str] = "Xie et al., UAI 2020; line search as in Allouah et al., AISTATS 2023"
    grade: ClassVar[Grade] = "A"

    def largest(self, scene: Scene) -> float:
        return reach(scene, self.knowledge, "unit")

    def at(self, columns: Columns, basis: Any, strength: float) -> Matrix:
        return np.tile(-strength * columns.mean, (len(columns.own), 1))
