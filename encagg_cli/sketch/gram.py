"""The Gram matrix of a round, kept so that nothing cancels: centred on a reference row, rows scaled by powers of two.

Updates are often nearly equal and large (raw weights of norm 1000 that differ by 1e-4), and one of them can be absurdly
large (norm 1e30). `float32` products of such rows lose exactly the differences that a filter looks at. So we keep
`C = X Xᵀ` with `X_i = 2^-e_i (g_i - r)`, and the products with the reference, from which every uncentred figure
follows.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Gram:
    """Inner products of `n` clients' updates.

    centred        (n, n) `⟨X_i, X_j⟩` of the scaled rows `X_i = (g_i - r) / scale_i`
    with_reference (n,)   `⟨X_i, r / reference_scale⟩`
    scale          (n,)   powers of two
    norms          (n,)   `‖g_i‖`, as measured when the updates were stored
    reference      index of the row `r`
    """

    centred: Matrix
    with_reference: Vector
    scale: Vector
    norms: Vector
    reference: int

    def __len__(self) -> int:
        return len(self.scale)

    @cached_property
    def deviations(self) -> Matrix:
        """(n, n) `⟨g_i - r, g_j - r⟩`: what every translation-invariant figure is computed from."""
        return self.centred * np.outer(self.scale, self.scale)

    @cached_property
    def inner(self) -> Matrix:
        """(n, n) `⟨g_i, g_j⟩`, uncentred; the diagonal is the stored squared norm."""
        cross = self.with_reference * self.scale * self.scale[self.reference]
        inner: Matrix = self.deviations + cross[:, None] + cross[None, :] + self.norms[self.reference] ** 2
        np.fill_diagonal(inner, self.norms**2)
        return inner

    @cached_property
    def squared_distances(self) -> Matrix:
        """(n, n) `‖g_i - g_j‖²`."""
        squares = np.diag(self.deviations)
        distances = squares[:, None] + squares[None, :] - 2.0 * self.deviations
        np.fill_diagonal(distances, 0.0)
        return np.maximum(distances, 0.0)

    @cached_property
    def distances(self) -> Matrix:
        """(n, n) `‖g_i - g_j‖`."""
        return np.sqrt(self.squared_distances)

    @cached_property
    def cosines(self) -> Matrix:
        """(n, n) `cos(g_i, g_j)`; 0 with an all-zero update, 1 on the diagonal of the others."""
        norms = np.where(self.norms > 0, self.norms, 1.0)
        cosines = self.inner / norms[:, None] / norms[None, :]
        cosines[self.norms == 0, :] = 0.0
        cosines[:, self.norms == 0] = 0.0
        np.fill_diagonal(cosines, self.norms > 0)
        return np.clip(cosines, -1.0, 1.0)

    def subset(self, indices: NDArray[np.intp] | NDArray[np.bool_]) -> "Matrix":
        """(m, m) `⟨g_i - ḡ, g_j - ḡ⟩` over the given clients, `ḡ` their own mean: the centred Gram matrix of PCA."""
        chosen = self.deviations[np.ix_(indices, indices)]
        if not len(chosen):
            return chosen
        means = chosen.mean(axis=0)
        centred: Matrix = chosen - means[:, None] - means[None, :] + means.mean()
        return (centred + centred.T) / 2.0

    def squared_distances_to(self, weights: Vector) -> Vector:
        """(n,) `‖g_i - Σ_j w_j g_j‖²` for weights that sum to 1 (a mean of some clients, say)."""
        products = self.deviations @ weights
        squares: Vector = np.diag(self.deviations) - 2.0 * products + float(weights @ products)
        return np.maximum(squares, 0.0)

    def cosines_to(self, weights: Vector) -> Vector:
        """(n,) `cos(g_i, Σ_j w_j g_j)`; 0 where either is all zero."""
        products = self.inner @ weights
        norms = self.norms * np.sqrt(max(float(weights @ products), 0.0))
        cosines: Vector = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
        return np.clip(cosines, -1.0, 1.0)
