"""Fang's directed deviation against Krum: the longest step against the honest direction that Krum still selects."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from encagg_cli.attacks.base import Grade, OneVector
from encagg_cli.attacks.scene import Columns, Matrix, Scene, Vector, visit
from encagg_cli.filters.krum import krum_scores
from encagg_cli.settings import setting


@dataclass(frozen=True)
class Honest:
    """Figures of `b` known honest updates and the signs `s` of their mean.

    inner  (b, b) `⟨g_i, g_j⟩`
    along  (b,)   `⟨g_i, s⟩`
    square        `‖s‖²`
    d             number of parameters
    """

    inner: Matrix
    along: Vector
    square: float
    d: int

    @property
    def squared_distances(self) -> Matrix:
        squares = np.diag(self.inner)
        distances: Matrix = np.maximum(squares[:, None] + squares[None, :] - 2.0 * self.inner, 0.0)
        return distances

    def krum_selects(self, step: float, copies: int) -> bool:
        """Whether Krum, told `f = copies`, selects one of `copies` uploads of `-step · s` among the honest ones."""
        b = len(self.along)
        everyone = np.zeros((b + copies, b + copies))
        everyone[:b, :b] = self.squared_distances
        crafted = np.maximum(np.diag(self.inner) + 2.0 * step * self.along + step**2 * self.square, 0.0)
        everyone[:b, b:], everyone[b:, :b] = crafted[:, None], crafted[None, :]
        scores = krum_scores(everyone, copies)
        return bool(scores[b:].min() < scores[:b].min())

    def first_step(self, f: int) -> float:
        """The paper's upper bound on the step (its theorem 1), from which the search starts.

        It divides by `n - 2f - 1`, which is not positive for a majority of attackers; 1 takes its place there.
        """
        b = len(self.along)
        distances = np.sqrt(self.squared_distances)
        nearest = np.sort(distances, axis=1)[:, 1 : max(2, b - 1)].sum(axis=1)
        root = np.sqrt(self.d)
        return float(nearest.min() / (max(1, b - f - 1) * root) + np.sqrt(np.diag(self.inner)).max() / root)


@dataclass(kw_only=True)
class FangKrum(OneVector):
    """All attackers upload `-λ · sign(μ)`, the first `λ` that makes Krum select it, halving from the paper's bound.

    Full knowledge (`knowledge=all`): `μ` and Krum's round are made of the honest uploads. Partial (`own`): of the
    attackers' own honest updates, with one crafted upload, then two, and so on, until a `λ` is found. The search ends
    at `stop`, as in the paper, whether or not Krum is deceived.
    """

    name: ClassVar[str] = "fang-krum"
    summary: ClassVar[str] = "the longest step against the honest signs that Krum still selects"
    source: ClassVar[str] = "Fang et al., Local Model Poisoning Attacks, USENIX Security 2020"
    grade: ClassVar[Grade] = "A"

    stop: float = setting(1e-5, "the step at which the search gives up", above=0)

    def survey(self, scene: Scene) -> float:
        scene.require_known(self.knowledge, 2, self.name)
        honest = _honest(scene, self)
        attempts = [scene.attackers] if self.knowledge == "all" else list(range(1, scene.attackers + 1))
        step = 0.0
        for copies in attempts:
            step = honest.first_step(copies)
            while step > self.stop:
                if honest.krum_selects(step, copies):
                    return step
                step /= 2.0
        return step

    def vector(self, columns: Columns, survey: Any) -> Vector:
        return -float(survey) * np.sign(columns.mean)


def _honest(scene: Scene, attack: FangKrum) -> Honest:
    b = len(scene.known_clients(attack.knowledge))
    inner, along, square = np.zeros((b, b)), np.zeros(b), 0.0
    for columns in visit(scene, attack.knowledge):
        signs = np.sign(columns.mean)
        inner += columns.known @ columns.known.T
        along += columns.known @ signs
        square += float(signs @ signs)
    return Honest(inner, along, square, scene.n_parameters)
