"""A stand-in for FedIMP: harm is done only where it matters, in the parameters of largest Fisher information."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks.base import Grade, OneVector
from encagg_cli.attacks.scene import Columns, Scene, Vector, visit
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class FedImpLike(OneVector):
    """All attackers upload `μ`, moved by `-z·σ` in the share `top` of coordinates with the largest mean square.

    FedIMP ranks parameters by Fisher information and boosts a perturbation of the first. Its formula is not public: the
    mean square of the known updates stands in for the information, and LIE's step for the perturbation.
    """

    name: ClassVar[str] = "fedimp-like"
    summary: ClassVar[str] = "LIE's step, boosted, in the most important coordinates only"
    source: ClassVar[str] = "stand-in for Li et al., FedIMP, Computers & Security 144, 2024"
    grade: ClassVar[Grade] = "C"

    top: float = setting(0.1, "share of coordinates that are perturbed", above=0, at_most=1)
    z: float = setting(3.0, "how many standard deviations")

    def survey(self, scene: Scene) -> float:
        """The importance from which a coordinate is perturbed."""
        scene.require_known(self.knowledge, 2, self.name)
        importance = np.concatenate([_importance(columns) for columns in visit(scene, self.knowledge)])
        place = len(importance) - max(1, round(self.top * len(importance)))
        return float(np.partition(importance, place)[place])

    def vector(self, columns: Columns, survey: Any) -> Vector:
        chosen = _importance(columns) >= float(survey)
        return columns.mean - np.where(chosen, self.z * columns.deviation, 0.0)


def _importance(columns: Columns) -> NDArray[np.float64]:
    importance: NDArray[np.float64] = np.square(columns.known).mean(axis=0)
    return importance
