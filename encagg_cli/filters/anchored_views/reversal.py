"""Who, as a group, opposes the rest: flipped signs, inverse updates, and what reverses only the common part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.sides import common_part, flipped, loss_of

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NATS: Final = 4.0  # by which all explanations without a client's reversal must be worse
_NATS_WITH_PAST: Final = 2.0
_LATER: Final = 3.0  # how many more once somebody has been rejected


@dataclass(frozen=True)
class Reversal:
    """`group` (n,) masks who opposes the rest; nobody, in most rounds.

    `common` (n,) is how far each upload lies on the side of what the others share (sides.py).
    """

    group: Mask
    common: Numbers


def required_nats(alpha: float, *, past: bool, later: bool) -> float:
    """By how much every explanation of the round in which a client is not reversed must be worse than the best one.

    Fitted on honest rounds of scikit-learn's digits, as the other bounds (detector.py).
    """
    return (_NATS_WITH_PAST if past else _NATS) + 2.0 * float(np.log(0.02 / alpha)) + _LATER * later


def reversed_group(
    cosines: Numbers, anchors: Mask, alpha: float, *, later: bool, past: Sequence[Numbers] = ()
) -> Reversal:
    """The group that opposes the others, by the cosines (n, n) of their uploads; `anchors` (n,) are not in it.

    `past` are the losses (n, n) of their earlier rounds, zero for those who were not there. The round is looked at by
    itself, for those who began today, and together with the past. Who was reversed in the past alone is not reversed.
    """
    today = loss_of(cosines)
    group = flipped(today, anchors, required_nats(alpha, past=False, later=later))
    if past:
        together = (today + np.sum(past, axis=0)) / (1 + len(past))
        group |= flipped(together, anchors, required_nats(alpha, past=True, later=later))
    common = common_part(cosines, np.where(group, -1.0, 1.0))
    return Reversal(group & (common < 0), common)
