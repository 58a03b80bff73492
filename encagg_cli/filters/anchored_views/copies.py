"""Uploads that are one and the same: honest training never agrees so closely, whatever the clients have in common."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SAME: Final = 0.01  # of the median known-benign distance: closer than that, two uploads are one


def coincide(distances: Numbers, trusted: Mask) -> Mask:
    """(n, n) which uploads are one and the same, beside how far the known-benign ones are from each other."""
    anchors = distances[np.ix_(trusted, trusted)]
    apart = anchors[~np.eye(len(anchors), dtype=bool)]
    same: Mask = distances <= _SAME * (float(np.median(apart)) if len(apart) else 0.0)
    return same


def copied(same: Mask, trusted: Mask, among: Mask) -> list[NDArray[np.intp]]:
    """Groups of uploads `among` (n,) that are one and the same, directly or by way of others, less the known-benign.

    By which of them coincide, (n, n). A copy of a known-benign upload is a copy too: it adds nothing but weight.
    """
    here = np.flatnonzero(among)
    labels = connected_components(same[np.ix_(here, here)], directed=False)[1]
    groups = [here[labels == label] for label in np.unique(labels)]
    return [group[~trusted[group]] for group in groups if len(group) > 1 and not trusted[group].all()]
