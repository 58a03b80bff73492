"""Our reading of XFED: each attacker alone reverses its own update, as large as the last global changes allow."""

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encagg_cli.attacks.base import Grade
from encagg_cli.attacks.mixture import HonestRound, Linear, Mixture
from encagg_cli.attacks.scene import Scene
from encagg_cli.attacks.watching import Step, Watching
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class XfedLike(Linear, Watching):
    """Attacker `i` uploads `g_i - c·g_i/‖g_i‖`, reversed to the norm `median + k·MAD` of the last global changes.

    Nothing is shared among attackers, so their uploads differ as honest ones do. The paper's constants are not public;
    `k`, the window, and the attacker's own norm before any change has been seen, are ours.
    """

    name: ClassVar[str] = "xfed-like"
    summary: ClassVar[str] = "non-colluding: own update reversed, as large as the last global changes"
    source: ClassVar[str] = "our reading of Mouri et al., XFED, arXiv 2604.09489"
    grade: ClassVar[Grade] = "C"

    k: float = setting(1.0, "median absolute deviations above the median", at_least=0)
    window: int = setting(10, "how many global changes are remembered", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sizes: deque[float] = deque(maxlen=self.window)

    def see_step(self, number: int, step: Step) -> None:
        self._sizes.append(float(np.linalg.norm(step.astype(np.float64))))

    def mixture(self, scene: Scene, honest: HonestRound) -> Mixture:
        norms = np.asarray(scene.source.norms)[scene.rows(scene.poisoning)]
        if not self._sizes:
            return Mixture.of_own(-np.ones(len(norms)))
        sizes = np.array(self._sizes)
        middle = float(np.median(sizes))
        size = middle + self.k * float(np.median(np.abs(sizes - middle)))
        return Mixture.of_own(-np.divide(size, norms, out=np.zeros_like(norms), where=norms > 0))
