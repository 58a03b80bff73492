"""Inner product manipulation: upload the honest mean, reversed."""

from dataclasses import dataclass
from typing import ClassVar

from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.mixture import HonestRound, LinearColluding, Mixture, mean_of
from encagg_cli.attacks.scene import Scene
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class Ipm(LinearColluding):
    """All attackers upload `-epsilon · μ`: small factors hide among the honest, large ones break averages."""

    name: ClassVar[str] = "ipm"
    summary: ClassVar[str] = "the honest mean, reversed"
    source: ClassVar[str] = "Xie et al., Fall of Empires, UAI 2020"
    grade: ClassVar[Grade] = "A"

    epsilon: float = setting(0.5, "factor on the reversed mean", above=0)

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        scene.require_known(self.knowledge, 1, self.name)
        return mean_of(scene, self.knowledge, -self.epsilon)
