"""Where the uploads of a round lie: on their principal plane (eq. 1), or in the whole space for the ablation."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from encagg_cli.sketch import principal_coordinates

Points = NDArray[np.float64]
Projection = Literal["pca", "none"]

# The sketch's products are float32, its coordinates float64; each resolves no more than this share of its rows' length.
_PRODUCTS = 1e-7
_COORDINATES = 1e-12
_ORDINARY = 1e6  # ratio of squares up to which rounding of the longest row reaches the others (see sketch.planes)


def project(deviations: NDArray[np.float64], projection: Projection) -> Points:
    """Coordinates of `n` uploads from the (n, n) Gram matrix of their deviations from any common origin.

    "pca" gives their principal plane, (n, 2), eq. 1: `P = V₂ √Λ₂`. "none" gives all their principal axes, at least two,
    in which distances are those of the whole space; its first two are the plane.
    """
    return principal_coordinates(deviations, axes=2 if projection == "pca" else max(2, len(deviations) - 1))


def distances(points: Points, others: Points | None = None) -> NDArray[np.float64]:
    """Euclidean distances, (n, m); every stage compares these same numbers, so that ε *is* one of them, bit for bit."""
    pairs: NDArray[np.float64] = cdist(points, points if others is None else others)
    return pairs


def resolution(deviations: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """The distance below which known-benign uploads cannot be told apart; 0 where all uploads are equal.

    Equal updates get coordinates that differ by rounding alone, and a radius made of rounding would tear them apart.
    """
    squares = np.diag(deviations)
    positive = squares[squares > 0]
    if not len(positive):
        return 0.0
    reach = np.sqrt(min(float(positive.max()), _ORDINARY * float(np.median(positive))))
    return float(_PRODUCTS * np.sqrt(max(float(squares[known].max(initial=0.0)), 0.0)) + _COORDINATES * reach)
