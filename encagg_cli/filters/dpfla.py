"""DPFLA (Feng et al., IEEE TSC 2024): the output layer's row in which the clients split most clearly decides."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.grouping import silhouette, two_means
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Gram, Need, RoundSketch
from encagg_cli.sketch.tensors import OutputRowGramNeed


@dataclass(kw_only=True)
class Dpfla(Filter):
    """Per class: SVD of the clients' rows of the output weight, then 2-means on two axes; the clearest split decides.

    The rows are plain and uncentred: the paper's masks cancel, and are left out. Of the class with the largest
    silhouette, the smaller cluster is rejected if that silhouette is at least `least_silhouette`, nobody otherwise (nor
    where both clusters are of a size). The statistic is the distance to the larger cluster's mean on that class's axes.
    """

    name: ClassVar[str] = "dpfla"
    summary: ClassVar[str] = "2-means on the output row in which clients split most clearly"
    source: ClassVar[str] = "Feng et al., DPFLA, IEEE TSC 2024 (without the privacy masks)"
    grade: ClassVar[Grade] = "B"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.LAYERS, Requirement.OUTPUT_LAYER})

    least_silhouette: float = setting(0.7, "from which a split is believed", at_least=-1, at_most=1)
    seed: int = setting(0, "of K-means", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (OutputRowGramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        grams: dict[str, Gram] = sketch[OutputRowGramNeed()]
        best, plane, members = -np.inf, np.zeros((n, 2)), np.zeros(n, dtype=bool)
        for gram in grams.values():
            points = singular_coordinates(gram.inner)
            split = two_means(points @ points.T, seed=self.seed)
            width = silhouette(np.linalg.norm(points[:, None] - points[None], axis=2), split)
            if width > best:
                best, plane, members = width, points, split
        smaller = members if 2 * members.sum() < n else ~members
        believed = best >= self.least_silhouette and 2 * smaller.sum() < n
        accepted = ~smaller if believed else np.ones(n, dtype=bool)
        centre = plane[~smaller].mean(axis=0) if (~smaller).any() else plane.mean(axis=0)
        return verdict(
            sketch,
            accepted,
            np.linalg.norm(plane - centre, axis=1),
            dropped="other-cluster",
            kept="kept" if grams else "no-output-layer",
            weight=equal_weights(accepted),
            cluster=smaller.astype(np.int32),
            plane=plane,
        )


def singular_coordinates(inner: NDArray[np.float64], axes: int = 2) -> NDArray[np.float64]:
    """(n, axes) left singular vectors times singular values, `U Σ`, of the rows with these inner products."""
    values, vectors = np.linalg.eigh((inner + inner.T) / 2.0)
    values, vectors = np.maximum(values[::-1][:axes], 0.0), vectors[:, ::-1][:, :axes]
    points = np.zeros((len(inner), axes))
    points[:, : len(values)] = vectors * np.sqrt(values)
    farthest = points[np.abs(points).argmax(axis=0), np.arange(axes)]
    signed: NDArray[np.float64] = points * np.where(farthest < 0, -1.0, 1.0) + 0.0
    return signed
