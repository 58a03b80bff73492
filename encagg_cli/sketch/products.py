"""Block products: one float32 matrix product a block, on the processor or on a GPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROBES = 64  # columns by which equal rows are looked for before whole rows are compared


def inner_products(rows: NDArray[np.float32], device: str = "cpu") -> NDArray[np.float32]:
    """(n, n) `⟨rows_i, rows_j⟩` in float32; rows that are equal have exactly equal products with every other.

    A matrix product rounds a row by where it stands in the matrix, so that two equal rows would come out some 1e-4 of
    their norm apart. Colluding attackers send equal updates, and their distance should be 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found out from the sums
        products: NDArray[np.float32] = rows @ rows.T if device == "cpu" else _on_gpu(rows)
    for leader, twin in equal_rows(rows):
        products[twin, :] = products[leader, :]
        products[:, twin] = products[:, leader]
        products[twin, twin] = products[leader, leader]
    return products


def equal_rows(rows: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs (first, other) of rows that are equal bit by bit, each other row named once."""
    columns = rows.shape[1]
    probes = np.ascontiguousarray(rows[:, :: max(1, columns // _PROBES)])
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


def _on_gpu(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    on_device: Any = torch.from_numpy(np.ascontiguousarray(rows)).to("cuda", non_blocking=True)
    products: NDArray[np.float32] = (on_device @ on_device.T).cpu().numpy()
    return products
