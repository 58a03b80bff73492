"""FLGuardian (Zhou et al., IEEE TIFS 2025), our reading: a benign set per layer, trust summed over layers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.flame import cosine_distances
from encagg_cli.filters.grouping import upper_of_two
from encagg_cli.filters.verdict import equal_weights, verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Gram, Need, RoundSketch
from encagg_cli.sketch.tensors import TensorGramNeed


@dataclass(kw_only=True)
class FLGuardian(Filter):
    """Per layer, the clients that both cosine and Euclidean distances find benign; deeper layers count more.

    The abstract says so much, and that the clients of highest trust are averaged; the clustering, the weights and the
    number selected are ours. A layer is a module's tensors together (`fc.weight` and `fc.bias`). The columns of each
    distance matrix are standardised and summed per client, and exact 2-means on the sums keeps the larger cluster (of
    two equally large ones that of smaller distances). Trust is the sum of `β^l` over the layers `l` in which a client
    is in both kept clusters, as a share of the largest possible. Accepted are the share `keep` of the clients with the
    highest trust, and all whose trust equals that of the last of them. The statistic is 1 less the trust.
    """

    name: ClassVar[str] = "flguardian"
    summary: ClassVar[str] = "benign sets per layer, trust summed with weight on deeper ones (our reading)"
    source: ClassVar[str] = "Zhou et al., FLGuardian, IEEE TIFS 20:5396-5410, 2025 (our reading of its abstract)"
    grade: ClassVar[Grade] = "C"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.LAYERS})

    beta: float = setting(2.0, "weight of a layer relative to the one before it", above=0)
    keep: float = setting(0.5, "share of the clients that is accepted", above=0, at_most=1)

    def __post_init__(self) -> None:
        check_settings(self)

    def needs(self) -> tuple[Need, ...]:
        return (TensorGramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        layers = by_layer(sketch[TensorGramNeed()])
        n = len(sketch.clients)
        depth = np.arange(len(layers), dtype=np.float64)
        weights = self.beta ** (depth - depth[-1:] if self.beta > 1 else depth)  # the largest is 1
        benign = np.array([_benign(gram) for gram in layers.values()]).reshape(len(layers), n)
        doubt = 1.0 - weights @ benign / weights.sum() if len(layers) else np.zeros(n)
        last = np.sort(doubt)[max(1, round(self.keep * n)) - 1]
        accepted = doubt <= last
        return verdict(sketch, accepted, doubt, dropped="distrusted", weight=equal_weights(accepted))


def by_layer(tensors: Mapping[str, Gram]) -> dict[str, Gram]:
    """Gram matrices of modules, from those of their tensors: tensors whose names differ in the last part are added."""
    layers: dict[str, Gram] = {}
    for name, gram in tensors.items():
        layer = name.rpartition(".")[0] or name
        known = layers.get(layer)
        layers[layer] = (
            gram
            if known is None
            else replace(
                gram,
                centred=known.centred + gram.centred,
                with_reference=known.with_reference + gram.with_reference,
                norms=np.hypot(known.norms, gram.norms),
            )
        )
    return layers


def _benign(gram: Gram) -> NDArray[np.bool_]:
    return _larger_cluster(cosine_distances(gram)) & _larger_cluster(gram.distances)


def _larger_cluster(distances: NDArray[np.float64]) -> NDArray[np.bool_]:
    deviation = distances.std(axis=0)
    centred = distances - distances.mean(axis=0)
    sums = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0).sum(axis=1)
    far = upper_of_two(sums)
    return far if 2 * far.sum() > len(far) else ~far
