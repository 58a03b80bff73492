"""Which choice of signs, one a client, has the least loss beside a baseline: a search among all `2ⁿ` of them."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_STARTS: Final = 5000  # at random, times clients; within the two bounds that follow
_FEWEST_STARTS, _MOST_STARTS = 12, 100
_AXES: Final = 8  # of the least loss, that a search starts from in both directions
_CUTS: Final = (0.1, 0.3, 0.5, 0.7)  # shares of the clients that lie farthest along an axis
_MOST_INDEPENDENT: Final = 50  # clients, as many as the bounds were fitted on
_TINY: Final = 1e-9


def independent(n: int) -> int:
    """How many of `n` clients count in a likelihood: what they differ in, classes above all, many have in common.

    It does not average out over ever more of them. Were all to count, then of hundreds any axis along which honest
    clients differ, and on one side of which few known-benign happen to be, would seem certain.
    """
    return min(n, _MOST_INDEPENDENT)


@dataclass(frozen=True)
class Quotient:
    """Loss and baseline of signs `s`, as quadratic forms (n, n): `sᵀ loss s` and `sᵀ baseline s`."""

    loss: Numbers
    baseline: Numbers

    def gains(self, signs: Numbers) -> Numbers:
        """(m,) `n/2 log(baseline / loss)`, in nats, of every row of `signs` (m, n), `n` as they are `independent`."""
        baseline, loss = (((signs @ form) * signs).sum(axis=1) for form in (self.baseline, self.loss))
        return 0.5 * independent(len(self.loss)) * _log_quotient(baseline, loss)

    def of(self, order: NDArray[np.intp]) -> "Quotient":
        """The same of the clients in another order."""
        among = np.ix_(order, order)
        return Quotient(self.loss[among], self.baseline[among])


class Climb:
    """Rows of signs (m, n) that are improved side by side, one client at a time.

    The sign of those who are `held` (n,) stays, and at least `fewest` clients stay on the side of -1.
    """

    def __init__(self, quotient: Quotient, signs: Numbers, held: Mask, fewest: int = 0) -> None:
        self.signs = signs.copy()
        self._forms = (quotient.baseline, quotient.loss)
        self._held = held
        self._fewest = fewest
        self._towards = [signs @ form for form in self._forms]
        self._values = [(towards * signs).sum(axis=1) for towards in self._towards]
        self._far = (signs < 0).sum(axis=1)

    def to_the_top(self) -> Numbers:
        """The rows, after always the client changed side by whom most is gained, until nobody gains."""
        active = np.arange(len(self.signs))
        for _ in range(8 * self.signs.shape[1]):
            gain = self._gains_of_turning(active)
            client = gain.argmax(axis=1)
            now = _log_quotient(self._values[0][active], self._values[1][active])
            moving = gain[np.arange(len(active)), client] > now + _TINY
            if not moving.any():
                break
            active = active[moving]
            self._turn(active, client[moving])
        return self.signs

    def _gains_of_turning(self, rows: NDArray[np.intp]) -> Numbers:
        """(rows, n) the logarithm of baseline over loss, were each client to change side."""
        signs = self.signs[rows]
        baseline, loss = (
            value[rows, None] - 4.0 * signs * towards[rows] + 4.0 * np.diag(form)
            for value, towards, form in zip(self._values, self._towards, self._forms, strict=True)
        )
        gain = _log_quotient(baseline, loss)
        gain[self._far[rows, None] + signs < self._fewest] = -np.inf
        gain[:, self._held] = -np.inf
        return gain

    def _turn(self, rows: NDArray[np.intp], clients: NDArray[np.intp]) -> None:
        sign = self.signs[rows, clients]
        for value, towards, form in zip(self._values, self._towards, self._forms, strict=True):
            value[rows] += 4.0 * (form[clients, clients] - sign * towards[rows, clients])
            towards[rows] -= 2.0 * sign[:, None] * form[clients]
        self._far[rows] += sign.astype(np.intp)
        self.signs[rows, clients] = -sign


def search(quotient: Quotient, held: Mask, fewest: int, *, first: int = 0) -> tuple[Numbers, Numbers]:
    """Local optima: `(gains, signs)`, (m,) and (m, n), best first.

    The sign of those who are `held` (n,) is +1, and at least `fewest` of the others are on the side of -1. It starts
    from the axes of the least loss, from the `first` on, and at random: fewer starts, the dearer each is. The order of
    the clients does not matter.
    """
    order = np.argsort(np.diag(quotient.loss), kind="stable")
    sorted_, fixed = quotient.of(order), held[order]
    signs = np.unique(Climb(sorted_, _starts(sorted_.loss, fixed, fewest, first), fixed, fewest).to_the_top(), axis=0)
    gains = sorted_.gains(signs)
    best = np.argsort(-gains, kind="stable")
    return gains[best], signs[best][:, np.argsort(order)]


def _starts(loss: Numbers, held: Mask, fewest: int, first: int) -> Numbers:
    n = len(loss)
    free = np.flatnonzero(~held)
    count = int(np.clip(_STARTS // n, _FEWEST_STARTS, _MOST_STARTS))
    axes = np.linalg.eigh(loss)[1][:, first : first + min(_AXES, count // 4)].T
    far = []
    for axis in (*axes, *-axes):
        order = free[np.argsort(axis[free], kind="stable")]
        far += [order[: max(fewest, int(share * n))] for share in _CUTS]
    random = np.random.default_rng(n)
    far += [free[random.random(len(free)) < random.uniform(0.1, 0.7)] for _ in range(count)]
    signs = np.ones((len(far), n))
    for row, clients in zip(signs, far, strict=True):
        row[clients] = -1.0
    enough: Numbers = signs[(signs < 0).sum(axis=1) >= fewest]
    return enough


def _log_quotient(baseline: Numbers, loss: Numbers) -> Numbers:
    logarithm: Numbers = np.log(np.maximum(baseline, _TINY)) - np.log(np.maximum(loss, _TINY))
    return logarithm
