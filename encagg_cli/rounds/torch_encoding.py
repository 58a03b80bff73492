"""16-bit numbers by torch, where training has loaded it: several times as fast as by NumPy, and bit for bit the same.

In pieces so small that torch works on them in the calling thread: its other threads belong to the training.
"""

import sys
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.layout import StoredType

PIECE: Final = 32_256  # elements: torch shares 32,768 and more among its threads
_WORTH_IT: Final = 1024  # fewer are converted faster than torch is called
_ROUND_TO_INFINITY: Final[dict[StoredType, float]] = {"float16": 65_520.0, "bfloat16": 3.3961775292304601e38}


def loaded(stored_type: StoredType, length: int) -> ModuleType | None:
    """torch, if it is there (it is never imported here) and serves for an array of this type and length."""
    if stored_type not in _ROUND_TO_INFINITY or length < _WORTH_IT:
        return None
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "bfloat16") and hasattr(torch, "from_numpy") else None  # not while it is imported


def encode_piece(torch: ModuleType, values: NDArray[Any], stored_type: StoredType, out: NDArray[np.generic]) -> bool:
    """Round at most `PIECE` float32 numbers and return True; if some are beyond the type's range, return False instead.

    So NaN, whose bits are no matter of rounding, and what becomes infinite are left to whoever reports them.
    """
    source = torch.from_numpy(_changeable(values))
    if type(source) is not torch.Tensor:  # within one of torch's modes that only pretend
        return False
    least, largest = torch.aminmax(source)
    limit = _ROUND_TO_INFINITY[stored_type]
    if not (least.item() > -limit and largest.item() < limit):  # also where they are NaN
        return False
    _tensor(torch, out, stored_type).copy_(source)
    return True


def decode(torch: ModuleType, stored: NDArray[np.generic], stored_type: StoredType, out: NDArray[np.float32]) -> bool:
    """Write stored numbers (n,) into `out` (n,) and return True; within one of torch's modes that only pretend, False.

    Exact, except for which NaN a NaN of float16 becomes.
    """
    source, target = _tensor(torch, _changeable(stored), stored_type), torch.from_numpy(out)
    if type(target) is not torch.Tensor:
        return False
    for start in range(0, len(stored), PIECE):
        target[start : start + PIECE].copy_(source[start : start + PIECE])
    return True


def _tensor(torch: ModuleType, stored: NDArray[Any], stored_type: StoredType) -> Any:
    return torch.from_numpy(stored.view(np.int16)).view(getattr(torch, stored_type))


def _changeable(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy where torch would not take it, or warn that it could change it."""
    return array if array.flags.writeable and array.flags.c_contiguous and array.flags.aligned else array.copy()
