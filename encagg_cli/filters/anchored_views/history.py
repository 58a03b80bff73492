"""What each client itself uploaded lately: honest clients go on much as before, an attack that begins does not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.filters.memory import ClientMemory, unit_rows, vector_of

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_COUNTER = "rounds_seen"


class OwnHistory:
    """Directions of the accepted uploads of the last `rounds` rounds, projected to `width` numbers a client and round.

    Only accepted uploads are remembered, so that an attacker who earned trust first is held against its honest past;
    and only for so many rounds, so that nobody is shut out for good by having changed.
    """

    def __init__(self, rounds: int, width: int) -> None:
        self.rounds = rounds
        self._seen = 0
        self._slots = [ClientMemory(width + 1) for _ in range(rounds)]  # the round, and the direction

    def continuity(self, clients: Sequence[str], rows: Numbers) -> Numbers:
        """(n,) the largest cosine with an upload of one's own that is remembered; NaN where none is."""
        units = unit_rows(rows)
        best = np.full(len(clients), np.nan)
        for slot in self._slots:
            kept, known = slot.recall(clients)
            recent = known & (kept[:, 0] > self._seen - self.rounds)
            cosines = np.einsum("ij,ij->i", kept[:, 1:], units)
            best = np.where(recent, np.fmax(best, cosines), best)
        return best

    def remember(self, clients: Sequence[str], rows: Numbers, accepted: Mask) -> None:
        """Take note of a round's accepted uploads."""
        self._seen += 1
        stamped = np.column_stack([np.full(len(rows), float(self._seen)), unit_rows(rows)])
        kept = [client for client, yes in zip(clients, accepted, strict=True) if yes]
        self._slots[self._seen % self.rounds].keep(kept, stamped[accepted])

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {_COUNTER: np.array([float(self._seen)])}
        for index, slot in enumerate(self._slots):
            state |= {f"{name}_{index}": value for name, value in slot.state().items()}
        return state

    def restore(self, state: Mapping[str, Any], owner: str) -> None:
        """Take over what `state` gave; raises UnusableInput where it is of other settings."""
        seen = vector_of(state, _COUNTER, owner, (1,))
        if seen is None or f"clients_{self.rounds}" in state or f"clients_{self.rounds - 1}" not in state:
            raise UnusableInput(
                f"the state of {owner} was made with other settings", hint="another --state file starts afresh"
            )
        for index, slot in enumerate(self._slots):
            names = ("clients", "client_rows")
            slot.restore({name: state[f"{name}_{index}"] for name in names}, owner)
        self._seen = int(seen[0])
