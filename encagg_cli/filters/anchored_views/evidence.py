"""What this round and earlier ones tell together of who is on which side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.cloud import Cloud
from encagg_cli.filters.anchored_views.parting import parting_loss, partings, together
from encagg_cli.filters.anchored_views.ridge import around_mean
from encagg_cli.filters.anchored_views.sides import explanations, loss_of
from encagg_cli.filters.anchored_views.signs import Quotient
from encagg_cli.sketch.signs import SignCosines

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST_LOSS = 1e-6
_FEWEST_THERE = 6  # of the clients, in an earlier round that tells of their sides
_FEWEST_COORDINATES = 10.0  # a client, of whose signs cosines are taken
_REPEATED = 1.5  # times what clients differ in by law: .5 to 1.3 of digits' networks, 1.6 to 4 of regressions
_REPEATED_WEIGHT = 0.5
_BEYOND_LAW = 0.01  # of the cosines' square: 0 of Gaussian updates; .02 to .7 of digits, mostly above .1


def weight_of_signs(signs: SignCosines, cosines: Numbers) -> float:
    """How much the updates' signs count beside the updates as they are, by their cosines (n, n): 1, one half or 0.

    In the updates of networks, what clients differ in is large in some coordinates, while what all share stands in the
    signs of most, so that signs tell sides far better. Of jointly Gaussian ones, the cosine of signs follows from that
    of the updates (the arcsine law: Van Vleck and Middleton, Proc. IEEE 54, 1966) up to the noise of a sample, and few
    axes along which clients differ are many by their signs: signs that obey it, or are too few, do not count. Where
    clients differ far more by their signs than by that law, coordinates repeat one another (in a regression on images,
    every pixel that never changes repeats what its class learns), and neither tells all: both count.
    """
    if np.median(signs.counts) < _FEWEST_COORDINATES * len(cosines):
        return 0.0
    others = ~np.eye(len(cosines), dtype=bool)
    lawful = by_law(cosines)
    found = signs.cosines[others]
    noise = (1.0 - found**2) / np.sqrt(np.maximum(np.outer(signs.counts, signs.counts)[others], 1.0))
    beyond = (found - lawful[others]) ** 2 - noise
    if np.sum(beyond) <= _BEYOND_LAW * np.sum(found**2):
        return 0.0
    differ, differ_by_law = (np.sum(around_mean(each)[others] ** 2) for each in (signs.cosines, lawful))
    return _REPEATED_WEIGHT if differ > _REPEATED * differ_by_law else 1.0


def by_law(cosines: Numbers) -> Numbers:
    """(n, n) the cosines of the signs of jointly Gaussian updates with these cosines: the arcsine law, see above."""
    of_signs: Numbers = 2.0 / np.pi * np.arcsin(np.clip(cosines, -1.0, 1.0))
    np.fill_diagonal(of_signs, 1.0)
    return of_signs


@dataclass(frozen=True)
class Evidence:
    """Cosines and losses of sides, (n, n) each, of this round, then of earlier ones; and what parts each.

    Cosines are NaN for who was not there: those that tell sides, and of the `updates` as they are. `clouds` tell where
    the uploads lie on their principal axes; none, where nobody asks who has collapsed there (cloud.py).

    A round that tells little would water down what the others tell, were all weighed alike. The sum of logarithms of
    the losses, each times how many clients it is a mean over, would be the likelihood; near its optimum the weights of
    the rounds are how many of the clients were there, over the loss, and so they are taken, of the best choice by all
    that tell anything.
    """

    cosines: tuple[Numbers, ...]
    losses: tuple[Numbers, ...]
    quotients: tuple[Quotient, ...]
    updates: tuple[Numbers, ...]
    clouds: tuple[Cloud, ...]

    @classmethod
    def of(
        cls,
        cosines: Numbers,
        earlier: Sequence[Numbers] = (),
        updates: Sequence[Numbers] | None = None,
        clouds: Sequence[Cloud] = (),
    ) -> Self:
        """Of this round's cosines (n, n), and those of earlier rounds; of the updates' own, where these are others."""
        rounds = (cosines, *earlier)
        losses = tuple(loss_of(each) for each in rounds)
        quotients = tuple(parting_loss(each) for each in rounds)
        return cls(rounds, losses, quotients, rounds if updates is None else tuple(updates), tuple(clouds))

    def together(self, anchors: Mask) -> tuple[Numbers, Numbers]:
        """(n, n) the losses of all rounds on average, and each round's weight; the `anchors` (n,) are known-benign."""
        there = np.array([np.count_nonzero(~np.isnan(np.diag(each))) for each in self.cosines])
        shares = np.where(there >= _FEWEST_THERE, there / len(anchors), 0.0)
        shares[0] = 1.0
        best = explanations(np.average(self.losses, axis=0, weights=shares), anchors)[1][0]
        weights = shares / [max(float(best @ loss @ best), _LEAST_LOSS) for loss in self.losses]
        average: Numbers = np.tensordot(weights / weights.sum(), np.array(self.losses), 1)
        return average, weights

    def parting(self, anchors: Mask) -> Quotient:
        """What all rounds tell together of two populations; the `anchors` (n,) are known-benign."""
        weights = np.ones(len(self.quotients))
        signs = partings(together(self.quotients, weights), anchors)[1][:1] if len(weights) > 1 else ()
        for best in signs:  # none, where next to all are known-benign
            weights = np.array([_clarity(each, best) for each in self.quotients])
        return together(self.quotients, weights)


def _clarity(quotient: Quotient, signs: Numbers) -> float:
    """Baseline over loss of the `signs` (n,); 1 for a round that tells nothing, for nobody was there."""
    loss = float(signs @ quotient.loss @ signs)
    return float(signs @ quotient.baseline @ signs) / loss if loss > _LEAST_LOSS else 1.0
