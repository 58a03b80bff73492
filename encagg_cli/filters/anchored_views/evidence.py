"""What this round and earlier ones tell together of who is on which side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.anchored_views.parting import parting_loss, partings
from encagg_cli.filters.anchored_views.ridge import around_mean
from encagg_cli.filters.anchored_views.sides import explanations, loss_of
from encagg_cli.filters.anchored_views.signs import Quotient, independent
from encagg_cli.sketch.signs import SignCosines

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST_LOSS = 1e-6
_FEWEST_COORDINATES = 10.0  # a client, of whose signs cosines are taken
_REPEATED = 1.5  # times what clients differ in by law: .5 to 1.3 of digits' networks, 1.6 to 4 of regressions
_REPEATED_WEIGHT = 0.5
_BEYOND_LAW = 0.01  # of the cosines' square: 0 of Gaussian updates; .02 to .7 of digits, mostly above .1


@dataclass(frozen=True)
class Clarity:
    """How clearly a round tells who is on which side, and who is apart: one over the least loss, for each."""

    sides: float = 1.0
    parting: float = 1.0

    @classmethod
    def of(cls, cosines: Numbers, anchors: Mask) -> Self:
        """Of a round with these cosines (n, n), where the `anchors` (n,) are known-benign."""
        return cls.from_losses(loss_of(cosines), parting_loss(cosines), anchors)

    @classmethod
    def from_losses(cls, loss: Numbers, quotient: Quotient, anchors: Mask) -> Self:
        """Of a round with this loss (n, n) of sides, and that of its partings."""
        gains = partings(quotient, anchors)[0]
        return cls(
            sides=1.0 / max(float(explanations(loss, anchors)[0][0]), _LEAST_LOSS),
            parting=float(np.exp(2.0 / independent(len(anchors)) * max(float(gains[0]), 0.0))) if len(gains) else 1.0,
        )


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
    by_law = 2.0 / np.pi * np.arcsin(cosines)
    np.fill_diagonal(by_law, 1.0)
    found = signs.cosines[others]
    noise = (1.0 - found**2) / np.sqrt(np.maximum(np.outer(signs.counts, signs.counts)[others], 1.0))
    beyond = (found - by_law[others]) ** 2 - noise
    if np.sum(beyond) <= _BEYOND_LAW * np.sum(found**2):
        return 0.0
    differ, differ_by_law = (np.sum(around_mean(each)[others] ** 2) for each in (signs.cosines, by_law))
    return _REPEATED_WEIGHT if differ > _REPEATED * differ_by_law else 1.0


@dataclass(frozen=True)
class EarlierRound:
    """Cosines (n, n) of an earlier round, aligned with this round's clients, NaN for who was not there."""

    cosines: Numbers
    clarity: Clarity

    def among(self, clients: NDArray[np.intp]) -> "EarlierRound":
        return EarlierRound(self.cosines[np.ix_(clients, clients)], self.clarity)


@dataclass(frozen=True)
class Evidence:
    """Cosines and losses of sides, (n, n) each, of this round, then of earlier ones; and what parts them together.

    `coordinates` (n, r) are those of this round's uploads on their principal axes; none, where nobody asks who has
    collapsed (collapse.py). A round that tells little would water down what the others tell, were all weighed alike:
    each counts by its clarity.
    """

    cosines: tuple[Numbers, ...]
    losses: tuple[Numbers, ...]
    clarity: tuple[Clarity, ...]
    parting: Quotient
    coordinates: Numbers

    @classmethod
    def of(
        cls,
        cosines: Numbers,
        anchors: Mask,
        earlier: Sequence[EarlierRound] = (),
        coordinates: Numbers | None = None,
    ) -> Self:
        """Of this round's cosines (n, n), where the `anchors` (n,) are known-benign, and of earlier rounds."""
        coordinates = np.zeros((len(anchors), 0)) if coordinates is None else coordinates
        rounds = (cosines, *(past.cosines for past in earlier))
        losses = tuple(loss_of(each) for each in rounds)
        quotients = [parting_loss(each) for each in rounds]
        if not earlier:
            return cls(rounds, losses, (Clarity(),), quotients[0], coordinates)
        clarity = (Clarity.from_losses(losses[0], quotients[0], anchors), *(past.clarity for past in earlier))
        weights = np.array([each.parting for each in clarity])
        weights /= weights.mean()
        return cls(
            rounds,
            losses,
            clarity,
            Quotient(
                np.sum([w * each.loss for w, each in zip(weights, quotients, strict=True)], axis=0),
                np.sum([w * each.baseline for w, each in zip(weights, quotients, strict=True)], axis=0),
            ),
            coordinates,
        )

    def together(self, anchors: Mask) -> tuple[Numbers, Numbers]:
        """(n, n) the losses of all rounds on average, and each round's weight.

        The sum of logarithms of the losses would be the likelihood. Near its optimum the weights of the rounds are one
        over their losses there: taken first of each round's own best choice of sides, and then of the best of all.
        """
        weights = np.array([each.sides for each in self.clarity])
        best = explanations(self._average(weights), anchors)[1][0]
        weights = np.array([1.0 / max(float(best @ loss @ best), _LEAST_LOSS) for loss in self.losses])
        return self._average(weights), weights

    def _average(self, weights: Numbers) -> Numbers:
        average: Numbers = np.tensordot(weights / weights.sum(), np.array(self.losses), 1)
        return average
