"""Products with an L-BFGS approximation of the Hessian, from pairs of steps and changes of gradient."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def hessian_products(steps: Sequence[Numbers], changes: Sequence[Numbers], vectors: Numbers) -> Numbers:
    """(k, d) products `B v` for the rows `v` of `vectors`; zero where there are no pairs, or none tells of curvature.

    The compact form of Byrd, Nocedal & Schnabel (1994): `B = σI - [σS Y] [[σSᵀS, L], [Lᵀ, -D]]⁻¹ [σSᵀ; Yᵀ]`, with `σ =
    ⟨y, s⟩ / ⟨s, s⟩` of the latest pair, `D` and `L` the diagonal and the strictly lower part of `SᵀY`. Pairs are the
    columns of S and Y, oldest first. A singular middle matrix is inverted as far as it goes.
    """
    pairs = [(s, y) for s, y in zip(steps, changes, strict=True) if s.any()]
    if not pairs:
        return np.zeros_like(vectors)
    S, Y = (np.stack(side, axis=1) for side in zip(*pairs, strict=True))
    products = S.T @ Y
    sigma = float(products[-1, -1] / (S[:, -1] @ S[:, -1]))
    lower = np.tril(products, -1)
    middle = np.block([[sigma * (S.T @ S), lower], [lower.T, -np.diag(np.diag(products))]])
    outer = np.hstack([sigma * S, Y])
    # Pairs may differ in length by orders of magnitude: scaled to a unit diagonal, they are not mistaken for rank lost.
    size = np.sqrt(np.abs(np.diag(middle)))
    size[size == 0] = 1.0
    solved = np.linalg.pinv(middle / np.outer(size, size), rcond=1e-12, hermitian=True) / np.outer(size, size)
    along: Numbers = sigma * vectors - (vectors @ outer) @ solved @ outer.T
    return along
