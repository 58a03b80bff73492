"""Gaussian noise: instead of the update, on top of it, or shaped like the honest ones."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from encagg_cli.attacks.base import Grade, Informed
from encagg_cli.attacks.scene import Columns, Matrix, Scene, Vector, visit
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class Gaussian(Informed):
    """Each attacker uploads noise of its own.

    "replace": `N(0, sigma²)` in every coordinate; "add": the same on its honest update; "fitted": `N(μ, σ)` of the
    known honest updates, rescaled to the norm of its honest update.
    """

    name: ClassVar[str] = "gaussian"
    summary: ClassVar[str] = "noise, instead of the update or on top of it"
    source: ClassVar[str] = "Blanchard et al., NeurIPS 2017 (replace); Zhang et al., FLDetector, KDD 2022 (fitted)"
    grade: ClassVar[Grade] = "A"

    mode: Literal["replace", "add", "fitted"] = setting("replace", "instead of the update, added, or fitted to others")
    sigma: float = setting(1.0, "standard deviation of the noise, for replace and add", above=0)

    def survey(self, scene: Scene) -> Vector | None:
        """For "fitted", the factor that gives each attacker's noise the norm of its honest update, (m,)."""
        if self.mode != "fitted":
            return None
        scene.require_known(self.knowledge, 2, self.name)
        noise, own = np.zeros(scene.attackers), np.zeros(scene.attackers)
        for columns in visit(scene, self.knowledge):
            noise += np.square(self._fitted(columns)).sum(axis=1)
            own += np.square(columns.own).sum(axis=1)
        return np.sqrt(np.divide(own, noise, out=np.zeros_like(own), where=noise > 0))

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        if self.mode == "fitted":
            factor: Vector = survey
            return factor[:, None] * self._fitted(columns)
        noise = self.sigma * columns.normal("gaussian")
        return noise if self.mode == "replace" else columns.own + noise

    def _fitted(self, columns: Columns) -> Matrix:
        return columns.mean + columns.deviation * columns.normal("gaussian")
