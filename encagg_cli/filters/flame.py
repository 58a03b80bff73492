"""FLAME (Nguyen et al., USENIX Security 2022): the majority cluster by cosine, clipped, with noise."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.grouping import NOISE, majority_density_cluster
from encagg_cli.filters.verdict import clipped_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Gram, GramNeed, Need, RoundSketch
from encagg_cli.sketch.directions import GlobalModelNeed, VectorProducts


@dataclass(kw_only=True)
class Flame(Filter):
    """HDBSCAN on pairwise cosine distances, with a majority (`⌊n/2⌋ + 1`) as the least cluster size; keep that cluster.

    The paper clusters the clients' *models*; that takes the stored global model, and deltas as updates. Where the round
    has them, `on=auto` clusters models, otherwise the updates themselves (as SAFEFL and FLShield do), and every reason
    says which. Kept updates are shortened to the median norm of all, averaged, and given noise of standard deviation
    `lambda` times that norm. Where HDBSCAN finds no cluster, all are accepted (`no-cluster`). The statistic is the mean
    cosine distance to the kept.
    """

    name: ClassVar[str] = "flame"
    summary: ClassVar[str] = "the majority's density cluster by cosine, clipped, with noise"
    source: ClassVar[str] = "Nguyen et al., FLAME, USENIX Security 2022"
    grade: ClassVar[Grade] = "A"
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.GLOBAL_MODEL})

    on: Literal["auto", "models", "updates"] = setting("auto", "what is clustered")
    noise: float = setting(0.001, "λ: standard deviation of the noise, in median norms", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),) if self.on == "updates" else (GramNeed(), GlobalModelNeed())

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        distances, what = self._cosine_distances(sketch)
        labels = majority_density_cluster(distances)
        accepted = labels == 0 if (labels == 0).any() else np.ones(len(labels), dtype=bool)
        norms = sketch.header.norms
        bound = float(np.median(norms))
        decided = verdict(
            sketch,
            accepted,
            mean_distance_to(distances, accepted),
            dropped="noise",
            kept="kept" if (labels == 0).any() else "no-cluster",
            notes=(what,),
            weight=clipped_weights(accepted, norms, bound),
            cluster=np.where(labels == 0, 0, NOISE).astype(np.int32),
        )
        return replace(decided, noise=self.noise * bound)

    def _cosine_distances(self, sketch: RoundSketch) -> tuple[NDArray[np.float64], str]:
        if self.on != "updates":
            model: VectorProducts | None = sketch[GlobalModelNeed()]
            if model is not None and sketch.header.update_kind == "delta":
                return model_cosine_distances(sketch.gram, model), "models"
            if self.on == "models":
                raise UsageError(
                    f"round {sketch.number}: flame(on=models) needs the stored global model, and deltas as updates",
                    hint="--set flame.on=updates clusters the updates themselves",
                )
        return cosine_distances(sketch.gram), "updates"


def cosine_distances(gram: Gram) -> NDArray[np.float64]:
    """(n, n) `1 - cos(g_i, g_j)`; 0 on the diagonal, and between all-zero updates."""
    distances: NDArray[np.float64] = 1.0 - gram.cosines
    zero = gram.norms == 0
    distances[np.outer(zero, zero)] = 0.0
    np.fill_diagonal(distances, 0.0)
    return distances


def model_cosine_distances(gram: Gram, model: VectorProducts) -> NDArray[np.float64]:
    """(n, n) `1 - cos(w + g_i, w + g_j)`, accurate also where the models are nearly equal.

    With `a_i = ‖w + g_i‖`: `1 - cos = (‖g_i - g_j‖² - (a_i - a_j)²) / (2 a_i a_j)`.
    """
    squares = np.maximum(model.norm**2 + 2.0 * model.inner + gram.norms**2, 0.0)
    lengths = np.sqrt(squares)
    shifts = 2.0 * model.with_deviations + gram.norms**2
    sums = lengths[:, None] + lengths[None, :]
    differences = np.divide(shifts[:, None] - shifts[None, :], sums, out=np.zeros_like(sums), where=sums > 0)
    products = 2.0 * np.outer(lengths, lengths)
    gaps = gram.squared_distances - differences**2
    distances = np.divide(gaps, products, out=np.zeros_like(gaps), where=products > 0)
    np.fill_diagonal(distances, 0.0)
    clipped: NDArray[np.float64] = np.clip(distances, 0.0, 2.0)
    return clipped


def mean_distance_to(distances: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) mean distance to the kept ones, itself not counted; 0 where there is nobody else."""
    others = kept.sum() - kept
    sums = distances[:, kept].sum(axis=1)
    means: NDArray[np.float64] = np.divide(sums, others, out=np.zeros(len(sums)), where=others > 0)
    return means
