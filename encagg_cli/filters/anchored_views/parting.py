"""Are there two populations? The one without the known-benign, if an axis tells it apart better than chance does.

Discriminative clustering (Bach and Harchaoui, DIFFRAC, NIPS 2007): of all ways to part the clients, the one that is
best predicted from their uploads, by ridge regression with an intercept. The errors are leave-one-out (PRESS), and
compared with those of predicting everybody by the others' mean. Clients differ gradually in what they have of each
class, attackers from honest clients all at once: in whatever they have in common beside their own data, wherever it
points, and however small it is beside the axes along which all clients differ.

Among so many ways to part them some always look good. How good, is told by chance (rounds whose losses have the same
spectrum, on random axes), and by rivals: honest classes part the known-benign as often as anybody else. And whoever
shares what the near side has in common is of another class, more often than an attacker.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import alike, residual_maker, shared_with
from encagg_cli.filters.anchored_views.signs import Climb, Quotient, random_starts

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BEYOND_CHANCE: Final = 8.0  # nats, at an alpha of .02
_BEYOND_RIVALS: Final = 4.0
_LATER: Final = 0.5  # how much more of both, as a share, once somebody has been rejected
_SHARING: Final = 10.0  # nats more of both for a group that shares in full what the near side has in common
_NEAR: Final = 3.0  # nats below the best parting, within which all must agree on who is far
INNOCENT_TODAY: Final = 0.4  # share of what is common from which this round clears whom earlier ones accuse
_MORE_TODAY: Final = 0.3  # than on average, where the far side has more of it than that anyway
_FEWEST: Final = 2  # clients on the far side: a lone one's cannot be predicted from the others
_AXES: Final = 8  # that the search starts from, in both directions, cut at
_CUTS: Final = (0.1, 0.3, 0.5, 0.7)  # of the clients
_WALKS: Final = 8  # from the best that the search has found
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
    near = signs[0] > 0
    sharing = np.array([shared_with(cosines, near) for cosines in rounds])
    known = sharing[:, far][~np.isnan(sharing[:, far])]
    share = float(known.mean()) if len(known) else 1.0
    more = 2.0 * float(np.log(0.02 / alpha)) + _SHARING * float(np.clip(share, 0.0, 1.0))
    times = 1.0 + _LATER * later
    if gains[0] - _gain_of_rivals(quotient, anchors) < times * _BEYOND_RIVALS + more:
        return nobody
    if gains[0] - gain_by_chance(quotient, anchors) < times * _BEYOND_CHANCE + more:
        return nobody
    if len(rounds) > 1:
        far &= np.nan_to_num(sharing[0]) < max(INNOCENT_TODAY, share + _MORE_TODAY)
    return far


def partings(quotient: Quotient, held: Mask) -> tuple[Numbers, Numbers]:
    """Local optima: `(gains, signs)`, (m,) and (m, n), best first; the sign of those who are `held` (n,) is +1.

    The order of the clients does not matter.
    """
    order = np.argsort(np.diag(quotient.loss), kind="stable")
    sorted_, fixed = quotient.of(order), held[order]
    signs = np.unique(Climb(sorted_, _starts(sorted_.loss, fixed), fixed, _FEWEST).to_the_top(), axis=0)
    highest = np.argsort(-sorted_.gains(signs), kind="stable")[:_WALKS]
    walked = Climb(sorted_, signs[highest], fixed, _FEWEST).walk()
    signs = np.unique(np.vstack([signs, Climb(sorted_, walked, fixed, _FEWEST).to_the_top()]), axis=0)
    gains = sorted_.gains(signs)
    best = np.argsort(-gains, kind="stable")
    return gains[best], signs[best][:, np.argsort(order)]


def gain_by_chance(quotient: Quotient, held: Mask) -> float:
    """Nats of the best parting in rounds by chance, on average: the same spectrum of losses, on random axes."""
    n = len(held)
    spectrum = np.linalg.eigvalsh(quotient.loss)[1:]  # all alike are no parting, and no loss
    random = np.random.default_rng(n)
    typical = np.sort(held)  # whoever is held: axes are random
    best = []
    for _ in range(_DRAWS):
        axes = np.linalg.qr(np.column_stack([np.ones(n), random.standard_normal((n, n - 1))]))[0][:, 1:]
        best.append(partings(Quotient((axes * spectrum) @ axes.T, quotient.baseline), typical)[0][0])
    return float(np.mean(best))


def _gain_of_rivals(quotient: Quotient, anchors: Mask) -> float:
    """Nats of the best parting that has known-benign clients on either side; none: minus infinity."""
    gains, signs = partings(quotient, np.zeros(len(anchors), dtype=bool))
    rivals = np.abs(signs[:, anchors].sum(axis=1)) < anchors.sum()
    return float(gains[rivals].max()) if rivals.any() else -np.inf


def _starts(loss: Numbers, held: Mask) -> Numbers:
    n = len(loss)
    free = np.flatnonzero(~held)
    count = random_starts(n)
    axes = np.linalg.eigh(loss)[1][:, 1 : 1 + min(_AXES, count // 4)].T
    far = []
    for axis in (*axes, *-axes):
        order = free[np.argsort(axis[free], kind="stable")]
        far += [order[: max(_FEWEST, int(share * n))] for share in _CUTS]
    random = np.random.default_rng(n)
    far += [free[random.random(len(free)) < random.uniform(0.1, 0.7)] for _ in range(count)]
    signs = np.ones((len(far), n))
    for row, clients in zip(signs, far, strict=True):
        row[clients] = -1.0
    enough: Numbers = signs[(signs < 0).sum(axis=1) >= _FEWEST]
    return enough
