"""What earlier rounds tell: how each client itself went on, how far it was, and which side everybody was on."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.filters.anchored_views.cloud import Cloud
from encagg_cli.filters.anchored_views.distance import PastExcess
from encagg_cli.filters.memory import ClientMemory, unit_rows, vector_of

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_COUNTER: Final = "rounds_seen"
_WINDOW: Final = "sides_rounds"
_OTHER_SETTINGS: Final = "the state of {owner} was made with other settings"
_AFRESH: Final = "another --state file starts afresh"
_LARGEST: Final = 1e100  # that a state may hold: of uploads, which are float32 at most, squares are finite, too
_MOST_CLIENTS: Final = 512  # of a remembered round: its cosines are a matrix of that size


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
            raise UnusableInput(_OTHER_SETTINGS.format(owner=owner), hint=_AFRESH)
        for index, slot in enumerate(self._slots):
            names = ("clients", "client_rows")
            slot.restore({name: state[f"{name}_{index}"] for name in names}, owner)
        self._seen = int(seen[0])


class DistanceHistory:
    """How far each client was for its kind (distance.py): a mean over its rounds, which count for less the older.

    That of all clients, rejected or not: each is held against its own past only. A round counts 1/(1 + 1/`rounds`) of
    the next, so that all earlier ones together weigh as much as so many.
    """

    def __init__(self, rounds: int) -> None:
        self._decay = rounds / (rounds + 1.0)
        self._clients = ClientMemory(2)

    def recall(self, clients: Sequence[str]) -> PastExcess:
        rows, _ = self._clients.recall(clients)
        return PastExcess(total=rows[:, 0], weight=rows[:, 1])

    def remember(self, clients: Sequence[str], excess: Numbers) -> None:
        """Take note of a round's `excess` (n,), in which an ordinary client has none."""
        rows, _ = self._clients.recall(clients)
        self._clients.keep(clients, self._decay * (rows + np.column_stack([excess, np.ones(len(excess))])))

    def state(self) -> dict[str, Any]:
        return {f"distance_{name}": value for name, value in self._clients.state().items()}

    def restore(self, state: Mapping[str, Any], owner: str) -> None:
        """Take over what `state` gave; raises UnusableInput where it cannot be that."""
        names = ("clients", "client_rows")
        if any(f"distance_{name}" not in state for name in names):
            raise UnusableInput(f"the state of {owner} does not say how far its clients were", hint=_AFRESH)
        self._clients.restore({name: state[f"distance_{name}"] for name in names}, owner)
        rows = self._clients.everything()
        if not ((np.abs(rows) <= _LARGEST).all() and (rows[:, 1] >= 0).all()):
            raise UnusableInput(f"the state of {owner} is damaged: no clients can have been so far", hint=_AFRESH)


@dataclass(frozen=True)
class _Seen:
    """A round that is remembered: its `clients`, where they were, and whom of them it accused.

    By a search of its own (`searched`), which clears the others, or because earlier rounds had. `cosines` told their
    sides, and `updates` are the cosines of the updates as they were.
    """

    clients: list[str]
    cosines: NDArray[np.float32]
    updates: NDArray[np.float32]
    cloud: Cloud
    accused: frozenset[str]
    searched: bool


class SidesHistory:
    """The last `rounds` rounds' cosines, where their clients were, and whom each accused.

    Among the clients that were accepted, or found reversed or joint in it: whoever was rejected for something else has
    no part in what the others share. Rounds of more than 512 such clients are not remembered.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self._seen: list[_Seen] = []

    def rounds_of(self, clients: Sequence[str]) -> tuple[list[Numbers], list[Numbers], list[Cloud]]:
        """Of the rounds, the oldest first: the cosines (n, n) that told sides, those of the updates, and the clouds.

        NaN for whom of the `clients` was not there. Rounds in which none of them was are left out.
        """
        earlier: list[Numbers] = []
        updates: list[Numbers] = []
        clouds: list[Cloud] = []
        for seen in self._seen:
            place = {client: index for index, client in enumerate(seen.clients)}
            index = np.array([place.get(client, -1) for client in clients], dtype=np.intp)
            absent = index < 0
            if not absent.all():
                for kept, cosines in ((earlier, seen.cosines), (updates, seen.updates)):
                    known = cosines[np.ix_(index, index)].astype(np.float64)
                    kept.append(np.where(absent | absent[:, None], np.nan, known))
                clouds.append(seen.cloud.among(index))
        return earlier, updates, clouds

    def accused(self, clients: Sequence[str]) -> Mask:
        """(n,) who of these `clients` was accused of being reversed by more remembered rounds than cleared it."""
        balance: Counter[str] = Counter()
        for seen in self._seen:
            balance.update(seen.accused)
            if seen.searched:
                balance.subtract(client for client in seen.clients if client not in seen.accused)
        return np.array([balance[client] > 0 for client in clients], dtype=bool)

    def remember(
        self,
        clients: Sequence[str],
        cosines: Numbers,
        updates: Numbers,
        deviations: Numbers,
        accused: Mask,
        *,
        searched: bool,
    ) -> None:
        """Take note of a round, and forget the oldest; the `accused` (n,) were reversed.

        `cosines` (n, n) tell sides, and `updates` (n, n) are those of the updates as they are, whose inner products
        relative to any origin are the `deviations` (n, n).
        Those not accused, though they be rejected less clearly, are cleared by a round that `searched` and found some.
        """
        if 0 < len(clients) <= _MOST_CLIENTS:
            found = frozenset(client for client, yes in zip(clients, accused, strict=True) if yes)
            cloud = Cloud.of(deviations)
            told_by = cosines.astype(np.float32), updates.astype(np.float32)
            self._add(_Seen(list(clients), *told_by, cloud, found, searched))

    def _add(self, seen: _Seen) -> None:
        self._seen = [*self._seen, seen][-self.rounds :]

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {_WINDOW: np.array([float(self.rounds)])}
        for index, seen in enumerate(self._seen):
            state[f"sides_{index}"] = json.dumps(seen.clients)
            state[f"sides_cosines_{index}"] = seen.cosines
            state[f"sides_updates_{index}"] = seen.updates
            state[f"sides_points_{index}"] = seen.cloud.points
            state[f"sides_ridge_{index}"] = np.array([seen.cloud.ridge])
            state[f"sides_accused_{index}"] = json.dumps(sorted(seen.accused))
            state[f"sides_searched_{index}"] = np.array([float(seen.searched)])
        return state

    def restore(self, state: Mapping[str, Any], owner: str) -> None:
        """Take over what `state` gave; raises UnusableInput where it cannot be that."""
        window = vector_of(state, _WINDOW, owner, (1,))
        if window is None or int(window[0]) != self.rounds:
            raise UnusableInput(_OTHER_SETTINGS.format(owner=owner), hint=_AFRESH)
        self._seen = []
        for index in range(self.rounds):
            if f"sides_{index}" not in state:
                break
            clients = json.loads(state[f"sides_{index}"])
            cosines = vector_of(state, f"sides_cosines_{index}", owner, (len(clients), len(clients)))
            updates = vector_of(state, f"sides_updates_{index}", owner, (len(clients), len(clients)))
            searched = vector_of(state, f"sides_searched_{index}", owner, (1,))
            points = vector_of(state, f"sides_points_{index}", owner, (len(clients), None))
            ridge = vector_of(state, f"sides_ridge_{index}", owner, (1,))
            if cosines is None or updates is None or points is None or ridge is None or searched is None:
                raise UnusableInput(f"the state of {owner} does not say where its clients were", hint=_AFRESH)
            if not all((np.abs(values) <= _LARGEST).all() for values in (cosines, updates, points, ridge)):
                raise UnusableInput(f"the state of {owner} is damaged: no clients can have been there", hint=_AFRESH)
            if f"sides_accused_{index}" not in state:
                raise UnusableInput(f"the state of {owner} does not say which side its clients were on", hint=_AFRESH)
            found = frozenset(json.loads(state[f"sides_accused_{index}"]))
            cloud = Cloud(points, float(ridge[0]))
            told_by = cosines.astype(np.float32), updates.astype(np.float32)
            self._add(_Seen(clients, *told_by, cloud, found, bool(searched[0])))
