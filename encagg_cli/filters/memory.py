"""What filters with a memory keep between rounds: numbers by client id, and vectors; bounded, and handed out as state.

Clients come and go: what is kept belongs to an id, and stays while the client is away. The clients seen longest ago are
forgotten once there are more than `MOST_CLIENTS`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput

MOST_CLIENTS = 2048
BUCKETS = 8192  # default size of projections; see sketch.projection for what that costs in accuracy

Numbers = NDArray[np.float64]


class ClientMemory:
    """A row of `width` numbers for each client."""

    def __init__(self, width: int, most: int = MOST_CLIENTS) -> None:
        self.width = width
        self.most = most
        self._rows: dict[str, Numbers] = {}  # in the order in which they were last kept

    def recall(self, clients: Sequence[str]) -> tuple[Numbers, NDArray[np.bool_]]:
        """Their rows, (n, width), zero for those not known, and a mask of the known."""
        known = np.array([client in self._rows for client in clients], dtype=bool)
        rows = np.zeros((len(clients), self.width))
        for index, client in enumerate(clients):
            if known[index]:
                rows[index] = self._rows[client]
        return rows, known

    def keep(self, clients: Sequence[str], rows: Numbers) -> None:
        """Remember these rows, and forget whom there is no room for."""
        for client, row in zip(clients, rows, strict=True):
            self._rows.pop(client, None)
            self._rows[client] = np.array(row)
        for client in list(self._rows)[: max(0, len(self._rows) - self.most)]:
            del self._rows[client]

    def everything(self) -> Numbers:
        """(known clients, width)."""
        return np.stack(list(self._rows.values())) if self._rows else np.zeros((0, self.width))

    def state(self) -> dict[str, Any]:
        return {"clients": json.dumps(list(self._rows)), "client_rows": self.everything()}

    def restore(self, state: Mapping[str, Any], owner: str) -> None:
        """Take over what `state` gave; raises UnusableInput where it is of other settings."""
        rows = vector_of(state, "client_rows", owner, (None, self.width))
        clients = json.loads(state["clients"])
        if rows is None or len(clients) != len(rows):
            raise UnusableInput(f"the state of {owner} does not say what belongs to which client")
        self._rows = dict(zip(clients, rows, strict=True))


def vector_of(state: Mapping[str, Any], name: str, owner: str, shape: tuple[int | None, ...]) -> Numbers | None:
    """An array of a state, None where it holds none of that name; raises UnusableInput for another shape."""
    if name not in state:
        return None
    values = np.asarray(state[name], dtype=np.float64)
    if values.ndim != len(shape) or any(w not in (None, g) for w, g in zip(shape, values.shape, strict=True)):
        raise UnusableInput(
            f"the state of {owner} was made with other settings: {name} has shape {values.shape}",
            hint="another --state file starts afresh",
        )
    return values


def row_cosines(rows: Numbers) -> Numbers:
    """(n, n) cosines of rows; 0 with an all-zero row."""
    units = unit_rows(rows)
    cosines: Numbers = np.clip(units @ units.T, -1.0, 1.0)
    return cosines


def unit_rows(rows: Numbers) -> Numbers:
    """Rows divided by their norms; an all-zero row stays zero. Huge and tiny rows neither overflow nor vanish."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    units: Numbers = np.divide(scaled, norms, out=np.zeros_like(rows), where=norms > 0)
    return units
