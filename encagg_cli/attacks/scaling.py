"""Scaling, or model replacement: each attacker's own honest update, amplified."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from encagg_cli.attacks.base import Attack, Grade
from encagg_cli.attacks.scene import Columns, Matrix, Scene
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class Scaling(Attack):
    """Attacker `i` uploads `factor · g_i`; with `factor=clients`, as many times as the round has clients.

    Model replacement amplifies a backdoored update until it survives the average; here the attacker's own honest
    update is amplified, which harms by its weight alone.
    """

    name: ClassVar[str] = "scaling"
    summary: ClassVar[str] = "each attacker's own honest update, amplified"
    source: ClassVar[str] = "Bagdasaryan et al., How To Backdoor Federated Learning, AISTATS 2020"
    grade: ClassVar[Grade] = "A"

    factor: float | Literal["clients"] = setting(10.0, "how many times; clients: their number in the round")

    def survey(self, scene: Scene) -> float:
        return float(len(scene.source.client_ids)) if self.factor == "clients" else float(self.factor)

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        return float(survey) * columns.own
