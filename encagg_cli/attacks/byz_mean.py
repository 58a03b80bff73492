"""ByzMean: half of the attackers make the plain mean of all uploads equal to what the other half sends."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from encagg_cli.attacks.base import Colluding, Grade
from encagg_cli.attacks.scene import Columns, Matrix, Scene
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class ByzMean(Colluding):
    """The first `⌊m/2⌋` attackers, in id order, upload LIE's vector `v`; the others upload what makes the mean `v`.

    With `b` honest uploads of mean `μ` and `m₂` of those others: `u = ((b + m₂)·v - b·μ) / m₂`. With
    `knowledge=own`, `μ` is the attackers' estimate.
    """

    name: ClassVar[str] = "byz-mean"
    summary: ClassVar[str] = "half send LIE's vector, half make it the mean of all uploads"
    source: ClassVar[str] = "Xu et al., SignGuard, ICDCS 2022"
    grade: ClassVar[Grade] = "A"

    z: float = setting(1.5, "LIE's number of standard deviations")

    def survey(self, scene: Scene) -> None:
        scene.require_known(self.knowledge, 2, self.name)

    def uploads(self, columns: Columns, survey: Any) -> Matrix:
        v = columns.mean - self.z * columns.deviation
        m, b = len(columns.own), len(columns.scene.honest_clients)
        others = m - m // 2
        crafted = np.tile(v, (m, 1))
        crafted[m // 2 :] = ((b + others) * v - b * columns.mean) / others
        return crafted
