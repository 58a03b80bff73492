"""Numbers as they are stored: to float32, float16 or bfloat16 and back, and the norm of what was stored.

Rounding is to the nearest, ties to even, from the type that the caller has (a float64 is rounded once). Values beyond
the stored type's range become infinite, NaN stays NaN. Filters in the loop use the same functions, so that they judge
exactly what a later replay will read.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.layout import STORED_AS, StoredType

BLOCK: Final = 65_536  # elements worked on at a time: stays in the processor's cache, and nothing large is allocated

_BFLOAT16_QUIET_NAN: Final = np.uint16(0x0040)
_BFLOAT16_INFINITY: Final = np.uint16(0x7F80)
_WITHOUT_SIGN: Final = np.uint16(0x7FFF)


def stored_dtype(stored_type: StoredType) -> np.dtype[np.generic]:
    """The type of the stored bits; bfloat16 is uint16."""
    return np.dtype(STORED_AS[stored_type])


def encode(values: NDArray[np.floating], stored_type: StoredType, out: NDArray[np.generic]) -> bool:
    """Write `values` (n,) of any float or integer type into `out` (n,) of `stored_dtype(stored_type)`.

    Returns whether a finite value became infinite because it was out of range.
    """
    if stored_type == "bfloat16":
        overflowed = False
        for start in range(0, len(values), BLOCK):
            block = values[start : start + BLOCK]
            bits = _to_bfloat16(block)
            out[start : start + BLOCK] = bits
            infinite = (bits & _WITHOUT_SIGN) == _BFLOAT16_INFINITY
            overflowed = overflowed or bool(infinite.any() and np.isfinite(block[infinite]).any())
        return overflowed
    events: list[str] = []
    with np.errstate(over="call", invalid="ignore", under="ignore", call=lambda kind, _: events.append(kind)):
        np.copyto(out, values, casting="unsafe")
    return bool(events)


def decode(stored: NDArray[np.generic], stored_type: StoredType, out: NDArray[np.float32]) -> None:
    """Write stored numbers, of any shape, into `out` of the same shape as float32. Exact for all stored types."""
    if stored_type == "bfloat16":
        bits = out.view(np.uint32) if out.flags.c_contiguous else np.empty(out.shape, np.uint32)
        np.left_shift(stored, np.uint32(16), out=bits, dtype=np.uint32, casting="unsafe")
        if not out.flags.c_contiguous:
            out[...] = bits.view(np.float32)
    else:
        with np.errstate(invalid="ignore"):
            np.copyto(out, stored, casting="unsafe")


def norm(stored: NDArray[Any], stored_type: StoredType) -> float:
    """Euclidean norm in float64 of a stored row (n,); not finite exactly where the row is not."""
    squares = np.empty(-(-len(stored) // BLOCK), dtype=np.float64)
    buffer = np.empty(min(BLOCK, len(stored)), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for index, start in enumerate(range(0, len(stored), BLOCK)):
            block = stored[start : start + BLOCK]
            if stored_type != "float32":
                decode(block, stored_type, buffer[: len(block)])
                block = buffer[: len(block)]
            # einsum and not a BLAS product: BLAS would take the training's threads.
            squares[index] = np.einsum("i,i->", block, block, dtype=np.float64)
        return float(np.sqrt(squares.sum()))


def _to_bfloat16(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        single = values.astype(np.float32)
    bits = single.view(np.uint32)
    if values.dtype.itemsize > 4:
        # Rounding twice would round some ties the wrong way: first round to odd, from which the second step is exact.
        exact = single.astype(values.dtype)
        inexact = (exact != values) & np.isfinite(values) & np.isfinite(single) & (bits & 1 == 0)
        too_large = inexact & (np.abs(exact) > np.abs(values))
        bits[too_large] -= 1
        bits[inexact & ~too_large] += 1
    upper = (bits >> np.uint32(16)).astype(np.uint16)
    is_nan = np.isnan(single)
    rounded = ((bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)
    result: NDArray[np.uint16] = np.where(is_nan, upper | _BFLOAT16_QUIET_NAN, rounded)
    return result
