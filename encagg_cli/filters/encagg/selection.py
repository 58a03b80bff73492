"""Which cluster is benign, and who of it is within reach (Algorithm 1, eqs. 7-11)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.encagg.clustering import NOISE, Labels, centres
from encagg_cli.filters.encagg.projection import Points, distances
from encagg_cli.filters.encagg.radius import Radius

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Clustered:
    """Points and their cluster labels, (p,). `uploads` marks those that are uploads and not pseudo-gradients, `known`
    the known-benign among them; `roots` are the rows of the one or two root uploads.
    """

    points: Points
    labels: Labels
    uploads: Mask
    known: Mask
    roots: NDArray[np.intp]


@dataclass(frozen=True)
class Selection:
    """The benign label (-1: no cluster is benign); its uploads within reach, and those beyond it, as masks (p,)."""

    label: int
    members: Mask
    beyond: Mask


def select(clustered: Clustered, radius: Radius, gamma: float, *, lone_is_benign: bool) -> Selection:
    """Algorithm 1: the benign cluster's uploads within `γε` of some known-benign upload."""
    label = benign_label(clustered, lone_is_benign=lone_is_benign)
    candidates = clustered.uploads & (clustered.labels == label)
    to_known = distances(clustered.points, clustered.points[clustered.known])
    near = to_known.min(axis=1, initial=np.inf) <= radius.reach(gamma)
    return Selection(label, candidates & near, candidates & ~near)


def benign_label(clustered: Clustered, *, lone_is_benign: bool) -> int:
    """The roots' cluster; of several, or where all roots are noise, the one whose centre is nearest to them.

    Nearest on average over the roots. Only clusters that hold an upload count. Noise (-1) where there is none, or where
    there is one, all roots are noise, and `lone_is_benign` is not set.
    """
    candidates: set[int] = set(clustered.labels[clustered.roots].tolist()) - {NOISE}
    if not candidates:
        candidates = set(clustered.labels[clustered.uploads].tolist()) - {NOISE}
        if not candidates or (len(candidates) == 1 and not lone_is_benign):
            return NOISE
    centre = centres(clustered.points, clustered.labels)
    ordered = sorted(candidates)
    to_centres = distances(clustered.points[clustered.roots], np.array([centre[label] for label in ordered]))
    return ordered[int(to_centres.mean(axis=0).argmin())]
