"""LIE with the `z` that does most harm to one known filter's aggregate."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from encagg_cli.attacks.aimed import Aimed, reach
from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.directions import spread
from encagg_cli.attacks.mixture import HonestRound
from encagg_cli.attacks.scene import Columns, Matrix, Scene


@dataclass(kw_only=True)
class LieOptimised(Aimed):
    """All attackers upload `μ - z·σ`, `z` found by rehearsing `target`."""

    name: ClassVar[str] = "lie-optimised"
    summary: ClassVar[str] = "LIE with the z that harms a known filter most"
    source: ClassVar[str] = "Baruch et al., NeurIPS 2019; line search as in Allouah et al., AISTATS 2023"
    grade: ClassVar[Grade] = "A"

    def largest(self, scene: Scene, honest: HonestRound) -> float:
        return reach(spread(scene, self.knowledge, "sd"))

    def at(self, columns: Columns, basis: Any, strength: float) -> Matrix:
        return np.tile(columns.mean - strength * columns.deviation, (len(columns.own), 1))
