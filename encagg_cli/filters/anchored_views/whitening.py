"""What clients have in common, when the axes along which honest ones differ most are held back.

Honest updates differ most along a few axes: which classes a client has, what its last batch was. The step that all of
them share is small beside that, and a client who reverses it but keeps its own differences lies inside the honest cloud
of every plane. With every principal axis scaled by `√(l / (λ + l))`, where `λ` is the variance along it and `l` a
typical one (Tikhonov whitening), what is shared comes to the fore.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_TYPICAL: Final = 8.0  # times the median variance: axes well above it are held back
_SWEEPS: Final = 8
_STEEP: Final = 2.0  # alignment at which a client counts nearly in full, relative to the known-benign
_TINY: Final = 1e-12


def whitened(inner: Numbers) -> Numbers:
    """(n, n) cosines of the whitened uploads, from the inner products (n, n) of the uploads themselves.

    The axes are those of the uploads around their mean; the uploads stay uncentred. Where most axes have no variance
    (copies), the plain cosines.
    """
    n = len(inner)
    centring = np.eye(n) - 1.0 / n
    variances, axes = np.linalg.eigh(centring @ inner @ centring)
    variances, axes = np.maximum(variances[1:], 0.0), axes[:, 1:]  # one of them is the mean's, of none
    typical = _TYPICAL * float(np.median(variances))
    if not typical > _TINY * float(np.trace(inner)):
        return _cosines(inner)
    along = variances > _TINY * variances[-1]
    places = inner @ centring @ axes[:, along] / np.sqrt(variances[along])
    held_back = variances[along] / (variances[along] + typical)
    return _cosines(inner - (places * held_back) @ places.T)


def alignment(cosines: Numbers, weights: Numbers) -> Numbers:
    """(n,) cosine of each unit upload with the weighted sum of the *others*; 0 where that sum is nothing."""
    own = weights * np.diag(cosines)
    towards = cosines @ weights
    squares = weights @ towards - 2.0 * weights * towards + weights * own
    with_others: Numbers = (towards - own) / np.sqrt(np.maximum(squares, _TINY))
    return np.where(squares > _TINY, with_others, 0.0)


def mirrored(cosines: Numbers, trusted: Mask) -> Numbers:
    """(n,) in [-1, 1]: how far each client counts for the known-benign side, or against it.

    The known-benign count in full. The others count by `tanh` of their alignment with the weighted sum of all others:
    those who oppose it count with the opposite sign, so that they help to tell the sides apart.
    """
    weights = trusted.astype(np.float64)
    for _ in range(_SWEEPS):
        side = alignment(cosines, weights)
        typical = max(float(side[trusted].mean()), 1e-3)
        weights = np.where(trusted, 1.0, np.tanh(_STEEP * side / typical))
    return weights


def sides_apart(cosines: Numbers, group: Mask) -> float:
    """Minus the cosine between the sum of the unit uploads of `group` and that of the rest, in [-1, 1]."""
    far, near = group.astype(np.float64), (~group).astype(np.float64)
    product = float((far @ cosines @ far) * (near @ cosines @ near))
    return -float(far @ cosines @ near) / np.sqrt(product) if product > _TINY else 0.0


def _cosines(inner: Numbers) -> Numbers:
    norms = np.sqrt(np.maximum(np.diag(inner), 0.0))
    safe = np.where(norms > 0, norms, 1.0)
    cosines: Numbers = inner / safe[:, None] / safe
    return cosines
