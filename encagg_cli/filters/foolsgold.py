"""FoolsGold (Fung, Yoon & Beschastnikh, RAID 2020): clients whose histories are alike share one voice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement
from encagg_cli.filters.memory import BUCKETS, ClientMemory, row_cosines
from encagg_cli.filters.verdict import verdict
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.projection import Projected, ProjectionNeed, check_buckets

_CONFIDENCE = 1e-5


@dataclass(kw_only=True)
class FoolsGold(Filter):
    """Weights from the cosines of the clients' summed updates: who resembles another too closely loses weight.

    Over all parameters (the paper's optional mask of indicative features is left out), with pardoning and the logit as
    in the authors' code. A history is the sum of a client's projected updates, `buckets` numbers; cosines of histories
    are then off by about 0.01 (8,192 buckets) at 0 and by nothing at 1, and exact for updates of no more parameters
    than buckets. A client that was away keeps its history. The aggregate is the weighted mean, or with `total` the
    weighted sum that the paper has. A weight of 0 is a rejection; the score is 1 less the weight. It takes several
    alike attackers, and honest clients that differ: where all upload the same, all are rejected.
    """

    name: ClassVar[str] = "foolsgold"
    summary: ClassVar[str] = "less weight for clients whose histories are alike"
    source: ClassVar[str] = (
        "Fung, Yoon & Beschastnikh, The Limitations of Federated Learning in Sybil Settings, RAID 2020"
    )
    grade: ClassVar[Grade] = "A"
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.HISTORY})

    total: bool = setting(False, "aggregate by the weighted sum instead of the weighted mean")
    buckets: int = setting(BUCKETS, "size of the projection of a history (a power of two)", at_least=1)
    seed: int = setting(0, "of the projection", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        check_buckets(self.name, self.buckets)
        self._histories = ClientMemory(self.buckets)

    def needs(self) -> tuple[Need, ...]:
        return (self._projection(),)

    def _projection(self) -> ProjectionNeed:
        return ProjectionNeed(self.buckets, self.seed)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        projected: Projected = sketch[self._projection()]
        before, _ = self._histories.recall(sketch.clients)
        histories = before + projected.rows
        self._histories.keep(sketch.clients, histories)
        likeness, weight = foolsgold_weights(row_cosines(histories))
        used = weight if self.total or not weight.sum() > 0 else weight / weight.sum()
        return verdict(
            sketch,
            weight > 0,
            1.0 - weight,
            statistic=likeness,
            dropped="alike",
            weight=used,
        )

    def state_dict(self) -> dict[str, Any]:
        return self._histories.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._histories.restore(state, self.name)


def foolsgold_weights(cosines: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each client's largest cosine after pardoning, and its weight in [0, 1], from cosines of histories; (n,) each."""
    n = len(cosines)
    likeness = cosines - np.eye(n)
    largest = likeness.max(axis=1) + _CONFIDENCE
    pardoned = largest[:, None] < largest[None, :]
    ratio = np.divide(largest[:, None], largest[None, :], out=np.ones((n, n)), where=pardoned & (largest[None, :] != 0))
    likeness = likeness * ratio
    weight = np.clip(1.0 - likeness.max(axis=1), 0.0, 1.0)
    if weight.max() > 0:
        weight = weight / weight.max()
    weight[weight == 1.0] = 0.99
    with np.errstate(divide="ignore"):
        weight = np.clip(np.log(weight / (1.0 - weight) + _CONFIDENCE) + 0.5, 0.0, 1.0)
    return likeness.max(axis=1), weight
