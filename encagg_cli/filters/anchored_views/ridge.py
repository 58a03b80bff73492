"""What of each upload the others explain, by ridge regression, from the cosines of the uploads alone."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_FAINT: Final = 0.1  # ridge, in median variances, where an upload is compared with what the others span
_LEAST: Final = 1e-9  # relative to the largest: what ridges and shares are kept above


def unexplained_shares(cosines: Numbers) -> Numbers:
    """(n,) share of each upload's square that lies outside of what the others span: `1 / (C + r I)⁻¹ᵢᵢ`."""
    variances, axes = np.linalg.eigh(cosines)
    variances = np.maximum(variances, 0.0)
    shares: Numbers = 1.0 / ((axes**2) @ (1.0 / (variances + _ridge(variances, _FAINT))))
    return shares


def alike(cosines: Numbers) -> Numbers:
    """(n, n) inner products of the uploads, scaled so that what the others do not explain is as large for everybody.

    An upload that is mostly its client's own, and one that is mostly what all share, then tell as much about a third.
    """
    shares = unexplained_shares(cosines)
    size = np.sqrt(np.maximum(shares, _LEAST * float(shares.max())))
    products = cosines / np.outer(size, size)
    typical = float(np.mean(np.diag(products)))
    scaled: Numbers = products / typical if typical > 0 else products
    return scaled


def residual_maker(products: Numbers) -> Numbers:
    """(n, n) `I - H`, `H` the hat matrix of the ridge regression on uploads with these inner products (n, n).

    The ridge is the median variance, so that the axes along which clients differ most are held back and noise is kept
    out.
    """
    variances, axes = np.linalg.eigh(products)
    variances = np.maximum(variances, 0.0)
    ridge = _ridge(variances, 1.0)
    residual: Numbers = (axes * (ridge / (variances + ridge))) @ axes.T
    return residual


def _ridge(variances: Numbers, medians: float) -> float:
    return max(medians * float(np.median(variances)), _LEAST * float(variances[-1]), float(np.finfo(float).tiny))
