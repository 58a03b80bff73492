"""What Min-Max and Min-Sum have in common: a step from the honest mean, as long as a bound allows."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from encagg_cli.attacks.base import OneVector
from encagg_cli.attacks.directions import Direction, Spread, direction_of, spread
from encagg_cli.attacks.mixture import HonestRound, Mixture, mean_of
from encagg_cli.attacks.scene import Columns, Scene, Vector
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class Directed(OneVector):
    """All attackers upload `μ + γp`; with `direction=unit`, `p = -μ`, that is a multiple of the mean."""

    direction: Direction = setting("unit", "against the mean (unit), its signs (sign), or the deviations (sd)")

    @abstractmethod
    def gamma(self, around: Spread) -> float:
        """The length of the step, in lengths of `p`."""

    def survey(self, scene: Scene) -> float:
        scene.require_known(self.knowledge, 2, self.name)
        return self.gamma(spread(scene, self.knowledge, self.direction))

    def vector(self, columns: Columns, survey: Any) -> Vector:
        return columns.mean + float(survey) * direction_of(columns, self.direction)

    def is_linear(self) -> bool:
        return self.direction == "unit" and self.noise == 0

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        scene.require_known(self.knowledge, 2, self.name)
        return mean_of(scene, self.knowledge, 1.0 - self.gamma(honest.spread(self.knowledge)))
