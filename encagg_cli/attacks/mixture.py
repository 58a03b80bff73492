"""Uploads that are linear combinations of honest updates: what they do follows from inner products alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks.base import Attack, Colluding
from encagg_cli.attacks.directions import Spread, spread
from encagg_cli.attacks.scene import Columns, Knowledge, Matrix, Scene, Vector
from encagg_cli.sketch import GramNeed, Need, RoundSketch, sketch_round


class HonestRound(ABC):
    """What an attack may ask about the honest updates of a round as a whole."""

    @abstractmethod
    def spread(self, knowledge: Knowledge) -> Spread:
        """How the known honest updates lie around their mean `μ` and along `-μ`."""

    @abstractmethod
    def sketch(self, needs: Iterable[Need]) -> RoundSketch:
        """Figures of all clients' honest updates, and their Gram matrix."""


@dataclass(frozen=True)
class ReadRound(HonestRound):
    """It is read."""

    scene: Scene

    def spread(self, knowledge: Knowledge) -> Spread:
        return spread(self.scene, knowledge, "unit")

    def sketch(self, needs: Iterable[Need]) -> RoundSketch:
        return sketch_round(self.scene.source, (GramNeed(), *needs))


@dataclass(frozen=True)
class SketchedRound(HonestRound):
    """It is known from a sketch, which must hold what is asked for."""

    scene: Scene
    known: RoundSketch

    def spread(self, knowledge: Knowledge) -> Spread:
        gram = self.known.gram
        rows = rows_of(self.known, self.scene.known_clients(knowledge))
        with_mean = gram.inner[np.ix_(rows, rows)].mean(axis=1)
        square = float(with_mean.mean())
        return Spread(gram.subset(rows), square - with_mean, max(square, 0.0))

    def sketch(self, needs: Iterable[Need]) -> RoundSketch:
        return self.known


def rows_of(sketch: RoundSketch, clients: Iterable[str]) -> NDArray[np.intp]:
    """Rows of a sketch that belong to these clients."""
    row = {client: index for index, client in enumerate(sketch.clients)}
    return np.array([row[client] for client in clients], dtype=np.intp)


@dataclass(frozen=True)
class Mixture:
    """Weights of the honest updates in `m` uploads.

    known (m, b)  of the updates that the attackers know, in the order of `Columns.known`
    own   (m, m)  of what the poisoning clients would have uploaded honestly
    """

    known: Matrix
    own: Matrix

    @classmethod
    def of_own(cls, factor: Vector) -> "Mixture":
        """Each attacker's own honest update times its factor, (m,)."""
        return cls(np.zeros((len(factor), 0)), np.diag(factor))

    @classmethod
    def of_known(cls, weights: Vector, attackers: int) -> "Mixture":
        """The same combination of the known updates, weights (b,), for every attacker."""
        return cls(np.tile(weights, (attackers, 1)), np.zeros((attackers, attackers)))

    def columns(self, columns: Columns) -> Matrix:
        """The uploads' columns, (m, w)."""
        return _combined(self.known, columns.known) + _combined(self.own, columns.own)

    def of_clients(self, scene: Scene, knowledge: Knowledge) -> Matrix:
        """Weights of all clients' honest updates, (m, clients), in the order of the source."""
        weights = np.zeros((scene.attackers, len(scene.source.client_ids)))
        if self.known.shape[1]:
            weights[:, scene.rows(scene.known_clients(knowledge))] += self.known
        weights[:, scene.rows(scene.poisoning)] += self.own
        return weights


def _combined(weights: Matrix, values: Matrix) -> Matrix:
    """`weights @ values`; an upload that takes from one update alone is not touched by NaN in the others."""
    combined = np.zeros((len(weights), values.shape[1]))
    taken = np.count_nonzero(weights, axis=1)
    if (taken <= 1).all():
        for row in np.flatnonzero(taken):
            chosen = np.flatnonzero(weights[row])[0]
            combined[row] = weights[row, chosen] * values[chosen]
        return combined
    if (weights == weights[0]).all():
        return np.tile(weights[0] @ values, (len(weights), 1))
    return np.matmul(weights, values, out=combined)


def mean_of(scene: Scene, knowledge: Knowledge, factor: float) -> Mixture:
    """The mean of the known updates times a factor, for every attacker."""
    b = len(scene.known_clients(knowledge))
    return Mixture.of_known(np.full(b, factor / b), scene.attackers)


@dataclass(kw_only=True)
class Linear(Attack):
    """An attack whose uploads are a mixture, whatever its settings."""

    def is_linear(self) -> bool:
        return True

    @abstractmethod
    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture: ...

    def survey(self, scene: Scene) -> Mixture:
        return self.mixture(scene, ReadRound(scene))

    def columns(self, columns: Columns, survey: Mixture) -> Matrix:
        return survey.columns(columns)


@dataclass(kw_only=True)
class LinearColluding(Colluding):
    """A colluding attack whose uploads are a mixture, but for their noise."""

    def is_linear(self) -> bool:
        return self.noise == 0

    @abstractmethod
    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture: ...

    def survey(self, scene: Scene) -> Mixture:
        return self.mixture(scene, ReadRound(scene))

    def uploads(self, columns: Columns, survey: Mixture) -> Matrix:
        return survey.columns(columns)
