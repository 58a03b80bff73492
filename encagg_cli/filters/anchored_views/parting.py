"""Are there two populations? The one without the known-benign, if an axis tells it apart better than chance does.

Discriminative clustering (Bach and Harchaoui, DIFFRAC, NIPS 2007): of all ways to part the clients, the one that is
best predicted from their uploads, by ridge regression with an intercept. The errors are leave-one-out (PRESS), and
compared with those of predicting everybody by the others' mean. Clients differ gradually in what they have of each
class, attackers from honest clients all at once: in whatever they have in common beside their own data, wherever it
points, and however small it is beside the axes along which all clients differ.

Among so many ways to part them some always look good. How good, is told by chance (rounds whose losses have the same
spectrum, on random axes), and by rivals: honest classes part the known-benign as often as anybody else. And whoever
shares what the near side has in common is of another class, more often than an attacker; who has the reverse of it,
seldom, and need be less beyond chance.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import alike, residual_maker
from encagg_cli.filters.anchored_views.sharing import Sharing
from encagg_cli.filters.anchored_views.signs import Quotient, search

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BEYOND_CHANCE: Final = 7.0  # nats, at an alpha of .02
_BEYOND_RIVALS: Final = 3.0
_LATER: Final = 0.5  # how much more of both, as a share, once somebody has been rejected
_SHARING: Final = 10.0  # nats more of both for a group that shares in full what the near side has in common
_LEAST_SHARE: Final = -0.3  # what counts at most, where a group has the reverse of it: chance makes few such groups
_NEAR: Final = 3.0  # nats below the best parting, within which all must agree on who is far
_FEWEST: Final = 2  # clients on the far side: a lone one's cannot be predicted from the others
_DRAWS: Final = 3  # of rounds by chance
_TINY: Final = 1e-9


def parting_loss(cosines: Numbers) -> Quotient:
    """Leave-one-out error of a parting, and that without the uploads, of a round with these cosines (n, n).

    Zero for clients that were not there, whose cosines are NaN.
    """
    n = len(cosines)
    loss, baseline = np.zeros((n, n)), np.zeros((n, n))
    there = np.flatnonzero(~np.isnan(np.diag(cosines)))
    m = len(there)
    if m > _FEWEST:
        among = np.ix_(there, there)
        residual = residual_maker(alike(cosines[among]), intercept=True)
        left_out = residual / np.maximum(np.diag(residual), _TINY)[:, None]
        loss[among] = left_out.T @ left_out
        baseline[among] = (np.eye(m) - 1.0 / m) * (m / (m - 1)) ** 2
    return Quotient(loss, baseline)


def parted(rounds: Sequence[Numbers], quotient: Quotient, anchors: Mask, alpha: float, *, later: bool) -> Mask:
    """(n,) the population apart from the `anchors` (n,); nobody, where there is none.

    `rounds` are the cosines (n, n) of this round and earlier ones, and `quotient` what they say together. The bounds
    were fitted on honest rounds of scikit-learn's digits, as the other bounds (detector.py).
    """
    nobody = np.zeros(len(anchors), dtype=bool)
    if (~anchors).sum() < _FEWEST:
        return nobody
    gains, signs = partings(quotient, anchors)
    far: Mask = (signs[gains > gains[0] - _NEAR] < 0).all(axis=0)
    if not far.any():
        return nobody
    sharing = Sharing.of(rounds, signs[0] > 0, far)
    stricter, times = 2.0 * float(np.log(0.02 / alpha)), 1.0 + _LATER * later
    for_sharing = _SHARING * float(np.clip(sharing.mean, 0.0, 1.0))
    if gains[0] - gain_of_rivals(quotient, anchors) < times * _BEYOND_RIVALS + stricter + for_sharing:
        return nobody
    for_reverse = _SHARING * float(np.clip(sharing.mean, _LEAST_SHARE, 0.0))
    if gains[0] - gain_by_chance(quotient, anchors) < times * _BEYOND_CHANCE + stricter + for_sharing + for_reverse:
        return nobody
    return far & sharing.guilty


def partings(quotient: Quotient, held: Mask) -> tuple[Numbers, Numbers]:
    """Local optima: `(gains, signs)`, (m,) and (m, n), best first; the sign of those who are `held` (n,) is +1."""
    return search(quotient, held, _FEWEST, first=1)  # all alike are no parting, and no loss


def gain_by_chance(quotient: Quotient, held: Mask) -> float:
    """Nats of the best parting in rounds by chance, on average: the same spectrum of losses, on random axes."""
    n = len(held)
    spectrum = np.linalg.eigvalsh(quotient.loss)[1:]  # but for all alike
    random = np.random.default_rng(n)
    typical = np.sort(held)  # whoever is held: axes are random
    best = []
    for _ in range(_DRAWS):
        axes = np.linalg.qr(np.column_stack([np.ones(n), random.standard_normal((n, n - 1))]))[0][:, 1:]
        best.append(partings(Quotient((axes * spectrum) @ axes.T, quotient.baseline), typical)[0][0])
    return float(np.mean(best))


def gain_of_rivals(quotient: Quotient, anchors: Mask) -> float:
    """Nats of the best parting that has known-benign clients on either side; none: minus infinity."""
    gains, signs = partings(quotient, np.zeros(len(anchors), dtype=bool))
    rivals = np.abs(signs[:, anchors].sum(axis=1)) < anchors.sum()
    return float(gains[rivals].max()) if rivals.any() else -np.inf
