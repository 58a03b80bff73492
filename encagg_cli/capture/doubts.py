"""What whoever records may have got wrong without an error: whole models for updates, known-benign ids nobody has."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.capture.trouble import say
from encagg_cli.rounds.encoding import decode
from encagg_cli.rounds.layout import StoredType

_LOOKS_LIKE_A_MODEL: Final = 0.5  # an update is rarely within half the global model's norm of the global model
_COMPARED: Final = 2**12  # values, evenly spread, are enough to tell
_SHOWN: Final = 3


def is_close(squared_distance: float, squared_norm: float) -> bool:
    """Whether something is so close to a model of that norm that it is a model itself, and no update of one."""
    return squared_distance < _LOOKS_LIKE_A_MODEL**2 * squared_norm


def squares(values: NDArray[Any], model: NDArray[Any]) -> tuple[float, float]:
    """The squared distance of an array from a model's, and the squared norm of the latter."""
    reference = model.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sum((values - reference) ** 2)), float(np.sum(reference**2))


class Doubts:
    """Looks at a recorder's first round, and tells what it doubts, once each."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted = sorted(trusted)
        self._has_model = False
        self._has_ended = False

    def silence(self) -> None:
        """Doubt nothing: whoever uses the recorder looks for itself."""
        self._has_model = self._has_ended = True

    def model(self, model: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """Of the first global model, what `is_model` needs; None of any other."""
        if model is None or self._has_model:
            return None
        self._has_model = True
        return _spread(model).copy()

    def is_model(self, row: NDArray[Any], stored_type: StoredType, model: NDArray[np.float32]) -> bool:
        """Whether an upload, as it is stored, is close to the global model that its round started from."""
        stored = np.ascontiguousarray(_spread(row))
        values = np.empty(len(stored), dtype=np.float32)
        decode(stored, stored_type, values)
        return is_close(*squares(values, model))

    def end_round(self, number: int, *, has_trusted: bool) -> None:
        """Warn where no known-benign client was in the first round."""
        if self._trusted and not self._has_ended and not has_trusted:
            say(f"round {number}: {unheard(self._trusted)}")
        self._has_ended = True


def unheard(trusted: Sequence[str]) -> str:
    """What to say where none of the known-benign clients has uploaded."""
    more = f" and {len(trusted) - _SHOWN} more" if len(trusted) > _SHOWN else ""
    names = ", ".join(map(repr, trusted[:_SHOWN]))
    return f"none of the known-benign clients has uploaded ({names}{more}): is this how the training calls them?"


def _spread(values: NDArray[Any]) -> NDArray[Any]:
    return values[:: -(-len(values) // _COMPARED)]
