"""Which side is everybody on: with what all have in common, or against it?

Honest updates differ most along a few axes: which classes a client has, what its last batch was. The step that all of
them share is small beside that, and a client who reverses its update, or only the shared part of it, lies inside the
honest cloud of every plane. So the sides are found all at once, as the signs `s` with `s = +1` for the known-benign
that are explained best:

- *by everybody*: the sign of each client is predicted from its upload, by the ridge regression of the others' signs
  on their uploads. The loss is the mean square of these leave-one-out errors (PRESS; Allen, Technometrics 1974), and
  `-n/2 log(loss)` the log-likelihood of a choice of sides, up to a constant. Ridge regression holds back the axes along
  which clients differ most, whatever they are.
- *by friends*: under strong heterogeneity two clients often have nothing to say about each other, but each agrees
  clearly with some other. The frustration of a signed graph (Harary, 1953) is the share of strong relations that a
  choice of sides contradicts.

Both are quadratic forms in `s`, and those of several rounds are averaged: who reverses round after round is told apart
by what single rounds leave open.

Some choice is always the best. What honest clients differ in, classes above all, runs through the known-benign as
through anybody else; what attackers differ in does not. So the best choice is held against the best of those that part
the known-benign: where it is far better, it is believed; where it is a little better, then only of those clients who
are on the other side in every choice that is nearly as good.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import alike, residual_maker
from encagg_cli.filters.anchored_views.signs import Quotient, search

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FRIENDSHIP: Final = 0.1  # weight of friends
_RELATION: Final = 3  # power of the cosine: how much more a clear relation says than a faint one
_FEWEST: Final = 1  # clients on the other side
_OWN: Final = 2.0  # nats by which a client's own side must be better than the other
_BEYOND_CHANCE: Final = 0.25  # how much better than in a round without structure, in the logarithm of the loss
_DRAWS: Final = 3  # of rounds without structure
_TINY: Final = 1e-9


def loss_of(cosines: Numbers) -> Numbers:
    """(n, n) the loss of a round as a quadratic form of signs, from the cosines (n, n) of its uploads.

    Zero for clients that were not there, whose cosines are NaN.
    """
    there = np.flatnonzero(~np.isnan(np.diag(cosines)))
    if len(there) < len(cosines):
        whole = np.zeros_like(cosines)
        if len(there):
            whole[np.ix_(there, there)] = loss_of(cosines[np.ix_(there, there)])
        return whole
    n = len(cosines)
    residual = residual_maker(alike(cosines))
    left_out = residual / np.diag(residual)[:, None]
    loss: Numbers = left_out.T @ left_out / n + _FRIENDSHIP * _frustration(np.eye(n) - residual)
    return loss


def common_part(cosines: Numbers, signs: Numbers) -> Numbers:
    """(n,) how far each upload lies on the side of what the *others* share: about 1 with it, -1 against it, 0 without.

    The leave-one-out prediction of the ridge regression of `signs` (n,) on the uploads.
    """
    residual = residual_maker(alike(cosines))
    predicted: Numbers = signs - (residual @ signs) / np.diag(residual)
    return predicted


def flipped(loss: Numbers, anchors: Mask, nats: float) -> Mask:
    """(n,) who is on the other side in every explanation whose likelihood is within `nats` of the best one's.

    Nobody is, where the explanation tells nothing: where one that parts the known-benign is better still, or where a
    round without any structure would be explained nearly as well (after all, many choices of sides were tried).
    """
    n = len(loss)
    values, signs = explanations(loss, anchors)
    near = 0.5 * n * np.log(values / values[0]) <= nats
    best = signs[0]
    others = loss @ best - np.diag(loss) * best
    own = 0.5 * n * np.log(np.maximum(values[0] - 4.0 * best * others, _TINY * values[0]) / values[0])
    far: Mask = (signs[near] < 0).all(axis=0) & (own > _OWN) & ~anchors
    if not far.any() or _parts(loss, anchors, values[0]) or not _beyond_chance(loss, anchors, values[0]):
        return np.zeros(n, dtype=bool)
    return far


def opposed(loss: Numbers, anchors: Mask) -> tuple[Mask, float]:
    """(n,) who is on the other side in the best explanation with anybody there, and how much clearer than its rivals.

    Rivals part the known-benign, the `anchors` (n,): honest classes do so as often as they part anybody else. Where
    none is found, one known-benign client changes side. That all are on one side is no rival: flipped labels are not
    explained better than so, and honest classes worse. In nats.
    """
    n = len(loss)
    if anchors.all():
        return np.zeros(n, dtype=bool), -np.inf
    values, signs = explanations(loss, anchors)
    somebody = (signs < 0).any(axis=1)
    best, sides = values[somebody][0], signs[somebody][0]
    others = explanations(loss, np.zeros(n, dtype=bool))[1]
    rivals = others[_are_parted(others, anchors)]
    if not len(rivals):
        rivals = np.where(np.eye(n, dtype=bool)[anchors], -sides, sides)
    rival = _values(loss, rivals).min(initial=np.inf)
    return sides < 0, 0.5 * n * float(np.log(rival / best))


def explanations(loss: Numbers, fixed: Mask) -> tuple[Numbers, Numbers]:
    """Local optima of `sᵀ loss s` over signs `s`, +1 for those who are `fixed`; and all alike, be it one or not.

    `(values, signs)`, (m,) and (m, n), best first. The order of the clients does not matter.
    """
    n = len(loss)
    signs = np.ones((1, n))
    if not fixed.all():
        signs = np.unique(np.vstack([signs, search(Quotient(loss, np.eye(n)), fixed, _FEWEST)[1]]), axis=0)
    values = _values(loss, signs)
    best = np.argsort(values, kind="stable")
    return values[best], signs[best]


def _values(loss: Numbers, signs: Numbers) -> Numbers:
    values: Numbers = np.maximum(((signs @ loss) * signs).sum(axis=1), _TINY * max(float(np.trace(loss)), _TINY))
    return values


def _parts(loss: Numbers, anchors: Mask, value: float) -> bool:
    """Whether some explanation that was not told who is known-benign parts them, and is at least as good."""
    values, signs = explanations(loss, np.zeros(len(loss), dtype=bool))
    return bool((_are_parted(signs, anchors) & (values <= value)).any())


def _are_parted(signs: Numbers, anchors: Mask) -> Mask:
    """(m,) which choices (m, n) have known-benign clients on either side."""
    parted: Mask = np.abs(signs[:, anchors].sum(axis=1)) < anchors.sum()
    return parted


def _beyond_chance(loss: Numbers, anchors: Mask, value: float) -> bool:
    """Whether the best explanation is clearly better than those of random rounds with the same spectrum."""
    n = len(loss)
    spectrum = np.linalg.eigvalsh(loss)
    random = np.random.default_rng(n)
    by_chance = []
    for _ in range(_DRAWS):
        axes = np.linalg.qr(random.standard_normal((n, n)))[0]
        by_chance.append(np.log(explanations((axes * spectrum) @ axes.T, anchors)[0][0]))
    return bool(np.mean(by_chance) - np.log(value) > _BEYOND_CHANCE)


def _frustration(explained: Numbers) -> Numbers:
    """(n, n) the signed Laplacian of who explains whom, normalised; `explained` (n, n) is the hat matrix."""
    n = len(explained)
    size = np.sqrt(np.maximum(np.diag(explained), _TINY))
    relation = (explained / np.outer(size, size)) ** _RELATION
    np.fill_diagonal(relation, 0.0)
    degree = np.sqrt(np.maximum(np.abs(relation).sum(axis=1), _TINY))
    laplacian: Numbers = (np.eye(n) - relation / np.outer(degree, degree)) / n
    return laplacian
