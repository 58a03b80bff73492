"""Who has something in common that no known-benign upload has?

Whoever trains a backdoor, on its own data with a trigger in some of them, uploads for the most part what honest
training makes of these data: it has what all others share, and lies among them in every view. But what it was told
beside that is the same for all who were, and no honest upload has any of it. So the clients are parted in two
populations (parting.py), by the updates as they are: a trigger stands in few coordinates, of which signs know little.
And axes along which clients differ little count nearly as much as the others: a trigger is small beside classes.

Honest classes are populations, too, but part the known-benign as often as anybody else. A parting without known-benign
clients on the far side is therefore believed where it is far better than those that part them: in this round by itself,
or by less in all remembered rounds together, where chance finds another class in each, and a backdoor is the same. Nor
may it be told nearly as well by the signs of the coordinates: where clients have few classes, some class is nobody's of
the known-benign in round after round, and a class stands in many coordinates.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.anchors import by_chance_apart
from encagg_cli.filters.anchored_views.parting import gain_of_rivals, in_common, parting_loss, partings, together
from encagg_cli.filters.anchored_views.signs import Quotient, independent

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NATS: Final = 10.5  # of fifty clients, by which a parting must be better than those that part five known-benign ones
_NATS_WITH_PAST: Final = 6.5
_FEWER: Final = 6.0  # more, for every nat by which honest groups without any are commoner (anchors.py)
_STRICTER: Final = 2.0  # more, for every nat by which `alpha` is less than .02
_LATER: Final = 2.0  # more, once somebody has been rejected
_FITTED_WITH: Final = 50  # clients: of fewer, all gains are less, by about the root
_FEWEST: Final = 20  # that were looked at
_RIDGE: Final = 0.3  # in median variances
_FEWEST_NEAR: Final = 6  # clients
_BY_SIGNS: Final = 0.65  # of what the updates gain, that the signs of their coordinates may
_STILL: Final = 0.25  # share of what the group has in common, that who is rejected has today


def joint_group(rounds: Sequence[Numbers], signs_today: Numbers, anchors: Mask, alpha: float, *, later: bool) -> Mask:
    """(n,) who has something in common that no known-benign upload has; nobody, in most rounds.

    By the cosines (n, n) of the updates of this round and earlier ones, NaN for who was not there, and those of the
    signs of this round's, `signs_today` (n, n); the `anchors` (n,) are known-benign, and it takes two to be parted.
    `later` says that others have been rejected, so that more is asked. Bounds were chosen on scikit-learn's digits, as
    all others (detector.py); that for signs on honest rounds of MNIST, Dirichlet 0.1: digits have no such classes.
    """
    group, clearest = np.zeros(len(anchors), dtype=bool), 0.0
    if anchors.sum() < 2:
        return group
    for quotient, required in _told(rounds, int(anchors.sum()), alpha, later):
        gains, signs = partings(quotient, anchors)
        enough = (signs > 0).sum(axis=1) >= _FEWEST_NEAR
        if enough.any():
            beyond = float(gains[enough][0]) - gain_of_rivals(quotient, anchors) - required
            if beyond > clearest:
                group, clearest = signs[enough][0] < 0, beyond
    if group.any():
        group &= _gain(signs_today, group) <= _BY_SIGNS * _gain(rounds[0], group)
    if group.any():
        group &= in_common(rounds[0], group, _RIDGE) > _STILL
    return group


def _gain(cosines: Numbers, group: Mask) -> float:
    """Nats by which a round tells the `group` (n,), by cosines (n, n)."""
    return float(parting_loss(cosines, _RIDGE).gains(np.where(group, -1.0, 1.0)[None])[0])


def _told(rounds: Sequence[Numbers], k: int, alpha: float, later: bool) -> list[tuple[Quotient, float]]:
    """What today tells, and all rounds together; by how many nats a parting must be better than its rivals."""
    fewer = max(0.0, -float(np.log(by_chance_apart(k))))
    more = _FEWER * fewer + _STRICTER * float(np.log(0.02 / alpha)) + _LATER * later
    scale = float(np.sqrt(max(independent(len(rounds[0])), _FEWEST) / _FITTED_WITH))
    quotients = [parting_loss(cosines, _RIDGE) for cosines in rounds]
    told = [(quotients[0], scale * (_NATS + more))]
    if len(rounds) > 1:
        told.append((together(quotients, np.ones(len(rounds))), scale * (_NATS_WITH_PAST + more)))
    return told
