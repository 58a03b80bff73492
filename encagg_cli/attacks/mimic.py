"""Mimic: all attackers copy one honest client, whose data then counts many times."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from encagg_cli.attacks.base import Grade, OneVector
from encagg_cli.attacks.mixture import HonestRound, Mixture
from encagg_cli.attacks.scene import Columns, Scene, Vector, column_blocks, generator, visit
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class Mimic(OneVector):
    """All attackers upload an honest client's update.

    "random": one client, drawn once, for as long as it takes part. "variance": in each round the client that lies
    farthest along the direction `z` of largest variance, which a power iteration over the rounds follows:
    `z ← t/(t+1) z + 1/(t+1) Σ_i ⟨g_i - μ, z⟩ (g_i - μ)`, then normed.
    """

    name: ClassVar[str] = "mimic"
    summary: ClassVar[str] = "all copy one honest client"
    source: ClassVar[str] = "Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets, ICLR 2022"
    grade: ClassVar[Grade] = "A"

    pick: Literal["random", "variance"] = setting("random", "whom to copy: one drawn once, or along the variance")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rounds = 0
        self._z: Vector | None = None

    def survey(self, scene: Scene) -> int:
        """The place of the copied client among the known ones."""
        known = scene.require_known(self.knowledge, 1, self.name)
        if self.pick == "random":
            return min(range(len(known)), key=lambda place: generator(scene.seed, "mimic", known[place]).random())
        return self._most_extreme(scene, len(known))

    def vector(self, columns: Columns, survey: Any) -> Vector:
        copied: Vector = columns.known[int(survey)]
        return copied

    def is_linear(self) -> bool:
        return self.pick == "random" and self.noise == 0

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        chosen = np.zeros(len(scene.known_clients(self.knowledge)))
        chosen[self.survey(scene)] = 1.0
        return Mixture.of_known(chosen, scene.attackers)

    def _most_extreme(self, scene: Scene, b: int) -> int:
        z = self._z
        if z is None or len(z) != scene.n_parameters:
            blocks = column_blocks(scene.n_parameters)
            z = np.concatenate([generator(scene.seed, "mimic", a).standard_normal(z_ - a) for a, z_ in blocks])
            z /= np.linalg.norm(z)
            self._rounds = 0
        along = np.zeros(b)
        for columns in visit(scene, self.knowledge):
            along += (columns.known - columns.mean) @ z[columns.start : columns.stop]
        kept = self._rounds / (self._rounds + 1)
        following = np.empty_like(z)
        projected = np.zeros(b)
        for columns in visit(scene, self.knowledge):
            centred = columns.known - columns.mean
            block = slice(columns.start, columns.stop)
            following[block] = kept * z[block] + (1.0 - kept) * (along @ centred)
            projected += columns.known @ following[block]
        norm = float(np.linalg.norm(following))
        self._z = following / norm if norm > 0 else z
        self._rounds += 1
        return int(projected.argmax())
