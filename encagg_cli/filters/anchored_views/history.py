"""What earlier rounds tell: how each client itself went on, and which side everybody was on."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.filters.anchored_views.sides import aligned
from encagg_cli.filters.memory import ClientMemory, unit_rows, vector_of

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_COUNTER: Final = "rounds_seen"
_MOST_CLIENTS: Final = 1024  # of a remembered round: its losses are matrices of that size


class OwnHistory:
    """What each client uploaded lately: honest clients go on much as before, an attack that begins does not.

    Directions of the accepted uploads of the last `rounds` rounds, projected to `width` numbers a client and round.

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


class SidesHistory:
    """Losses (sides.py) of the last `rounds` rounds, for the clients that were accepted or found reversed in them.

    Whoever was rejected for something else has no part in what the others share. Rounds of more than 1,024 such
    clients are not remembered.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self._seen: list[tuple[list[str], NDArray[np.float32]]] = []

    def losses_of(self, clients: Sequence[str]) -> list[Numbers]:
        """(n, n) each: the remembered rounds' losses, aligned with `clients`; zero for who was not there."""
        losses = []
        for known, loss in self._seen:
            place = {client: index for index, client in enumerate(known)}
            index = np.array([place.get(client, -1) for client in clients], dtype=np.intp)
            if (index >= 0).any():
                losses.append(aligned(loss.astype(np.float64), index))
        return losses

    def remember(self, clients: Sequence[str], loss: Numbers) -> None:
        """Take note of a round, and forget the oldest."""
        if 0 < len(clients) <= _MOST_CLIENTS:
            self._seen = [*self._seen, (list(clients), loss.astype(np.float32))][-self.rounds :]

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for index, (clients, loss) in enumerate(self._seen):
            state |= {f"sides_{index}": json.dumps(clients), f"sides_loss_{index}": loss}
        return state

    def restore(self, state: Mapping[str, Any], owner: str) -> None:
        """Take over what `state` gave; raises UnusableInput where it cannot be that."""
        self._seen = []
        for index in range(self.rounds):
            if f"sides_{index}" not in state:
                break
            clients = json.loads(state[f"sides_{index}"])
            loss = vector_of(state, f"sides_loss_{index}", owner, (len(clients), len(clients)))
            if loss is None:
                raise UnusableInput(f"the state of {owner} does not say which side its clients were on")
            self.remember(clients, loss)
