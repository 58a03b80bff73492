"""Are there two populations, one of them without the known-benign?

Discriminative clustering (Bach and Harchaoui, DIFFRAC, NIPS 2007): of all ways to part the clients, the one that is
best predicted from their uploads, by ridge regression with an intercept. The errors are leave-one-out (PRESS), and
compared with those of predicting everybody by the others' mean. Clients differ gradually in what they have of each
class, attackers from honest clients all at once: in whatever they have in common beside their own data, wherever it
points, and however small it is beside the axes along which all clients differ.

Some way always looks good, and honest classes part the known-benign as often as anybody else: so gains are held against
those of the rivals that do: far beyond them alone (joint.py), or with all else that is known of a group (standing.py).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import alike, residual_maker
from encagg_cli.filters.anchored_views.signs import Quotient, search

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEWEST: Final = 2  # clients on the far side: a lone one's cannot be predicted from the others
_TINY: Final = 1e-9


def parting_loss(cosines: Numbers, medians: float = 1.0) -> Quotient:
    """Leave-one-out error of a parting, and that without the uploads, of a round with these cosines (n, n).

    Zero for clients that were not there, whose cosines are NaN. The ridge is so many `medians` (ridge.py).
    """
    n = len(cosines)
    loss, baseline = np.zeros((n, n)), np.zeros((n, n))
    there = np.flatnonzero(~np.isnan(np.diag(cosines)))
    m = len(there)
    if m > _FEWEST:
        among = np.ix_(there, there)
        residual = residual_maker(alike(cosines[among]), intercept=True, medians=medians)
        left_out = residual / np.maximum(np.diag(residual), _TINY)[:, None]
        loss[among] = left_out.T @ left_out
        baseline[among] = (np.eye(m) - 1.0 / m) * (m / (m - 1)) ** 2
    return Quotient(loss, baseline)


def partings(quotient: Quotient, held: Mask) -> tuple[Numbers, Numbers]:
    """Local optima: `(gains, signs)`, (m,) and (m, n), best first; the sign of those who are `held` (n,) is +1."""
    return search(quotient, held, _FEWEST, first=1)  # all alike are no parting, and no loss


def gain_of_rivals(quotient: Quotient, anchors: Mask) -> float:
    """Nats of the best parting that has known-benign clients on either side, or of no parting: 0."""
    gains, signs = partings(quotient, np.zeros(len(anchors), dtype=bool))
    rivals = np.abs(signs[:, anchors].sum(axis=1)) < anchors.sum()
    return float(gains[rivals].max(initial=0.0))


def together(quotients: Sequence[Quotient], weights: Numbers) -> Quotient:
    """What several rounds tell together, each by its weight (rounds,)."""
    shares = weights / weights.mean()
    return Quotient(
        np.tensordot(shares, np.array([each.loss for each in quotients]), 1),
        np.tensordot(shares, np.array([each.baseline for each in quotients]), 1),
    )


def in_common(cosines: Numbers, far: Mask, medians: float) -> Numbers:
    """(n,) how much each upload has of what those `far` (n,) have in common beyond the others: 1 all, 0 nothing.

    By the same regression, of a round with these cosines (n, n), for each client by the uploads of the others.
    """
    residual = residual_maker(alike(cosines), intercept=True, medians=medians)
    signs = np.where(far, -1.0, 1.0)
    predicted = signs - (residual @ signs) / np.maximum(np.diag(residual), _TINY)
    others = (signs.sum() - signs) / (len(signs) - 1)
    share: Numbers = (others - predicted) / (others + 1.0)
    return share
