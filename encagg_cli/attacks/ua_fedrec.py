"""UA-FedRec, its user part: against the signs of the attackers' own mean, by a multiple of their deviations."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from encagg_cli.attacks.base import Grade, OneVector
from encagg_cli.attacks.scene import Columns, Knowledge, Scene, Vector
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class UaFedRec(OneVector):
    """All attackers upload `μ - strength · sign(μ) ⊙ σ`, both of their own honest updates.

    The attack has two more parts, on a news recommender's item encoder and on claimed sample counts; on classifiers
    (EnCAgg's MNIST and CIFAR-10 experiments) only this one applies.
    """

    name: ClassVar[str] = "ua-fedrec"
    summary: ClassVar[str] = "own mean, moved against its signs by 3 standard deviations"
    source: ClassVar[str] = "Yi et al., UA-FedRec, KDD 2023 (user encoder)"
    grade: ClassVar[Grade] = "A"

    knowledge: Knowledge = setting("own", "what it knows: all honest uploads, or the attackers' own honest updates")
    strength: float = setting(3.0, "how many standard deviations (the paper's λ₂)", above=0)

    def survey(self, scene: Scene) -> None:
        scene.require_known(self.knowledge, 2, self.name)

    def vector(self, columns: Columns, survey: Any) -> Vector:
        return columns.mean - self.strength * np.sign(columns.mean) * columns.deviation
