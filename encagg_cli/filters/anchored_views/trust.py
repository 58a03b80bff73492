"""Trust that flows from the known-benign along agreement, and turns into distrust along opposition.

Under strong heterogeneity two honest clients often have nothing to say about each other: their cosine is near zero, and
the mean of a few known-benign clients points nowhere. But each honest client agrees clearly with *some* other, and a
reversed upload opposes clearly those who would have been its friends. So only clear relations should speak, and trust
should pass from friend to friend: a signed graph (Harary 1953) whose sides are told apart by its anchors.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_POWER = 6  # of the cosine: how much more a clear relation says than a faint one
_SWEEPS = 60
_SETTLED = 1e-9


def relations(cosines: Numbers) -> Numbers:
    """(n, n) signed strength of relation, `sign(c)·|c|⁶`; none with oneself."""
    strength: Numbers = np.sign(cosines) * np.abs(cosines) ** _POWER
    np.fill_diagonal(strength, 0.0)
    return strength


def propagate(strength: Numbers, trusted: Mask) -> Numbers:
    """(n,) trust in [-1, 1]: each client's mean over its relations of strength times the other's trust.

    Known-benign clients are trusted fully, the others by `tanh` of that mean, until it settles. 0 for a client that is
    related to nobody.
    """
    total = np.abs(strength).sum(axis=1)
    share = np.divide(strength, total[:, None], out=np.zeros_like(strength), where=total[:, None] > 0)
    trust = trusted.astype(np.float64)
    for _ in range(_SWEEPS):
        moved = np.where(trusted, 1.0, np.tanh(share @ trust))
        settled = np.abs(moved - trust).max() < _SETTLED
        trust = moved
        if settled:
            break
    mean: Numbers = share @ trust
    return mean


def opposition(strength: Numbers, group: Mask) -> float:
    """How unanimously `group` opposes the rest, in [-1, 1]: minus the mean sign of relations between them, weighted."""
    between = strength[np.ix_(group, ~group)]
    total = float(np.abs(between).sum())
    return -float(between.sum()) / total if total > 0 else 0.0
