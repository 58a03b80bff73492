"""LASA (Xu et al., WACV 2025): per layer, only clients of ordinary norm and ordinary signs are averaged."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Aggregate, Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.verdict import below, clip_factors, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.samples import SampledColumnsNeed
from encagg_cli.sketch.sparse import SparseTensorNeed, SparseTensors, magnitude_thresholds
from encagg_cli.sketch.tensors import tensor_pieces

SAMPLE_COLUMNS = 16_384


@dataclass(kw_only=True)
class Lasa(Filter):
    """Shorten to the median norm, keep each update's largest values, and judge every tensor by norm and sign purity.

    A client survives in a tensor where `|x - median| / deviation` is below `lambda_n` for its norm and below `lambda_s`
    for its positive sign purity `½ (1 + Σ sign / Σ |sign|)`, both over the values that are kept. The tensor's aggregate
    is the mean of the survivors' shortened updates (not of the sparse ones), of all where nobody survives. Updates are
    shortened before they are judged (a public port judges them as they came).

    What an update keeps, the share `1 - sparsity` of its values by magnitude, is read off a seeded sample of 16,384
    columns (all of them, in smaller models): within 1 % of that share, nearly always. It takes a second pass over the
    round. The rule has no verdict over a whole upload, and rejects nobody unless `reject_above` is set. The statistic
    is the share of tensors in which the client does not survive.
    """

    name: ClassVar[str] = "lasa"
    summary: ClassVar[str] = "per tensor, only ordinary norms and signs are averaged"
    source: ClassVar[str] = (
        "Xu et al., Achieving Byzantine-Resilient FL via Layer-Adaptive Sparsified Model Aggregation, WACV 2025"
    )
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.LAYERS})
    aggregate: ClassVar[Aggregate] = "coordinate-wise"

    sparsity: float = setting(0.3, "share of each update's values that is set to zero", at_least=0, below=1)
    lambda_n: float = setting(2.0, "bound on a tensor's norm, in deviations from the median", above=0)
    lambda_s: float = setting(1.0, "bound on a tensor's sign purity, in deviations from the median", above=0)
    reject_above: float | None = setting(None, "reject where the share of tensors is above this", at_least=0, below=1)
    seed: int = setting(0, "of the sample", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        self._second: SparseTensorNeed | None = None

    @property
    def rejects(self) -> bool:
        return self.reject_above is not None

    def needs(self) -> tuple[Need, ...]:
        return (SampledColumnsNeed(SAMPLE_COLUMNS, self.seed),)

    def refine(self, sketch: RoundSketch) -> tuple[Need, ...]:
        sample = sketch[SampledColumnsNeed(SAMPLE_COLUMNS, self.seed)]
        self._second = SparseTensorNeed(magnitude_thresholds(sample, 1.0 - self.sparsity))
        return (self._second,)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        if self._second is None or self._second not in sketch.figures:
            self.refine(sketch)
        assert self._second is not None
        tensors: SparseTensors = sketch[self._second]
        norms = sketch.header.norms
        clip = clip_factors(norms, float(np.median(norms)))
        survives = (_deviations(tensors.norms * clip) < self.lambda_n) & (_deviations(tensors.purity) < self.lambda_s)
        share = 1.0 - survives.mean(axis=0)
        survives[~survives.any(axis=1)] = True
        pieces = tensor_pieces(sketch.header.parameters)
        return verdict(
            sketch,
            below(share, self.reject_above),
            share,
            dropped="unusual-tensors",
            rejects=self.rejects,
            trace={
                "survives": survives,
                "clip": clip,
                "bounds": np.array([(piece.start, piece.stop) for piece in pieces], dtype=np.int64),
            },
        )

    def combine(self, decision: Decision, values: NDArray[np.floating], start: int) -> NDArray[np.float64]:
        stop = start + values.shape[1]
        clipped = values.astype(np.float64) * decision.trace["clip"][:, None]
        aggregate = np.zeros(values.shape[1])
        for (first, last), survives in zip(decision.trace["bounds"], decision.trace["survives"], strict=True):
            here = slice(max(first, start) - start, min(last, stop) - start)
            if here.start < here.stop:
                used = survives & decision.accepted
                aggregate[here] = clipped[used if used.any() else decision.accepted, here].mean(axis=0)
        return aggregate


def _deviations(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """(tensors, n) `|x - median| / standard deviation` over the clients; 0 where all are alike."""
    distance = np.abs(figures - np.median(figures, axis=1, keepdims=True))
    deviation = figures.std(axis=1, keepdims=True)
    scores: NDArray[np.float64] = np.divide(distance, deviation, out=np.zeros_like(distance), where=deviation > 0)
    return scores
