"""The views of a round: one number a client each, in which honest uploads lie around the known-benign."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import unexplained_shares
from encagg_cli.sketch import Gram, principal_coordinates
from encagg_cli.sketch.signs import SignCosines

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NEAREST = 3
_STEADIEST = 1.02  # less a cosine of 1: two uploads of a client are never quite the same
_UNLIKE = 0.25  # cosine below which an upload has nothing of its past
FEWEST = 6  # clients among which groups can be told apart
_CHOSEN = 1.5  # how much clearer a split must be by what the round itself has chosen: an axis, one neighbour of many
_FAINT: Final = 0.1  # of what the others share: who has more resembles them, however odd its data
_ALIEN: Final = {"unrelated": _FAINT}
_TINY = 1e-6  # relative to the round's own median: what logarithms are kept above


@dataclass(frozen=True)
class View:
    """One axis: `values` (n,), and the word for a group that stands apart on its low or high side ("" where none can).

    A side without a word is one on which honest clients may stand apart, or where standing apart does no harm.
    `eligible` (n,) masks whom a cut may reject, where that is not everybody on the far side; a group of less than
    `fewest` is none, nor, unless it is very clear, is one that has more of what the others share (ridge.py) than
    `most_shared` says for its word; and a split must be `bar` times as clear as elsewhere.
    `weighed` says whether standing apart in it also counts where groups are weighed by all that is known (standing.py).
    """

    name: str
    values: Numbers
    low: str
    high: str
    eligible: Mask | None = None
    fewest: int = 1
    bar: float = 1.0
    most_shared: Mapping[str, float] = field(default_factory=dict)
    weighed: bool = True

    def is_high(self, group: Mask) -> bool:
        """Whether the `group` (n,) lies higher than the others."""
        return bool(self.values[group].mean() > self.values[~group].mean())


def views_of(gram: Gram, alive: NDArray[np.intp]) -> tuple[View, ...]:
    """The views of the clients `alive` among themselves, whoever of them is known-benign."""
    among = np.ix_(alive, alive)
    cosines = gram.cosines[among]
    distances = gram.distances[among]
    np.fill_diagonal(distances, np.inf)
    neighbour = logarithm(np.sort(distances, axis=1)[:, :_NEAREST].mean(axis=1))
    share = unexplained_shares(cosines)
    unexplained = logarithm(gram.norms[alive] * np.sqrt(share))
    direction = np.linalg.eigh(cosines)[1][:, -1]
    axis = principal_coordinates(gram.deviations[among], 1)[:, 0]
    np.fill_diagonal(cosines, 0.0)
    likeness = 0.5 * np.log(np.maximum((cosines**2).mean(axis=1), _TINY**2))
    # Short uploads are near each other, honest or not, where the long ones are clipped; who colludes is alike, too.
    # A client that differs from all others makes an axis by itself, on which it is far off whoever it is: it takes two.
    # And the axis is chosen among many as the one on which clients differ most: honest classes part there by chance. Of
    # the updates as they are, it is that of few large ones, of honest clients with rare data as well: they still share.
    return (
        View("likeness", likeness, "unrelated", "colluding", most_shared=_ALIEN),
        View("neighbour distance", neighbour, "", "distant"),
        View("unexplained part", unexplained, "colluding", "unrelated", most_shared=_ALIEN),
        View("unexplained share", log_of_share(share), "colluding", "unrelated", most_shared=_ALIEN),
        View("principal axis", axis, "separate", "separate", fewest=2, bar=_CHOSEN, most_shared={"separate": _FAINT}),
        View("principal direction", direction, "separate", "separate", fewest=2, bar=_CHOSEN),
    )


def views_of_signs(signs: SignCosines) -> tuple[View, ...]:
    """The views of the updates' signs, in which no few coordinates outweigh the rest.

    Noise that is small beside the largest coordinates turns the signs of most. Of many pairs of honest clients, the
    nearest may be of one class by chance. Of few coordinates, all may agree by chance: one is taken not to.
    """
    one = 1.0 / np.maximum(signs.counts, 1.0)
    others = signs.cosines.copy()
    np.fill_diagonal(others, -1.0)
    nearest = np.log(1.0 - others.max(axis=1) + 2.0 * one)
    share = unexplained_shares(signs.cosines) + one
    return (
        View("sign unexplained share", log_of_share(share), "colluding", "unrelated", most_shared=_ALIEN),
        View("nearest signs", nearest, "colluding", "", fewest=2, bar=_CHOSEN),
    )


def nearest_known_benign(gram: Gram, alive: NDArray[np.intp], trusted: Mask) -> View | None:
    """How near each client `alive` is to a known-benign upload other than its own; `trusted` (n,) masks those of all.

    None where there are fewer than two: a known-benign client is measured against the *others*, so that it is not
    nearer to itself than honest clients are. Nor does a client shadow one that is farther from it than most others:
    the known-benign may be the odd ones.
    """
    anchors = trusted[alive]
    if anchors.sum() < 2:
        return None
    distances = gram.distances[np.ix_(alive, alive)]
    np.fill_diagonal(distances, np.inf)
    nearest = distances[:, anchors].min(axis=1)
    shadows = nearest < np.median(np.sort(distances, axis=1)[:, :-1], axis=1)
    return View("nearest known-benign", logarithm(nearest), "shadowing", "", shadows, bar=_CHOSEN)


def own_past(continuity: Numbers, anchors: Mask) -> View | None:
    """How far each client has turned from its own recent uploads; None where too few have a past to compare.

    `continuity` (n,) is the largest cosine with one of them, NaN where there is none: such clients are put in the
    middle. Honest clients differ much in how steady they are, so that only those may be rejected who bear no likeness
    to their past at all.
    """
    known = ~np.isnan(continuity)
    if (known & anchors).sum() < 2 or known.sum() < FEWEST:
        return None
    turned = np.where(known, np.log(_STEADIEST - np.where(known, continuity, 0.0)), 0.0)
    turned = np.where(known, turned, np.median(turned[known]))
    return View("own past", turned, "", "changed", known & (np.where(known, continuity, 1.0) < _UNLIKE))


def log_of_share(share: Numbers) -> Numbers:
    """(n,) logarithm of the root of a share of a square."""
    kept: Numbers = 0.5 * np.log(np.maximum(share, _TINY**2))
    return kept


def logarithm(values: Numbers) -> Numbers:
    """Logarithm of non-negative figures, kept from below at a tiny share of their median (1 where that is zero)."""
    typical = float(np.median(values))
    kept: Numbers = np.log(np.maximum(values, _TINY * (typical if typical > 0 else 1.0)))
    return kept
