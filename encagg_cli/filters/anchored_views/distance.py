"""How far each client lies from the others for its kind, in this round and lately.

Whoever amplifies its honest update stays on the side of all others, shares with them what they do, and is as long as
some of them are: two or three times its own length is no more than what honest lengths differ by. But honest clients
are not far off by accident. Of odd data the others explain less, and lie farther from it; and chance evens out over
rounds. What is left of the distance to the others then is how large a client chooses to be.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import unexplained_shares
from encagg_cli.filters.anchored_views.views import View, log_of_share, logarithm

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_OTHERS: Final = 1.0 / 3.0  # how many of them a client is measured to: the farthest of its nearest third
_RIDGE: Final = 3.0  # clients with an ordinary unexplained share, by which its slope is held back
_STEADIER: Final = 0.7  # how clear a split must be, beside other views, where past rounds have evened out chance
_LEAST: Final = 0.2  # logarithm by which a client is farther than the known-benign: less does no harm worth an alarm
_STOPPED: Final = 0.5  # of its mean: whoever is no farther this round has stopped being far off


@dataclass(frozen=True)
class PastExcess:
    """Of earlier rounds, each client's `total` (n,) excess and what that `weight`s (n,): 0 where there is none."""

    total: Numbers
    weight: Numbers


def excess_distances(distances: Numbers, cosines: Numbers) -> Numbers:
    """(n,) how much farther each client's nearest third of others are than what they do not explain of it lets expect.

    Of the logarithm of the `distances` (n, n), what a regression on that of the unexplained share (ridge.py), by the
    `cosines` (n, n), leaves. It has no unit: whatever is added for all clients says nothing.
    """
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    n = len(others)
    nearest = max(1, round(_OTHERS * (n - 1)))
    far = logarithm(np.sort(others, axis=1)[:, nearest - 1])
    odd = log_of_share(unexplained_shares(cosines))
    odd -= odd.mean()
    variance = float((odd**2).mean()) * (1.0 + _RIDGE / n)
    slope = float((odd * (far - far.mean())).mean()) / variance if variance > 0 else 0.0
    excess: Numbers = far - slope * odd
    return excess


def distance_for_its_kind(excess: Numbers, past: PastExcess | None, anchors: Mask) -> View:
    """How far each client is for its kind, on average over this round's `excess` (n,) and earlier ones.

    Whoever is not half as far as on average has stopped being far off, and is judged by this round alone. Nobody is
    rejected who is hardly farther than the known-benign, masked by the `anchors` (n,), though it be by ever so little
    that all clients differ.
    """
    name, word = "distance for its kind", "distant"
    if past is None or not (past.weight > 0).any():
        return View(name, excess, "", word, _farther(excess, anchors), weighed=False)
    today = excess - np.median(excess)
    lately = (today + past.total) / (1.0 + past.weight)
    stopped = today < _STOPPED * lately
    values = np.where(stopped, np.minimum(today, lately), lately)
    return View(name, values, "", word, _farther(values, anchors), bar=_STEADIER, weighed=False)


def _farther(values: Numbers, anchors: Mask) -> Mask:
    farther: Mask = values > values[anchors].mean() + _LEAST
    return farther
