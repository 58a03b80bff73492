"""Free-riders: uploads without training."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from encagg_cli.attacks.base import AttackNeed, Grade
from encagg_cli.attacks.mixture import HonestRound, Mixture
from encagg_cli.attacks.scene import Columns, Matrix, Scene
from encagg_cli.attacks.watching import Step, Watching
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class FreeRider(Watching):
    """Attackers do not train.

    "zero": they send the model back as it came, an all-zero update. "last-step": they send the last change of the
    global model, a zero update in the first round. Either is disguised by noise of their own: `noise` times the root
    mean square of the last change (which needs the stored global model) in every coordinate.
    """

    name: ClassVar[str] = "free-rider"
    summary: ClassVar[str] = "no training: a zero update, or the last change of the global model"
    source: ClassVar[str] = "Lin et al., Free-riders in Federated Learning, 2019; Fraboni et al., AISTATS 2021"
    grade: ClassVar[Grade] = "A"

    mode: Literal["zero", "last-step"] = setting("zero", "what is sent")
    noise: float = setting(0.0, "each one's own noise, in root mean squares of the last global change", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._step: Step | None = None

    def requires(self) -> frozenset[AttackNeed]:
        return super().requires() if self.mode == "last-step" or self.noise > 0 else frozenset()

    def see_step(self, number: int, step: Step) -> None:
        self._step = step

    def survey(self, scene: Scene) -> float:
        """Standard deviation of the noise."""
        if self._step is None or self.noise == 0:
            return 0.0
        return self.noise * float(np.sqrt(np.square(self._step, dtype=np.float64).mean()))

    def is_linear(self) -> bool:
        return self.mode == "zero" and self.noise == 0

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        return Mixture.of_own(np.zeros(scene.attackers))

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        sent = np.zeros(columns.own.shape)
        if self.mode == "last-step" and self._step is not None:
            sent += self._step[columns.start : columns.stop].astype(np.float64)
        return sent + float(survey) * columns.normal("free-rider") if survey else sent
