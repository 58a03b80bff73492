"""Which side is everybody on: with what all have in common, or against it?

Honest updates differ most along a few axes: which classes a client has, what its last batch was. The step that all of
them share is small beside that, and a client who reverses its update, or only the shared part of it, lies inside the
honest cloud of every plane. So the sides `s` of ±1 are found all at once, with `s = +1` for the known-benign, as
those that are explained best. Uploads are known here by cosines, for the most part of the signs of their coordinates:
the step stands in all of them, and what clients differ in is large in some (evidence.py). An explanation is good

- *by everybody*: the side of each client is predicted from its upload, by the ridge regression of the others' sides
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

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.ridge import alike, residual_maker
from encagg_cli.filters.anchored_views.signs import Quotient, independent, search

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]

_FRIENDSHIP: Final = 0.1  # weight of friends
_RELATION: Final = 3  # power of the cosine: how much more a clear relation says than a faint one
_FEWEST: Final = 1  # clients on the other side
_FEWEST_OF_A_GROUP: Final = 2
_TOGETHER: Final = 8.0  # nats by which all being on one side must be better than a group on the other, to rule it out
_OWN: Final = 2.0  # nats by which a client's own side must be better than the other
_BEYOND_CHANCE: Final = 0.25  # how much better than in a round without structure, in the logarithm of the loss
_DRAWS: Final = 3  # of rounds without structure
_TINY: Final = 1e-9


def loss_of(cosines: Numbers) -> Numbers:
    """(n, n) the loss of a round as a quadratic form of sides, from the cosines (n, n) of its uploads.

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


@dataclass(frozen=True)
class Sides:
    """Who is on which side by this `loss` (n, n), where the `anchors` (n,) are known-benign."""

    loss: Numbers
    anchors: Mask

    @cached_property
    def choices(self) -> tuple[Numbers, Numbers]:
        """`(losses, signs)`, (m,) and (m, n), of the local optima with the known-benign on one side, best first."""
        return explanations(self.loss, self.anchors)

    @cached_property
    def rivals(self) -> Numbers:
        """(m, n) those that part the known-benign, best first, by a search that was not told who they are."""
        signs = explanations(self.loss, np.zeros(len(self.loss), dtype=bool))[1]
        rivals: Numbers = signs[np.abs(signs[:, self.anchors].sum(axis=1)) < self.anchors.sum()]
        return rivals

    def flipped(self, nats: float) -> Mask:
        """(n,) who is on the other side in every explanation whose likelihood is within `nats` of the best one's.

        Nobody is, where the explanation tells nothing: where one that parts the known-benign is better still, or where
        a round without any structure would be explained nearly as well (after all, many choices of sides were tried).
        """
        n = len(self.loss)
        values, signs = self.choices
        near = 0.5 * independent(n) * np.log(values / values[0]) <= nats
        best = signs[0]
        others = self.loss @ best - np.diag(self.loss) * best
        own = 0.5 * independent(n) * np.log(np.maximum(values[0] - 4.0 * best * others, _TINY * values[0]) / values[0])
        far: Mask = (signs[near] < 0).all(axis=0) & (own > _OWN) & ~self.anchors
        if not far.any() or self._has_rival() or not self._is_beyond_chance():
            return np.zeros(n, dtype=bool)
        return far

    def opposed(self) -> tuple[Mask, float]:
        """(n,) who is on the other side in the best explanation with a group there; how much clearer than its rivals.

        Rivals part the known-benign: honest classes do so as often as they part anybody else. Where none is found, one
        known-benign client changes side. That all are on one side is a rival only where it is clearly better: flipped
        labels are not explained better than so, and honest classes worse. In nats.
        """
        n = len(self.loss)
        nobody = np.zeros(n, dtype=bool), -np.inf
        values, signs = self.choices
        of_groups = (signs < 0).sum(axis=1) >= _FEWEST_OF_A_GROUP
        if not of_groups.any() or not self.anchors.any():
            return nobody
        best, sides = values[of_groups][0], signs[of_groups][0]
        together = float(_values(self.loss, np.ones((1, n)))[0])
        if 0.5 * independent(n) * np.log(best / together) > _TOGETHER:
            return nobody
        rivals = self.rivals
        if not len(rivals):
            rivals = np.where(np.eye(n, dtype=bool)[self.anchors], -sides, sides)
        return sides < 0, 0.5 * independent(n) * float(np.log(_values(self.loss, rivals).min() / best))

    def clearer_than_rivals(self, groups: Masks) -> Numbers:
        """(m,) by how many nats the other sides `groups` (m, n) are better than the best that parts the known-benign.

        Where nothing does, than all on one side.
        """
        rivals = self.rivals if len(self.rivals) else np.ones((1, len(self.loss)))
        own = _values(self.loss, np.where(groups, -1.0, 1.0))
        clearer: Numbers = 0.5 * independent(len(self.loss)) * np.log(_values(self.loss, rivals).min() / own)
        return clearer

    def _has_rival(self) -> bool:
        """Whether some explanation that parts the known-benign is at least as good."""
        return bool((_values(self.loss, self.rivals) <= self.choices[0][0]).any())

    def _is_beyond_chance(self) -> bool:
        """Whether the best explanation is clearly better than those of random rounds with the same spectrum."""
        n = len(self.loss)
        spectrum = np.linalg.eigvalsh(self.loss)
        random = np.random.default_rng(n)
        by_chance = []
        for _ in range(_DRAWS):
            axes = np.linalg.qr(random.standard_normal((n, n)))[0]
            by_chance.append(np.log(explanations((axes * spectrum) @ axes.T, self.anchors)[0][0]))
        return bool(np.mean(by_chance) - np.log(self.choices[0][0]) > _BEYOND_CHANCE)


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


def _frustration(explained: Numbers) -> Numbers:
    """(n, n) the signed Laplacian of who explains whom, normalised; `explained` (n, n) is the hat matrix."""
    n = len(explained)
    size = np.sqrt(np.maximum(np.diag(explained), _TINY))
    relation = (explained / np.outer(size, size)) ** _RELATION
    np.fill_diagonal(relation, 0.0)
    degree = np.sqrt(np.maximum(np.abs(relation).sum(axis=1), _TINY))
    laplacian: Numbers = (np.eye(n) - relation / np.outer(degree, degree)) / n
    return laplacian
