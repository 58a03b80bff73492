"""What of each upload the others explain, by ridge regression, from the cosines of the uploads alone."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FAINT: Final = 0.1  # ridge, in median variances, where an upload is compared with what the others span
_FEWEST_NEAR: Final = 3
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


def around_mean(products: Numbers) -> Numbers:
    """(n, n) inner products of the uploads less their mean, from those of the uploads."""
    mean = products.mean(axis=0)
    centred: Numbers = products - mean - mean[:, None] + mean.mean()
    return centred


def residual_maker(products: Numbers, *, intercept: bool = False, medians: float = 1.0) -> Numbers:
    """(n, n) `I - H`, `H` the hat matrix of the ridge regression on uploads with these inner products (n, n).

    The ridge is the median variance, so that the axes along which clients differ most are held back and noise is kept
    out; or so many `medians` of it. An `intercept` is not held back.
    """
    mean = 1.0 / len(products) if intercept else 0.0
    if intercept:
        products = around_mean(products)
    variances, axes = np.linalg.eigh(products)
    variances = np.maximum(variances, 0.0)
    ridge = _ridge(variances, medians)
    residual: Numbers = (axes * (ridge / (variances + ridge))) @ axes.T - mean
    return residual


def shared_with(cosines: Numbers, near: Mask) -> Numbers:
    """(n,) how much each upload has of what those `near` (n,) share: about 1 for as much as they, -1 for the reverse.

    The ridge regression of 1 on the uploads of those near; for one of them, of the others'. NaN for clients that were
    not there, whose cosines (n, n) are NaN, and for all where fewer than three are near.
    """
    share = np.full(len(cosines), np.nan)
    there = np.flatnonzero(~np.isnan(np.diag(cosines)))
    if near[there].sum() >= _FEWEST_NEAR:
        share[there] = share_of(alike(cosines[np.ix_(there, there)]), near[there])
    return share


def share_of(products: Numbers, near: Mask) -> Numbers:
    """(n,) the same, from inner products (n, n) that are scaled already; three or more are `near` (n,)."""
    members = np.flatnonzero(near)
    variances, axes = np.linalg.eigh(products[np.ix_(members, members)])
    variances = np.maximum(variances, 0.0)
    inverse = (axes / (variances + _ridge(variances, 1.0))) @ axes.T
    weights = inverse.sum(axis=1)
    share: Numbers = products[:, members] @ weights
    share[members] = 1.0 - weights / np.diag(inverse)
    return share


def _ridge(variances: Numbers, medians: float) -> float:
    return max(medians * float(np.median(variances)), _LEAST * float(variances[-1]), float(np.finfo(float).tiny))
