"""FreqFed (Fereidooni et al., NDSS 2024): cluster the low frequencies of the output layer."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.flame import mean_distance_to
from encagg_cli.filters.grouping import NOISE, majority_density_cluster
from encagg_cli.filters.memory import row_cosines
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.tensors import OutputColumnsNeed, OutputLayer


@dataclass(kw_only=True)
class FreqFed(Filter):
    """DCT-II of the flattened output layer, its low half, HDBSCAN on cosine distances; keep the largest cluster.

    One-dimensional and orthonormal. Where the global model is stored and the updates are deltas, the clients' *models*
    are transformed, as in the paper, otherwise the updates; every reason says which. The least cluster size is a
    majority unless it is set. The distances are given as distances (a public port clusters the rows of their matrix as
    features). Where no cluster is found, all are accepted. The statistic is the mean cosine distance to the kept.
    """

    name: ClassVar[str] = "freqfed"
    summary: ClassVar[str] = "density clusters of the output layer's low frequencies"
    source: ClassVar[str] = "Fereidooni et al., FreqFed, NDSS 2024"
    grade: ClassVar[Grade] = "B"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.OUTPUT_LAYER})
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.GLOBAL_MODEL})

    low: float = setting(0.5, "share of the frequencies that is kept", above=0, at_most=1)
    min_cluster_size: int | None = setting(None, "HDBSCAN's; none: a majority of the clients", at_least=2)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (OutputColumnsNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        n = len(sketch.clients)
        layer: OutputLayer | None = sketch[OutputColumnsNeed()]
        if layer is None:
            everyone = np.ones(n, dtype=bool)
            return verdict(
                sketch, everyone, np.zeros(n), dropped="", kept="no-output-layer", weight=equal_weights(everyone)
            )
        model = layer.model if sketch.header.update_kind == "delta" else None
        distances = self._distances(layer.updates if model is None else layer.updates + model)
        labels = majority_density_cluster(distances, self.min_cluster_size)
        found = bool((labels == 0).any())
        accepted = labels == 0 if found else np.ones(n, dtype=bool)
        return verdict(
            sketch,
            accepted,
            mean_distance_to(distances, accepted),
            dropped=["noise" if label == NOISE else "other-cluster" for label in labels],
            kept="kept" if found else "no-cluster",
            notes=("updates" if model is None else "models",),
            weight=equal_weights(accepted),
            cluster=labels,
        )

    def _distances(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.fft import dct

        frequencies = dct(columns, type=2, norm="ortho", axis=1)
        low = frequencies[:, : max(1, int(np.ceil(self.low * columns.shape[1])))]
        distances: NDArray[np.float64] = 1.0 - row_cosines(low)
        np.fill_diagonal(distances, 0.0)
        return distances
