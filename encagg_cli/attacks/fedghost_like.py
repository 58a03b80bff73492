"""Our reading of FedGhost: no data, only the global model's own history, predicted one step ahead and turned around."""

from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.scene import Columns, Matrix, Scene
from encagg_cli.attacks.watching import Step, Watching
from encagg_cli.settings import setting

_LEAST, _MOST = 1e-5, 5.0  # bounds of the scale γ
_REWARD, _PENALTY = 1.5, 0.5
_SACRIFICE = 5.0  # how much louder the sacrificial uploads are


def predict(steps: list[Step]) -> Step:
    """The next change of the model from its last ones, oldest first, (parameters,); at least one.

    Multi-secant: with `S` the changes and `Y` how each led to the next, `ŝ = s + Y·S⁺·s`, no longer than the longest.
    """
    last = steps[-1]
    if len(steps) < 3:
        return last
    inputs = np.stack(steps[:-1]).astype(np.float64)
    outputs = np.diff(np.stack(steps).astype(np.float64), axis=0)
    weights = np.linalg.lstsq(inputs @ inputs.T, inputs @ last.astype(np.float64), rcond=1e-3)[0]
    predicted = last + weights @ outputs
    longest = max(float(np.linalg.norm(step)) for step in steps)
    norm = float(np.linalg.norm(predicted))
    return (predicted * min(1.0, longest / norm) if norm > 0 else predicted).astype(np.float32)


@dataclass(kw_only=True)
class FedGhostLike(Watching):
    """Attackers without data predict the next global change `ŝ` and upload multiples of it.

    Concealed uploads are `(1 - γ)·ŝ`; the share `sacrificial` uploads `-(1 + 5γ)·ŝ`. After a round in which the global
    change had a cosine of `least_cosine` or more with the attackers' mean, `γ` grows, otherwise it shrinks, within
    [1e-5, 5]. Until a change of the model has been seen the uploads are zero. The paper's equations are not public: the
    predictor, the two formulas and the rates are ours.
    """

    name: ClassVar[str] = "fedghost-like"
    summary: ClassVar[str] = "data-free: the predicted global change, shrunk by most and reversed by some"
    source: ClassVar[str] = "our reading of Ma et al., FedGhost, TIFS 2025"
    grade: ClassVar[Grade] = "C"
    colluding: ClassVar[bool] = True

    gamma: float = setting(1.5, "the scale at the start", at_least=_LEAST, at_most=_MOST)
    sacrificial: float = setting(0.2, "share of attackers that send the loud reversal", at_least=0, at_most=1)
    least_cosine: float = setting(0.5, "cosine to the global change that counts as success", at_least=-1, at_most=1)
    window: int = setting(10, "how many global changes are remembered", at_least=1)
    noise: float = setting(0.0, "each attacker's own noise, in root mean squares of the prediction", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scale = self.gamma
        self._steps: deque[Step] = deque(maxlen=self.window)
        self._sent: tuple[int, float, Step] | None = None  # round, mean factor, prediction

    def see_step(self, number: int, step: Step) -> None:
        self._steps.append(step)
        self._adapt(number)

    def survey(self, scene: Scene) -> tuple[Step, NDArray[np.float64]] | None:
        """The prediction, and every attacker's factor on it, (m,)."""
        if not self._steps:
            return None
        predicted = predict(list(self._steps))
        m = scene.attackers
        factors = np.full(m, 1.0 - self._scale)
        factors[m - round(self.sacrificial * m) :] = -(1.0 + _SACRIFICE * self._scale)
        self._sent = (scene.number, float(factors.mean()), predicted)
        return predicted, factors

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        if survey is None:
            return np.zeros(columns.own.shape)
        predicted, factors = survey
        crafted: Matrix = np.outer(factors, predicted[columns.start : columns.stop].astype(np.float64))
        if self.noise > 0:
            size = float(np.sqrt(np.square(predicted, dtype=np.float64).mean()))
            crafted += self.noise * size * columns.normal("noise")
        return crafted

    def _adapt(self, number: int) -> None:
        """Reward or punish the scale by what the last upload came to, if it was sent in the round before `number`."""
        if self._sent is None or self._sent[0] != number - 1:
            return
        _, factor, predicted = self._sent
        sent, came = factor * predicted.astype(np.float64), self._steps[-1].astype(np.float64)
        norms = float(np.linalg.norm(sent) * np.linalg.norm(came))
        cosine = float(sent @ came) / norms if norms > 0 else 0.0
        self._scale *= _REWARD if cosine >= self.least_cosine else _PENALTY
        self._scale = min(max(self._scale, _LEAST), _MOST)
