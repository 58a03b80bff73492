"""Block products: one float32 matrix product a block, on the processor or on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PROBES, _PROBE = 4, 16  # so many columns in so many places tell most rows apart before whole rows are compared


class Products(NamedTuple):
    """Inner products of centred rows `X`, (n, columns), and of the reference `r`, in float32.

    centred (n, n) `⟨X_i, X_j⟩`; with_reference (n,) `⟨X_i, r⟩`; reference_square () `⟨r, r⟩`
    """

    centred: NDArray[np.float32]
    with_reference: NDArray[np.float32]
    reference_square: NDArray[np.float32]


def centred_products(
    rows: NDArray[np.float32], reference: NDArray[np.float32], reference_row: int, device: str = "cpu"
) -> Products:
    """All from one matrix product: the reference's own row is zero, and lends its place to the reference.

    A matrix product rounds a row by where it stands in the matrix, so that two equal rows would come out some 1e-4 of
    their norm apart. Colluding attackers send equal updates, and their distance should be 0: equal rows are given
    exactly equal products.
    """
    twins = [pair for pair in equal_rows(rows) if reference_row not in pair]
    rows[reference_row] = reference
    products = _with_twins(self_product(rows, device), twins)
    rows[reference_row] = 0.0
    with_reference = products[reference_row].copy()
    products[reference_row, :] = 0.0
    products[:, reference_row] = 0.0
    reference_square = np.asarray(with_reference[reference_row])
    with_reference[reference_row] = 0.0
    return Products(products, with_reference, reference_square)


def equal_rows(rows: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs (first, other) of rows that are equal bit by bit, each other row named once."""
    step = max(_PROBE, rows.shape[1] // _PROBES)
    starts = range(0, rows.shape[1], step)
    probes = np.concatenate([rows[:, start : start + _PROBE] for start in starts[:_PROBES]], axis=1)
    candidates: dict[bytes, list[int]] = {}
    for row, probe in enumerate(probes):
        candidates.setdefault(probe.tobytes(), []).append(row)
    pairs = []
    for alike in candidates.values():
        if len(alike) > 1:
            first: dict[bytes, int] = {}
            for row in alike:
                leader = first.setdefault(rows[row].tobytes(), row)
                if leader != row:
                    pairs.append((leader, row))
    return pairs


def _with_twins(products: NDArray[np.float32], twins: list[tuple[int, int]]) -> NDArray[np.float32]:
    for leader, twin in twins:
        products[twin, :] = products[leader, :]
        products[:, twin] = products[:, leader]
        products[twin, twin] = products[leader, leader]
    return products


def self_product(rows: NDArray[np.float32], device: str) -> NDArray[np.float32]:
    """(n, n) `rows @ rowsᵀ` in float32, on the processor ("cpu") or on a GPU ("cuda")."""
    if device == "cuda":
        return _on_gpu(rows)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found out from the sums
        products: NDArray[np.float32] = rows @ rows.T
    return products


def _on_gpu(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    on_device = torch.from_numpy(rows).to("cuda")
    products: NDArray[np.float32] = (on_device @ on_device.T).cpu().numpy()
    return products


_lock = Lock()
_users = 0
_asked_before = False


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Products on a GPU in float32 while any user of this context is in it; needed for `centred_products` there.

    TF32, which a training may have asked for, keeps 10 bits of every factor: distances between honest clients drown.
    """
    global _users, _asked_before
    if device != "cuda":
        yield
        return
    import torch

    matmul = torch.backends.cuda.matmul
    with _lock:
        _users += 1
        if _users == 1:
            _asked_before = matmul.allow_tf32
            matmul.allow_tf32 = False
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                matmul.allow_tf32 = _asked_before
