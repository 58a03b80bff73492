"""Principal planes of any subset of clients, from the Gram matrix alone and accurate for graded data.

An eigen-decomposition of the centred Gram matrix is exact only relative to its largest eigenvalue: one client of norm
1e30 would wipe out the axis on which all others differ. Where the clients' norms differ that much, a pivoted Cholesky
factor keeps every row's own precision, and the Jacobi SVD (LAPACK `gejsv`) every column's (Drmač & Veselić 2008); it is
ten times slower, so ordinary rounds take the ordinary way.
"""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

_GRADED = 1e6  # ratio of squared deviations from which plain double precision blurs the second axis


def principal_coordinates(deviations: NDArray[np.float64], axes: int = 2) -> Points:
    """Coordinates of `n` clients on their `axes` principal axes of largest variance, (n, axes).

    `deviations` is the (n, n) Gram matrix of the clients' updates relative to any common origin; the coordinates are
    those of PCA on the updates (EnCAgg eq. 1: `P = V₂ √Λ₂`) up to a translation: the point of smallest deviation,
    whose own coordinates lose nothing, is put at that origin. Axes beyond the rank are zero. Each axis is oriented
    so that the point farthest from the mean along it lies on the positive side, whatever the client order.
    """
    n = len(deviations)
    coordinates = np.zeros((n, axes))
    if n < 2:
        return coordinates
    squares = np.diag(deviations)
    largest = float(squares.max())
    if not largest > 0:
        return coordinates
    graded = largest > _GRADED * float(np.median(squares[squares > 0]))
    projected = _graded_projection(deviations, axes) if graded else _projection(deviations, axes)
    centred = projected - projected.mean(axis=0)
    farthest = centred[np.abs(centred).argmax(axis=0), np.arange(projected.shape[1])]
    coordinates[:, : projected.shape[1]] = projected * np.where(farthest < 0, -1.0, 1.0) + 0.0
    return coordinates


def _projection(deviations: NDArray[np.float64], axes: int) -> Points:
    """`V √Λ` of the centred Gram matrix, largest eigenvalue first; at most `axes` columns."""
    means = deviations.mean(axis=0)
    centred = deviations - means[:, None] - means[None, :] + means.mean()
    values, vectors = np.linalg.eigh((centred + centred.T) / 2.0)
    values, vectors = values[::-1][:axes], vectors[:, ::-1][:, :axes]
    rounding = len(deviations) * np.finfo(np.float64).eps * float(values[0])
    projected: Points = vectors * np.sqrt(np.where(values > rounding, values, 0.0))
    return projected


def _graded_projection(deviations: NDArray[np.float64], axes: int) -> Points:
    """The same, up to a translation, with each client's coordinates accurate relative to its own deviation."""
    from scipy.linalg import lapack  # takes as long to import as all else together, and is rarely needed

    lower, pivots, rank, _ = lapack.dpstrf(deviations, lower=1, tol=np.finfo(np.float64).tiny)
    factor = np.zeros((len(deviations), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    centred = factor - factor.mean(axis=0)
    # Powers of two change no digit, and keep gejsv away from overflow.
    centred /= 2.0 ** np.ceil(np.log2(np.abs(centred).max()))
    _, _, directions, _, _, info = lapack.dgejsv(centred, joba=0, jobu=3, jobv=0, jobr=0, jobt=0, jobp=0)
    if info != 0:
        raise np.linalg.LinAlgError(f"the Jacobi SVD did not converge (gejsv info {info})")
    return np.asarray(factor @ directions[:, :axes])
