"""The views of a round: one number a client each, in which honest uploads lie around the known-benign."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch import Gram, principal_coordinates

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NEAREST = 3
_TINY = 1e-6  # relative to the round's own median: what logarithms are kept above


@dataclass(frozen=True)
class View:
    """One axis: `values` (n,), and the word for a group that stands apart on its low or high side ("" where none can).

    A side without a word is one on which honest clients may stand apart, or where standing apart does no harm.
    """

    name: str
    values: Numbers
    low: str
    high: str


def views_of(gram: Gram, alive: NDArray[np.intp], trusted: Mask) -> Iterator[View]:
    """The views of the clients `alive` among themselves; `trusted` (n,) masks the known-benign among all.

    A known-benign client is measured against the *others*, so that it is not nearer to itself than honest clients are.
    """
    anchors = trusted[alive]
    among = np.ix_(alive, alive)
    squares, cosines = gram.squared_distances[among], gram.cosines[among]
    distances = np.sqrt(squares)
    np.fill_diagonal(distances, np.inf)
    neighbour = _log(np.sort(distances, axis=1)[:, :_NEAREST].mean(axis=1))
    np.fill_diagonal(cosines, 0.0)

    yield View("norm", _log(gram.norms[alive]), "", "oversized")
    yield View("likeness", 0.5 * np.log(np.maximum((cosines**2).mean(axis=1), _TINY**2)), "unrelated", "colluding")
    yield View("best likeness", np.sort(cosines, axis=1)[:, -_NEAREST:].mean(axis=1), "unrelated", "")
    yield View("neighbour distance", neighbour, "colluding", "distant")
    if anchors.sum() > 1:
        reference = _log(np.sqrt(_squares_to_others_mean(squares, anchors)))
        yield View("reference distance", reference, "", "distant")
        yield View("crowding", neighbour - reference, "colluding", "unrelated")
        yield View("nearest known-benign", _log(distances[:, anchors].min(axis=1)), "shadowing", "")
    yield View("principal axis", principal_coordinates(gram.deviations[among], 1)[:, 0], "separate", "separate")
    np.fill_diagonal(cosines, 1.0)
    yield View("principal direction", np.linalg.eigh(cosines)[1][:, -1], "separate", "separate")


def _squares_to_others_mean(squares: Numbers, anchors: Mask) -> Numbers:
    """(n,) squared distance to the mean of the known-benign clients, of which oneself is left out.

    For a set `A` of `k` points, `‖x - mean(A)‖² = Σ_A ‖x - a‖² / k - Σ_{A×A} ‖a - a'‖² / 2k²`.
    """
    k = np.where(anchors, anchors.sum() - 1, anchors.sum())
    to_anchors = squares[:, anchors].sum(axis=1)
    within = float(squares[np.ix_(anchors, anchors)].sum()) - np.where(anchors, 2.0 * to_anchors, 0.0)
    result: Numbers = np.maximum(to_anchors / k - within / (2.0 * k**2), 0.0)
    return result


def _log(values: Numbers) -> Numbers:
    """Logarithm of non-negative figures, kept from below at a tiny share of their median (1 where that is zero)."""
    typical = float(np.median(values))
    logarithm: Numbers = np.log(np.maximum(values, _TINY * (typical if typical > 0 else 1.0)))
    return logarithm
