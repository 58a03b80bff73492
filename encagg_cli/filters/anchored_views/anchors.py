"""What it tells of a group that no known-benign client is in it."""

from typing import Final

_FITTED_WITH: Final = 5  # known-benign clients, for the most part
_MOST: Final = 8  # with which the bounds were looked at


def by_chance_apart(known_benign: int) -> float:
    """By what `alpha` is multiplied, so that as many honest uploads are lost whatever the number of known-benign ones.

    A share `x` of honest clients who stand apart by nature have none of `k` among them with a chance of `(1 - x)^k`,
    so that at most `x (1 - x)^k` of all are lost, about `1 / (e (k + 1))`. The bounds were fitted with five; some
    follow the logarithm of this more steeply (reversal.py), for more known-benign clients are also parted oftener.
    """
    return (min(known_benign, _MOST) + 1.0) / (_FITTED_WITH + 1.0)
