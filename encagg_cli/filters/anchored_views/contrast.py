"""Which group stands out most in what it has of what the others share, where neither search by itself is certain?

The side of each client (sides.py) and its population (parting.py) are told by how well they are predicted from *all*
uploads, those on the far side included. What all share is there a third, independent, look: by the ridge regression on
the near side alone, what has each upload of what those near share? The near ones, each left out in turn, have nearly as
much as the others; those on the far side were never asked, and a group of attackers has little of it, all alike, while
in a group that a search has found among honest clients some have as much as anybody. How far apart the two are, in
standard deviations, is the contrast (Cohen's d).

The three are weighed together, for what either search has found, and held against what parts the known-benign.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.parting import partings
from encagg_cli.filters.anchored_views.ridge import alike, share_of
from encagg_cli.filters.anchored_views.sides import Sides
from encagg_cli.filters.anchored_views.signs import Quotient, independent

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_PARTING: Final = 0.3  # weight of what a parting gains, beside a nat of sides
_CONTRAST: Final = 8.0  # nats for a standard deviation of contrast
_FAINTEST: Final = 0.1  # spread of shares: less is chance
_BEST: Final = 8  # of each search, that are weighed
_FEWEST_FAR: Final = 2
_FEWEST_NEAR: Final = 6  # fewer, chosen for being alike, make anybody else look different
_FEWEST_NEAR_OF_RIVALS: Final = 4
_TINY: Final = 1e-9


def contrasted(cosines: Numbers, sides: Sides, quotient: Quotient) -> tuple[Mask, float]:
    """(n,) the group that stands out most, and by how many nats more than the best that parts the known-benign.

    `cosines` (n, n), `sides` and `quotient` are those of one round. Nobody, and minus infinity, where no group is
    found; where no rival is, one known-benign client changes side.
    """
    anchors = sides.anchors
    nobody = np.zeros_like(anchors)
    products = alike(cosines)

    def strength(signs: Numbers) -> Numbers:
        contrast = np.array([contrast_of(products, row < 0) for row in signs])
        loss = np.maximum(((signs @ sides.loss) * signs).sum(axis=1), _TINY)
        total: Numbers = (
            _PARTING * quotient.gains(signs) + _CONTRAST * contrast - 0.5 * independent(len(products)) * np.log(loss)
        )
        return total

    groups = _told_apart(candidates(sides, quotient), _FEWEST_NEAR)
    if not len(groups) or not anchors.any():
        return nobody, -np.inf
    strengths = strength(groups)
    group = groups[int(strengths.argmax())]
    rivals = np.vstack([sides.rivals[:_BEST], _parting_anchors(partings(quotient, nobody)[1], anchors)[:_BEST]])
    rivals = _told_apart(_with_most_anchors_near(rivals, anchors), _FEWEST_NEAR_OF_RIVALS)
    if not len(rivals):
        rivals = np.where(np.eye(len(anchors), dtype=bool)[anchors], -group, group)
    return group < 0, float(strengths.max() - strength(rivals).max())


def candidates(sides: Sides, quotient: Quotient) -> Numbers:
    """(m, n) signs of the best groups of both searches, -1 for who is far."""
    return np.vstack([_best(sides.choices[1]), _best(partings(quotient, sides.anchors)[1])])


def contrast_of(products: Numbers, far: Mask) -> float:
    """How much less those `far` (n,) have of what the others share, in standard deviations."""
    return deviations_apart(share_of(products, ~far), far, ~far)


def deviations_apart(share: Numbers, far: Mask, near: Mask) -> float:
    """By how many standard deviations the mean `share` (n,) of those `far` (n,) is less than that of those near.

    Cohen's d.
    """
    spread = np.sqrt(0.5 * (share[far].var() + share[near].var()) + _FAINTEST**2)
    return float((share[near].mean() - share[far].mean()) / spread)


def _best(signs: Numbers) -> Numbers:
    best: Numbers = signs[(signs < 0).sum(axis=1) >= _FEWEST_FAR][:_BEST]
    return best


def _told_apart(signs: Numbers, fewest_near: int) -> Numbers:
    far = (signs < 0).sum(axis=1)
    told: Numbers = signs[(far >= _FEWEST_FAR) & (signs.shape[1] - far >= fewest_near)]
    return told


def _parting_anchors(signs: Numbers, anchors: Mask) -> Numbers:
    parting: Numbers = signs[np.abs(signs[:, anchors].sum(axis=1)) < anchors.sum()]
    return parting


def _with_most_anchors_near(signs: Numbers, anchors: Mask) -> Numbers:
    """The rows, turned so that most of the known-benign are near; of as many, most clients."""
    towards = signs[:, anchors].sum(axis=1) + 0.5 * np.sign(signs.sum(axis=1))
    turned: Numbers = np.where(towards < 0, -1.0, 1.0)[:, None] * signs
    return turned
