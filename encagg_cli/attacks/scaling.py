"""Scaling, or model replacement: each attacker's own honest update, amplified."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.mixture import HonestRound, Linear, Mixture
from encagg_cli.attacks.scene import Scene
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class Scaling(Linear):
    """Attacker `i` uploads `factor · g_i`; with `factor=clients`, as many times as the round has clients.

    Model replacement amplifies a backdoored update until it survives the average; here the attacker's own honest
    update is amplified, which harms by its weight alone.
    """

    name: ClassVar[str] = "scaling"
    summary: ClassVar[str] = "each attacker's own honest update, amplified"
    source: ClassVar[str] = "Bagdasaryan et al., How To Backdoor Federated Learning, AISTATS 2020"
    grade: ClassVar[Grade] = "A"

    factor: float | Literal["clients"] = setting(10.0, "how many times; clients: their number in the round")

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        factor = len(scene.source.client_ids) if self.factor == "clients" else self.factor
        return Mixture.of_own(np.full(scene.attackers, float(factor)))
