"""Inner product manipulation: upload the honest mean, reversed."""

from dataclasses import dataclass
from typing import Any, ClassVar

from encagg_cli.attacks.base import Grade, OneVector
from encagg_cli.attacks.scene import Columns, Scene, Vector
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class Ipm(OneVector):
    """All attackers upload `-epsilon · μ`: small factors hide among the honest, large ones break averages."""

    name: ClassVar[str] = "ipm"
    summary: ClassVar[str] = "the honest mean, reversed"
    source: ClassVar[str] = "Xie et al., Fall of Empires, UAI 2020"
    grade: ClassVar[Grade] = "A"

    epsilon: float = setting(0.5, "factor on the reversed mean", above=0)

    def survey(self, scene: Scene) -> None:
        scene.require_known(self.knowledge, 1, self.name)

    def vector(self, columns: Columns, survey: Any) -> Vector:
        return -self.epsilon * columns.mean
