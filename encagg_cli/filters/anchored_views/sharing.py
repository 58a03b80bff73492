"""What a group has of what all others share: in full for honest clients, whatever else tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import shared_with

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

INNOCENT_TODAY: Final = 0.4  # share of what is common from which this round clears whom it or earlier ones accuse
_MORE_TODAY: Final = 0.3  # than on average, where the group has more of it than that anyway
_ONE_OF_THE_REST: Final = 0.25  # share of what is common
_FAR_LESS: Final = 0.7  # of the least that any of the others has


@dataclass(frozen=True)
class Sharing:
    """What a group has of what the others share, 1 for as much as they: `mean` over its members and all rounds.

    `today` (n,) is what every client has this round, 0 for who is not to be told; `least`, what any of the others has.
    """

    mean: float
    today: Numbers
    least: float

    @classmethod
    def of(cls, rounds: Sequence[Numbers], near: Mask, group: Mask) -> "Sharing":
        """Of the clients in `group` (n,) with those `near` (n,), by the cosines (n, n) of rounds, this one's first."""
        shares = np.array([shared_with(cosines, near) for cosines in rounds])
        known = shares[:, group][~np.isnan(shares[:, group])]
        today = np.nan_to_num(shares[0])
        return cls(float(known.mean()) if len(known) else 1.0, today, float(today[near].min(initial=1.0)))

    @property
    def guilty(self) -> Mask:
        """(n,) whom this round does not clear."""
        return self.today < max(INNOCENT_TODAY, self.mean + _MORE_TODAY)

    @property
    def little(self) -> bool:
        """Whether the group has too little of what is shared to be one of the rest."""
        return is_little(self.mean)

    @property
    def far_less(self) -> bool:
        """Whether every one of the others has far more of it than the group.

        In the signs of some models, as of a regression on inputs that are never negative, all have much in common.
        """
        return self.mean <= _FAR_LESS * self.least


def is_little(share: float | Numbers) -> bool:
    """Whether a share of what is common, or several on average, is too little to be of the rest."""
    return bool(np.mean(share) <= _ONE_OF_THE_REST)
