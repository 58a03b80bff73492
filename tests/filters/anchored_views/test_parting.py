"""Two populations in one round, against regressions by scikit-learn and in rounds made for it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from encagg_cli.filters.anchored_views.parting import gain_of_rivals, parting_loss, partings
from encagg_cli.filters.anchored_views.ridge import unexplained_shares
from encagg_cli.filters.anchored_views.signs import Quotient

D = 400


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def round_of(
    seed: int,
    n: int = 30,
    *,
    axes: int = 3,
    shift: float = 0.0,
    attackers: int = 0,
    batch: float = 1.0,
) -> np.ndarray:
    """Cosines of a round: a step that all share, differences along some axes, noise; the last clients are shifted.

    The shift of the attackers is the same for all of them, and points anywhere. They have none of the step.
    """
    random = np.random.default_rng(seed)
    step, where = 0.3 * random.standard_normal((2, D))
    own = random.standard_normal((n, axes)) @ np.linalg.qr(random.standard_normal((D, axes)))[0].T * 0.3 * np.sqrt(D)
    rows = step + 3.0 * own + 0.3 * batch * random.standard_normal((n, D))
    rows[n - attackers :] += shift * where - step * (shift > 0)
    rows = units(rows)
    return rows @ rows.T


def together(rounds: list[np.ndarray]) -> Quotient:
    every = [parting_loss(cosines) for cosines in rounds]
    return Quotient(sum(each.loss for each in every), sum(each.baseline for each in every))


def best_of(*rounds: np.ndarray, anchors: int = 4) -> np.ndarray:
    return partings(together(list(rounds)), np.arange(len(rounds[0])) < anchors)[1][0] < 0


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_baseline_are_errors_without_the_client(seed: int):
    n, random = 11, np.random.default_rng(seed)
    rows = units(random.standard_normal((n, 60)) + 0.5)
    signs = np.where(random.random(n) < 0.4, -1.0, 1.0)
    scaled = rows / np.sqrt(unexplained_shares(rows @ rows.T))[:, None]
    scaled /= np.sqrt(np.mean(np.sum(scaled**2, axis=1)))
    centred = scaled - scaled.mean(axis=0)
    ridge = float(np.median(np.linalg.eigvalsh(centred @ centred.T)))
    predicted = cross_val_predict(Ridge(alpha=ridge), scaled, signs, cv=LeaveOneOut())
    alone = np.array([np.delete(signs, client).mean() for client in range(n)])
    quotient = parting_loss(rows @ rows.T)
    assert signs @ quotient.loss @ signs == pytest.approx(np.sum((signs - predicted) ** 2), rel=1e-6)
    assert signs @ quotient.baseline @ signs == pytest.approx(np.sum((signs - alone) ** 2))


def test_clients_that_were_not_there_neither_cost_nor_count():
    cosines, there = np.full((9, 9), np.nan), np.array([8, 1, 2, 3, 5, 6, 7])
    cosines[np.ix_(there, there)] = round_of(0, 7)
    quotient, without = parting_loss(cosines), parting_loss(round_of(0, 7))
    for form, expected in ((quotient.loss, without.loss), (quotient.baseline, without.baseline)):
        assert np.allclose(form[np.ix_(there, there)], expected)
        assert not form[[0, 4]].any()
        assert not form[:, [0, 4]].any()


@pytest.mark.parametrize("seed", range(4))
def test_the_best_parting_is_the_best_of_all(seed: int):
    n = 11
    quotient, held = parting_loss(round_of(seed, n, attackers=4, shift=1.0)), np.arange(n) < 2
    every = np.array(list(product([1.0, -1.0], repeat=n)))
    every = every[(every[:, held] > 0).all(axis=1) & ((every < 0).sum(axis=1) >= 2)]
    gains, signs = partings(quotient, held)
    assert gains[0] == pytest.approx(quotient.gains(every).max())
    assert quotient.gains(signs) == pytest.approx(gains)


def test_a_lone_client_is_no_population():
    for seed in range(5):
        quotient, held = parting_loss(round_of(seed, 12)), np.arange(12) < 9
        assert ((partings(quotient, held)[1] < 0).sum(axis=1) >= 2).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), n=st.integers(6, 24))
def test_the_order_of_clients_does_not_matter(seed: int, n: int):
    cosines, order = round_of(seed, n, attackers=n // 3, shift=1.5), np.random.default_rng(seed).permutation(n)
    anchors = np.arange(n) < 3
    gains, signs = partings(parting_loss(cosines), anchors)
    again, shuffled = partings(parting_loss(cosines[np.ix_(order, order)]), anchors[order])
    assert again[0] == pytest.approx(gains[0])
    assert np.array_equal(shuffled[0], signs[0][order])


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_who_differs_by_the_same_is_parted_wherever_that_points(share: float):
    attackers = round(share * 40)
    expected = np.arange(40) >= 40 - attackers
    right = [(best_of(round_of(seed, 40, attackers=attackers, shift=1.5)) == expected).mean() for seed in range(5)]
    assert np.mean(right) > 0.95


def test_rounds_that_tell_little_alone_tell_more_together():
    attackers = np.arange(40) >= 28
    right = []
    for seed in range(0, 40, 8):
        rounds = [round_of(seed + t, 40, attackers=12, shift=1.0, batch=3.0) for t in range(5)]
        right.append([(best_of(*rounds[:count]) == attackers).mean() for count in (1, 5)])
    alone, all_five = np.mean(right, axis=0)
    assert all_five > 0.95
    assert all_five > alone + 0.2


def test_known_benign_clients_on_both_sides_are_rivals():
    """The attackers are parted as clearly as ever, but one of the known-benign is among them."""
    quotient = parting_loss(round_of(0, 40, attackers=16, shift=1.5))
    gains, signs = partings(quotient, np.zeros(40, dtype=bool))
    assert min((signs[0] < 0).sum(), (signs[0] > 0).sum()) == 16
    assert gain_of_rivals(quotient, np.isin(np.arange(40), [0, 1, 2, 39])) == gains[0]
    assert gain_of_rivals(quotient, np.arange(40) < 4) < gains[0]
    assert gain_of_rivals(quotient, np.arange(40) == 0) == 0.0  # nobody can part one: beside no parting, then


@pytest.mark.parametrize("cosines", [np.ones((7, 7)), np.zeros((7, 7)), np.eye(7), -np.ones((7, 7)) + 2 * np.eye(7)])
@pytest.mark.parametrize("anchors", [2, 6])
def test_degenerate_rounds_have_finite_losses(cosines: np.ndarray, anchors: int):
    quotient = parting_loss(cosines)
    assert np.isfinite(quotient.loss).all()
    assert np.isfinite(partings(quotient, np.arange(7) < anchors)[0]).all()
