"""What a group has of what all others share: in full for honest clients, whatever else tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import share_of, shared_with

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

INNOCENT_TODAY: Final = 0.4  # share of what is common from which this round clears whom it or earlier ones accuse
_MORE_TODAY: Final = 0.3  # than on average, where the group has more of it than that anyway
_ONE_OF_THE_REST: Final = 0.25  # share of what is common
_FAINTEST: Final = 0.1  # spread of shares: less is chance


@dataclass(frozen=True)
class Sharing:
    """What a group has of what the others share, 1 for as much as they: `mean` over its members and all rounds.

    `today` (n,) is what every client has this round, 0 for who is not to be told.
    """

    mean: float
    today: Numbers

    @classmethod
    def of(cls, rounds: Sequence[Numbers], near: Mask, group: Mask) -> "Sharing":
        """Of the clients in `group` (n,) with those `near` (n,), by the cosines (n, n) of rounds, this one's first."""
        shares = np.array([shared_with(cosines, near) for cosines in rounds])
        known = shares[:, group][~np.isnan(shares[:, group])]
        return cls(float(known.mean()) if len(known) else 1.0, np.nan_to_num(shares[0]))

    @property
    def guilty(self) -> Mask:
        """(n,) whom this round does not clear."""
        return self.today < max(INNOCENT_TODAY, self.mean + _MORE_TODAY)

    @property
    def little(self) -> bool:
        """Whether the group has too little of what is shared to be one of the rest."""
        return is_little(self.mean)


def is_little(share: float | Numbers) -> bool:
    """Whether a share of what is common, or several on average, is too little to be of the rest."""
    return bool(np.mean(share) <= _ONE_OF_THE_REST)


def contrast_and_share(products: Numbers, far: Mask) -> tuple[float, float]:
    """How much less those `far` (n,) have of what the others share, in standard deviations (Cohen's d); and their mean.

    By the ridge regression on those near alone, from scaled inner products (n, n; ridge.py). The near ones, each left
    out in turn, have nearly as much as the others; those on the far side were never asked, and a group of attackers has
    little of it, all alike, while in a group that a search has found among honest clients some have as much as anybody.
    """
    share = share_of(products, ~far)
    return deviations_apart(share, far, ~far), float(share[far].mean())


def deviations_apart(share: Numbers, far: Mask, near: Mask) -> float:
    """By how many standard deviations the mean `share` (n,) of those `far` (n,) is less than that of those near."""
    spread = np.sqrt(0.5 * (share[far].var() + share[near].var()) + _FAINTEST**2)
    return float((share[near].mean() - share[far].mean()) / spread)
