"""Numbers as they are stored: to float32, float16 or bfloat16 and back, and the norm of what was stored.

Rounding is to the nearest, ties to even, from the type that the caller has (a float64 is rounded once). Values beyond
the stored type's range become infinite, NaN stays NaN. Filters in the loop use the same functions, so that they judge
exactly what a later replay will read.
"""

import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds import torch_encoding
from encagg_cli.rounds.layout import STORED_AS, StoredType

BLOCK: Final = 65_536  # elements worked on at a time: stays in the processor's cache, and nothing large is allocated

_QUIET_NAN: Final = np.uint16(0x0040)  # a bit of bfloat16
_ROUNDS_TO_INFINITY: Final = np.uint32(0x7F7F8000).view(np.float32)  # the least float32 beyond bfloat16's range
_UPPER_HALF: Final = 1 if sys.byteorder == "little" else 0  # of a uint32 seen as two uint16


def stored_dtype(stored_type: StoredType) -> np.dtype[np.generic]:
    """The type of the stored bits; bfloat16 is uint16."""
    return np.dtype(STORED_AS[stored_type])


def encode(values: NDArray[np.floating], stored_type: StoredType, out: NDArray[np.generic]) -> bool:
    """Write `values` (n,) of any float or integer type into `out` (n,) of `stored_dtype(stored_type)`.

    Returns whether a finite value became infinite because it was out of range.
    """
    if values.dtype == np.float32:
        if stored_type == "float32":
            np.copyto(out, values)
            return False
        torch = torch_encoding.loaded(stored_type, len(values))
        if torch is not None:
            overflowed = False
            for start in range(0, len(values), torch_encoding.PIECE):
                piece = values[start : start + torch_encoding.PIECE]
                target = out[start : start + torch_encoding.PIECE]
                if not torch_encoding.encode_piece(torch, piece, stored_type, target):
                    overflowed |= _encode(piece, stored_type, target)
            return overflowed
    return _encode(values, stored_type, out)


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
    buffer = np.empty(0 if stored_type == "float32" else min(BLOCK, len(stored)), dtype=np.float32)
    torch = torch_encoding.loaded(stored_type, len(stored))
    with np.errstate(invalid="ignore", over="ignore"):
        for index, start in enumerate(range(0, len(stored), BLOCK)):
            block = stored[start : start + BLOCK]
            if stored_type != "float32":
                values = buffer[: len(block)]
                if torch is None or not torch_encoding.decode(torch, block, stored_type, values):
                    decode(block, stored_type, values)
                block = values
            # einsum and not a BLAS product: BLAS would take the training's threads.
            squares[index] = np.einsum("i,i->", block, block, dtype=np.float64)
        return float(np.sqrt(squares.sum()))


def _encode(values: NDArray[Any], stored_type: StoredType, out: NDArray[Any]) -> bool:
    if stored_type == "bfloat16":
        return _encode_bfloat16(values, out)
    events: list[str] = []
    with np.errstate(over="call", invalid="ignore", under="ignore", call=lambda kind, _: events.append(kind)):
        np.copyto(out, values, casting="unsafe")
    return bool(events)


def _encode_bfloat16(values: NDArray[Any], out: NDArray[Any]) -> bool:
    overflowed = False
    work = np.empty(min(BLOCK, len(values)), dtype=np.uint32)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            single = np.ascontiguousarray(block, dtype=np.float32)
        if block.dtype.kind != "f" or block.dtype.itemsize > 4:
            single = _rounded_to_odd(block, single)
        bits = single.view(np.uint32)
        # To the nearest, ties to even: add just less than half of the last place that stays, and one if it is odd.
        sums = np.right_shift(bits, 16, out=work[: len(block)])
        sums &= 1
        sums += 0x7FFF
        sums += bits
        out[start : start + BLOCK] = sums.view(np.uint16)[_UPPER_HALF::2]
        if not np.abs(single).max() < _ROUNDS_TO_INFINITY:  # also where it is NaN
            is_nan = np.isnan(single)
            upper = (bits[is_nan] >> np.uint32(16)).astype(np.uint16)
            out[start : start + BLOCK][is_nan] = upper | _QUIET_NAN
            overflowed |= bool((~(np.abs(single) < _ROUNDS_TO_INFINITY) & np.isfinite(block)).any())
    return overflowed


def _rounded_to_odd(values: NDArray[Any], single: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values as float32, inexact ones rounded to the neighbour with an odd last bit.

    Rounding such a one again gives what rounding once would: rounding to the nearest twice gets some ties wrong.
    """
    single = single.copy()
    bits = single.view(np.uint32)
    exact = single.astype(np.float64)
    inexact = (exact != values) & np.isfinite(single) & (bits & 1 == 0)
    too_large = inexact & (np.abs(exact) > np.abs(values))
    bits[too_large] -= 1
    bits[inexact & ~too_large] += 1
    return single
