"""The adaptive attack on EnCAgg: stay near the benign cluster inside the principal plane, do the harm outside of it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from encagg_cli.attacks.aimed import AimedWeighed, reach
from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.mixture import HonestRound, Mixture, rows_of
from encagg_cli.attacks.scene import Matrix, Scene, Vector
from encagg_cli.errors import UnusableInput
from encagg_cli.settings import setting

_FLAT = 1e-6  # of the largest variance: an axis below it is the rounding of float32 products


@dataclass(frozen=True)
class Plane:
    """The principal plane of all honest updates that the attackers have, `V₂ = Gᵀ · loadings`, and what lies in it.

    loadings   (n, 2)  of the known updates, then the attackers' own
    mean       (2,)    `V₂ᵀ μ`, of the known updates' mean
    shift      (m, 2)  `V₂ᵀ (μ - g_ref)`, for every attacker
    """

    loadings: Matrix
    mean: Vector
    shift: Matrix


@dataclass(kw_only=True)
class Adaptive(AimedWeighed):
    """`g_adv = g_ref + δ∥ + δ⊥` (EnCAgg eqs. 56-57), with the largest harm that `target` lets pass.

    `δ∥ = pull · V₂V₂ᵀ(μ - g_ref)` moves the upload within the principal plane towards the benign centre, so that the
    filter's projection sees nothing; `δ⊥ = -c·(I - V₂V₂ᵀ)μ` reverses the mean where the projection does not look. `c`
    is found by rehearsing the filter. `g_ref` is each attacker's own honest update, or the honest mean. The paper
    leaves `g_ref`, the shares of the two parts and the constants open: `pull`, and these two readings, are ours.
    """

    name: ClassVar[str] = "adaptive"
    summary: ClassVar[str] = "near the benign cluster in EnCAgg's plane, reversed outside of it, as far as passes"
    source: ClassVar[str] = "Zhang et al., EnCAgg, arXiv 2605.22506, eqs. 56-57"
    grade: ClassVar[Grade] = "A"

    reference: Literal["own", "mean"] = setting("own", "where uploads start: own honest update, or the honest mean")
    pull: float = setting(1.0, "share of the way to the benign centre, within the plane", at_least=0, at_most=1)

    def largest(self, scene: Scene, honest: HonestRound) -> float:
        return reach(honest.spread(self.knowledge))

    def basis(self, scene: Scene, honest: HonestRound) -> Plane:
        norms = np.asarray(scene.source.norms)[scene.rows(scene.poisoning)]
        if not np.isfinite(norms).all():
            client = scene.poisoning[int(np.flatnonzero(~np.isfinite(norms))[0])]
            raise UnusableInput(
                f"round {scene.number}, client {client}: adaptive starts from an honest update with NaN or infinity"
            )
        known = scene.known_clients(self.knowledge)
        b = len(known)
        sketch = honest.sketch(())
        everyone = rows_of(sketch, (*known, *scene.poisoning))
        inner = sketch.gram.subset(everyone)
        with_mean = sketch.gram.inner[np.ix_(everyone, everyone[:b])].mean(axis=1)
        values, vectors = np.linalg.eigh(inner)
        values, vectors = values[::-1][:2], vectors[:, ::-1][:, :2]
        keep = values > _FLAT * max(float(values[0]), np.finfo(np.float64).tiny)
        loadings = vectors * np.where(keep, 1.0 / np.sqrt(np.where(keep, values, 1.0)), 0.0)
        places = inner @ loadings  # V₂ᵀ x_i of every honest update
        centre = places[:b].mean(axis=0)
        starts = places[b:] if self.reference == "own" else np.tile(centre, (scene.attackers, 1))
        # The plane is that of updates around the mean of everybody: V₂ = Xᵀ loadings = Gᵀ (loadings less their mean).
        loadings = loadings - loadings.mean(axis=0)
        return Plane(loadings, with_mean @ loadings, centre - starts)

    def weights(self, scene: Scene, basis: Any, strength: float) -> Mixture:
        plane: Plane = basis
        n, m = len(plane.loadings), scene.attackers
        b = n - m
        mean = np.concatenate([np.full(b, 1.0 / b), np.zeros(m)])
        start = np.eye(m, n, k=b) if self.reference == "own" else np.tile(mean, (m, 1))
        outside = mean - plane.loadings @ plane.mean
        weights = start + self.pull * plane.shift @ plane.loadings.T - strength * outside
        return Mixture(weights[:, :b], weights[:, b:])
