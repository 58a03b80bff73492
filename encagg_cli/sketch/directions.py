"""Every client's product with a vector that the round comes with: the global model, a root gradient, the last step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.needs import Block, Header, Need, Partial


@dataclass(frozen=True)
class VectorProducts:
    """Inner products of `n` clients' updates with one vector `v`.

    with_deviations (n,) `⟨g_i - r, v⟩`, `r` the reference row: differences between clients lose nothing
    with_reference  `⟨r, v⟩`
    norm            `‖v‖`
    client_norms    (n,) `‖g_i‖`
    """

    with_deviations: NDArray[np.float64]
    with_reference: float
    norm: float
    client_norms: NDArray[np.float64]

    @property
    def inner(self) -> NDArray[np.float64]:
        """(n,) `⟨g_i, v⟩`."""
        inner: NDArray[np.float64] = self.with_deviations + self.with_reference
        return inner

    @property
    def cosines(self) -> NDArray[np.float64]:
        """(n,) `cos(g_i, v)`; 0 where either is all zero."""
        norms = self.client_norms * self.norm
        cosines = np.divide(self.inner, norms, out=np.zeros_like(norms), where=norms > 0)
        return np.clip(cosines, -1.0, 1.0)


class _ProductsNeed(Need):
    """VectorProducts with one vector; None where the round has none, or one that holds NaN or infinity."""

    def partial(self, block: Block, header: Header) -> Partial:
        (name,) = self.vectors
        vector = block.vectors.get(name)
        if vector is None:
            return {}
        if not np.isfinite(vector).all():
            return {"rows": np.zeros(len(block.rows)), "reference": np.zeros(1), "square": np.array([np.inf])}
        exponent = int(np.frexp(np.abs(vector).max())[1])  # float32 products of a huge vector would overflow
        vector = np.ldexp(vector, -exponent)
        return {
            "rows": np.ldexp((block.rows @ vector).astype(np.float64), exponent),
            "reference": np.ldexp(np.array([block.reference @ vector], dtype=np.float64), exponent),
            "square": np.ldexp(np.array([np.square(vector, dtype=np.float64).sum()]), 2 * exponent),
        }

    def total(self, sums: Partial, header: Header) -> VectorProducts | None:
        if not sums or not np.isfinite(sums["square"][0]):
            return None
        return VectorProducts(
            with_deviations=sums["rows"] * header.scale,
            with_reference=float(sums["reference"][0] * header.scale[header.reference]),
            norm=float(np.sqrt(sums["square"][0])),
            client_norms=header.norms,
        )

    def held_bytes(self, header: Header) -> int:
        return 8 * (len(header.clients) + 2)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 16 * columns + 16 * len(header.clients)


@dataclass(frozen=True)
class GlobalModelNeed(_ProductsNeed):
    """VectorProducts with the global model that the round started from."""

    vectors = frozenset({"global_model"})


@dataclass(frozen=True)
class RootGradientNeed(_ProductsNeed):
    """VectorProducts with the server's own gradient on trusted data."""

    vectors = frozenset({"root_gradient"})


@dataclass(frozen=True)
class LastStepNeed(_ProductsNeed):
    """VectorProducts with the last step: the global model less that of the round before."""

    vectors = frozenset({"last_step"})
