"""Where a crafted vector goes from the honest mean, and how the honest updates lie around that line."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from encagg_cli.attacks.scene import Columns, Knowledge, Matrix, Scene, Vector, visit

Direction = Literal["unit", "sign", "sd"]


def direction_of(columns: Columns, direction: Direction) -> Vector:
    """One block of the direction `p` in which `μ + γp` leaves the honest mean (Shejwalkar & Houmansadr, section IV).

    "unit": against the mean (`-μ`; the paper divides it by its norm, which only rescales γ); "sign": `-sign(μ)`;
    "sd": `-σ`.
    """
    if direction == "unit":
        return -columns.mean
    if direction == "sign":
        return -np.sign(columns.mean)
    return -columns.deviation


@dataclass(frozen=True)
class Spread:
    """How `b` known updates lie around their mean `μ` and along a direction `p` from it.

    inner  (b, b) `⟨g_i - μ, g_j - μ⟩`
    along  (b,)   `⟨g_i - μ, p⟩`
    square        `‖p‖²`
    """

    inner: Matrix
    along: Vector
    square: float

    @property
    def squared_distances(self) -> Matrix:
        """(b, b) `‖g_i - g_j‖²`."""
        squares = np.diag(self.inner)
        distances: Matrix = np.maximum(squares[:, None] + squares[None, :] - 2.0 * self.inner, 0.0)
        return distances

    def squared_distances_from(self, gamma: float) -> Vector:
        """(b,) `‖μ + γp - g_i‖²`."""
        squares: Vector = np.diag(self.inner) - 2.0 * gamma * self.along + gamma**2 * self.square
        return np.maximum(squares, 0.0)


def spread(scene: Scene, knowledge: Knowledge, direction: Direction) -> Spread:
    """One pass over the round; at least one known update."""
    b = len(scene.known_clients(knowledge))
    inner, along, square = np.zeros((b, b)), np.zeros(b), 0.0
    for columns in visit(scene, knowledge):
        p = direction_of(columns, direction)
        centred = columns.known - columns.mean
        inner += centred @ centred.T
        along += centred @ p
        square += float(p @ p)
    return Spread(inner, along, square)
