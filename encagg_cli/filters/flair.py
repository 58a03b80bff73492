"""FLAIR (Sharma et al., AsiaCCS 2023): reputations from how much of an update opposes the last step's signs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.filters.attackers import ToldAttackers
from encagg_cli.filters.base import Context, Decision, Grade, Requirement
from encagg_cli.filters.memory import ClientMemory
from encagg_cli.filters.verdict import verdict
from encagg_cli.settings import setting
from encagg_cli.sketch import Need, RoundSketch
from encagg_cli.sketch.signs import PackedSigns, SignedEnergy, SignedEnergyNeed


@dataclass(kw_only=True)
class Flair(ToldAttackers):
    """Punish the `f` highest and the `f` lowest flip scores; weights are the softmax of the reputations that follow.

    The flip score is the energy `Σ_j g_ij²` over the coordinates whose sign is not that of the last global step. A
    punished client's reputation becomes `μ·RS - (1 - 2f/n)`, another's `μ·RS + 2f/n`; a client that was away keeps its
    own, a new one begins at 0. The punished set is what is rejected, so `2f` clients in every round; the weights follow
    the reputations alone. The first round has no last step, and rejects nobody.

    The last step is the stored one where the round has it (`stored-step`), else this filter's own aggregate of the
    round before (`own-step`), of which the signs are kept: two bits a parameter. The statistic is the flip score; the
    score looks at both sides, at its distance from the median flip score. The theory needs `2f < n`.
    """

    name: ClassVar[str] = "flair"
    summary: ClassVar[str] = "reputations from the energy that opposes the last step's signs"
    source: ClassVar[str] = "Sharma et al., FLAIR: Defense against Model Poisoning in Federated Learning, AsiaCCS 2023"
    grade: ClassVar[Grade] = "B"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.ATTACKER_COUNT, Requirement.HISTORY})
    uses: ClassVar[frozenset[Requirement]] = frozenset({Requirement.GLOBAL_MODEL})
    theory: ClassVar[str] = "2f < n"

    mu: float = setting(0.9, "how much of a reputation lasts to the next round", at_least=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._reputations = ClientMemory(1)
        self._own: PackedSigns | None = None
        self._wants_aggregate = False

    @staticmethod
    def most_attackers(n: int) -> int:
        return (n - 1) // 2

    def needs(self) -> tuple[Need, ...]:
        return (self._energy(),)

    def _energy(self) -> SignedEnergyNeed:
        if self._own is None:
            return SignedEnergyNeed()
        digest = sha256(self._own.positive.tobytes() + self._own.negative.tobytes())
        return SignedEnergyNeed(digest.hexdigest()[:32], self._own)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        f, notes = self.attackers(sketch, context)
        flips: SignedEnergy | None = sketch[self._energy()]
        self._wants_aggregate = flips is None or not flips.stored_step
        n = len(sketch.clients)
        reputation = self._reputations.recall(sketch.clients)[0][:, 0]
        punished = np.zeros(n, dtype=bool)
        energy = np.zeros(n)
        if flips is not None:
            energy = flips.energy
            order = np.argsort(energy, kind="stable")
            punished[order[:f]] = True
            punished[order[n - f :]] = True
            reputation = self.mu * reputation + np.where(punished, 2.0 * f / n - 1.0, 2.0 * f / n)
            self._reputations.keep(sketch.clients, reputation[:, None])
        weight = np.exp(reputation - reputation.max())
        origin = "first" if flips is None else "stored-step" if flips.stored_step else "own-step"
        return verdict(
            sketch,
            ~punished,
            np.abs(energy - np.median(energy)),
            statistic=energy,
            dropped=["opposing" if flip > np.median(energy) else "conforming" for flip in energy],
            notes=(origin, *notes),
            weight=weight / weight.sum(),
        )

    def wants_aggregate(self) -> bool:
        return self._wants_aggregate

    def see_aggregate(self, pieces: Iterable[NDArray[np.float64]]) -> None:
        self._own = PackedSigns.pack(pieces)

    def state_dict(self) -> dict[str, Any]:
        signs = {} if self._own is None else {"positive": self._own.positive, "negative": self._own.negative}
        return {**self._reputations.state(), **signs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._reputations.restore(state, self.name)
        self._own = None
        if "positive" in state:
            positive, negative = (np.asarray(state[name], dtype=np.uint8) for name in ("positive", "negative"))
            if positive.ndim != 1 or positive.shape != negative.shape:
                raise UnusableInput(f"the state of {self.name} holds signs of different lengths")
            self._own = PackedSigns(positive, negative)
