"""AGR-tailored: the step from the honest mean that does most harm to one known filter's aggregate."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from encagg_cli.attacks.aimed import Aimed, reach
from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.directions import Direction, direction_of, spread
from encagg_cli.attacks.mixture import HonestRound, Mixture, mean_of
from encagg_cli.attacks.scene import Columns, Matrix, Scene
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class AgrTailored(Aimed):
    """All attackers upload `μ + γp` with the `γ` for which `target`'s aggregate is farthest from the honest mean.

    The paper derives `γ` for each rule it attacks; searching it by simulating the rule is the generic form.
    """

    name: ClassVar[str] = "agr-tailored"
    summary: ClassVar[str] = "the step from the honest mean that harms a known filter most"
    source: ClassVar[str] = "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021"
    grade: ClassVar[Grade] = "A"

    direction: Direction = setting("unit", "against the mean (unit), its signs (sign), or the deviations (sd)")

    def largest(self, scene: Scene, honest: HonestRound) -> float:
        unit = self.direction == "unit"
        return reach(honest.spread(self.knowledge) if unit else spread(scene, self.knowledge, self.direction))

    def is_weighed(self) -> bool:
        return self.direction == "unit"

    def weights(self, scene: Scene, basis: Any, strength: float) -> Mixture:
        return mean_of(scene, self.knowledge, 1.0 - strength)

    def at(self, columns: Columns, basis: Any, strength: float) -> Matrix:
        return np.tile(columns.mean + strength * direction_of(columns, self.direction), (len(columns.own), 1))
