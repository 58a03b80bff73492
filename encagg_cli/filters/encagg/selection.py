"""Which cluster is benign, and who of it is within reach (Algorithm 1, eqs. 7-11)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.encagg.clustering import NOISE, Labels, centres
from encagg_cli.filters.encagg.projection import Points, distances
from encagg_cli.filters.encagg.radius import Radius

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """The benign label (-1 where there is none), and masks of its members within reach and of those beyond it."""

    label: int
    members: Mask
    beyond: Mask


def select(
    points: Points, labels: Labels, real: Mask, known: Mask, roots: NDArray[np.intp], radius: Radius, gamma: float
) -> Selection:
    """Algorithm 1 on clustered points: the benign cluster's members within `γε` of some known-benign upload.

    `real` marks uploads (as against pseudo-gradients), `known` the known-benign ones, `roots` the rows of the root
    uploads among the points. Pseudo-gradients shape clusters and their centres, and are never members.
    """
    label = benign_label(points, labels, real, roots)
    candidates = real & (labels == label)
    near = np.zeros(len(points), dtype=bool)
    if known.any():
        near = distances(points, points[known]).min(axis=1) <= radius.reach(gamma)
    return Selection(label, candidates & near, candidates & ~near)


def benign_label(points: Points, labels: Labels, real: Mask, roots: NDArray[np.intp]) -> int:
    """The cluster of the roots; of several, or where all roots are noise, the one whose centre is nearest to them.

    Nearest on average over the roots; only clusters that hold an upload count. Noise (-1) where there is no cluster.
    """
    inhabited: set[int] = set(labels[real].tolist()) - {NOISE}
    candidates: set[int] = (set(labels[roots].tolist()) - {NOISE}) or inhabited
    if not candidates:
        return NOISE
    centre = centres(points, labels)
    ordered = sorted(candidates)
    means = distances(points[roots], np.array([centre[label] for label in ordered])).mean(axis=0)
    return ordered[int(means.argmin())]
