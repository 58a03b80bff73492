"""Attacks that watch the global model change from round to round."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks.base import Attack, AttackNeed
from encagg_cli.settings import setting

Step = NDArray[np.float32]


@dataclass(kw_only=True)
class Watching(Attack):
    """An attack that learns from the global model's last steps, each in the units of an update.

    A step is the difference of the models of two consecutive rounds. Where updates are weight deltas, it is an
    aggregated update already; where they are gradients, it is divided by minus the server's `learning_rate`.
    """

    learning_rate: float | None = setting(None, "the server's, where updates are gradients (FedSGD)", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._last: tuple[int, NDArray[np.float32]] | None = None

    def requires(self) -> frozenset[AttackNeed]:
        return frozenset({AttackNeed.GLOBAL_MODEL})

    def observe(self, number: int, global_model: NDArray[np.float32]) -> None:
        if self._last is not None and self._last[0] == number - 1:
            rate = np.float32(1.0 if self.learning_rate is None else -self.learning_rate)
            self.see_step(number, (global_model - self._last[1]) / rate)
        self._last = number, global_model

    @abstractmethod
    def see_step(self, number: int, step: Step) -> None:
        """Take note of the step that led to the model of round `number`, (parameters,)."""
