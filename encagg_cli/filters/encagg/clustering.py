"""Density clustering (DBSCAN, Ester et al. 1996) and the centres of its clusters."""

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.encagg.radius import Radius

NOISE = -1
Labels = NDArray[np.int32]


def density_clusters(distances: NDArray[np.float64], radius: Radius, min_samples: int) -> Labels:
    """DBSCAN labels of `n` points from their (n, n) distances; -1 is noise.

    A point counts among its own `min_samples` neighbours, as in scikit-learn. A border point within reach of two
    clusters goes to the one found first in row order.
    """
    from sklearn.cluster import DBSCAN  # half a second to import

    reach = max(radius.reach(), float(np.finfo(np.float64).tiny))  # with ε = 0, equal points are neighbours
    labels: Labels = DBSCAN(eps=reach, min_samples=min_samples, metric="precomputed").fit_predict(distances)
    return labels.astype(np.int32)


def centres(points: NDArray[np.float64], labels: Labels) -> dict[int, NDArray[np.float64]]:
    """The mean of each cluster's points, by label; noise has none."""
    return {int(label): points[labels == label].mean(axis=0) for label in np.unique(labels) if label != NOISE}
