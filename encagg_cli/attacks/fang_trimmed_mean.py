"""Fang's directed deviation against the trimmed mean (and the median): just outside the honest range."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from encagg_cli.attacks.base import Grade, Informed
from encagg_cli.attacks.scene import Columns, Matrix, Scene
from encagg_cli.settings import setting

_LOW, _HIGH = 3.0, 4.0  # standard deviations from the mean, for partial knowledge


@dataclass(kw_only=True)
class FangTrimmedMean(Informed):
    """In every coordinate, each attacker goes against the honest direction, to a random point beyond the honest range.

    Full knowledge (`knowledge=all`): below the smallest honest value where their mean is positive, above the largest
    where it is negative, by a factor drawn from [1, `factor`] that leads outward. Partial knowledge (`own`):
    `μ - c·σ·sign(μ)` of the attackers' own honest updates, `c` drawn from [3, 4]. Attackers draw separately, so that
    no two uploads are equal.
    """

    name: ClassVar[str] = "fang-trimmed-mean"
    summary: ClassVar[str] = "just beyond the honest range, against the mean's sign, in every coordinate"
    source: ClassVar[str] = "Fang et al., Local Model Poisoning Attacks, USENIX Security 2020"
    grade: ClassVar[Grade] = "A"
    colluding: ClassVar[bool] = True

    factor: float = setting(2.0, "largest factor beyond the range, with full knowledge (the paper's b)", above=1)

    def survey(self, scene: Scene) -> None:
        scene.require_known(self.knowledge, 1 if self.knowledge == "all" else 2, self.name)

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        sign = np.sign(columns.mean)
        if self.knowledge == "own":
            return columns.mean - columns.uniform("fang", _LOW, _HIGH) * columns.deviation * sign
        edge = np.where(sign > 0, columns.known.min(axis=0), columns.known.max(axis=0))
        drawn = columns.uniform("fang", 1.0, self.factor)
        # Outward is down where the direction is up: a negative edge grows, a positive one shrinks, and the reverse.
        grow = np.where(sign > 0, edge < 0, edge > 0)
        crafted: Matrix = np.where(grow, edge * drawn, edge / drawn)
        return np.where(sign == 0, columns.mean, crafted)
