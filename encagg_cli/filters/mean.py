"""The plain mean: nobody is filtered. What every filter is compared with."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.filters.base import Context, Decision, Filter, Grade
from encagg_cli.filters.verdict import equal_weights
from encagg_cli.settings import check_settings
from encagg_cli.sketch import Need, RoundSketch


@dataclass(kw_only=True)
class Mean(Filter):
    """Accept every finite upload, and average them without sample counts; every score is 0."""

    name: ClassVar[str] = "mean"
    summary: ClassVar[str] = "no filter: the plain mean of all uploads"
    source: ClassVar[str] = "McMahan et al., Communication-Efficient Learning, AISTATS 2017 (unweighted)"
    grade: ClassVar[Grade] = "A"

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def rejects(self) -> bool:
        return False

    def needs(self) -> tuple[Need, ...]:
        return ()

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        everyone = np.ones(len(sketch.clients), dtype=bool)
        return Decision(
            clients=sketch.clients,
            accepted=everyone,
            score=np.zeros(len(everyone)),
            reason=("kept",) * len(everyone),
            weight=equal_weights(everyone),
        )
