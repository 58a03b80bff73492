"""The search for signs, against trying them all."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encagg_cli.filters.anchored_views import signs as signs_module
from encagg_cli.filters.anchored_views.signs import Climb, Quotient, search

N = 10


def quotient_of(seed: int) -> Quotient:
    random = np.random.default_rng(seed)
    loss, baseline = (rows @ rows.T for rows in random.standard_normal((2, N, N)))
    return Quotient(loss, baseline + np.eye(N))


def every_choice(held: np.ndarray, fewest: int) -> np.ndarray:
    signs = np.array(list(product([1.0, -1.0], repeat=N)))
    return signs[(signs[:, held] > 0).all(axis=1) & ((signs < 0).sum(axis=1) >= fewest)]


def test_gains_are_half_n_logarithms_of_the_quotient():
    quotient, signs = quotient_of(0), np.where(np.arange(N) % 3 == 0, -1.0, 1.0)
    expected = N / 2 * np.log((signs @ quotient.baseline @ signs) / (signs @ quotient.loss @ signs))
    assert quotient.gains(signs[None]) == pytest.approx([expected])


def test_the_same_in_another_order():
    quotient, order = quotient_of(1), np.random.default_rng(0).permutation(N)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (3, N))
    assert quotient.of(order).gains(signs[:, order]) == pytest.approx(quotient.gains(signs))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), anchors=st.integers(0, 3), fewest=st.integers(0, 2))
def test_climbing_ends_where_no_single_client_gains(seed: int, anchors: int, fewest: int):
    quotient, held = quotient_of(seed), np.arange(N) < anchors
    starts = every_choice(held, max(fewest, 1))[:: 2 ** max(0, 6 - anchors)]
    tops = Climb(quotient, starts, held, fewest).to_the_top()
    assert (tops[:, held] == 1).all()
    assert ((tops < 0).sum(axis=1) >= fewest).all()
    assert (quotient.gains(tops) >= quotient.gains(starts) - 1e-9).all()
    for top in tops[:5]:
        for client in np.flatnonzero(~held):
            other = top.copy()
            other[client] *= -1
            if (other < 0).sum() >= fewest:
                assert quotient.gains(other[None])[0] <= quotient.gains(top[None])[0] + 1e-6


def test_the_fewest_stay_on_the_far_side_though_all_would_rather_be_near():
    quotient = Quotient((N + 0.1) * np.eye(N) - np.ones((N, N)), np.eye(N))  # least for all alike
    start = np.where(np.arange(N) < 5, 1.0, -1.0)[None]
    for fewest in (0, 2):
        held = np.arange(N) < 5
        assert (Climb(quotient, start, held, fewest).to_the_top() < 0).sum() == fewest


def test_starts_are_left_as_they_are():
    starts = np.ones((1, N))
    Climb(quotient_of(3), starts, np.zeros(N, dtype=bool)).to_the_top()
    assert (starts == 1).all()


def test_nobody_left_to_turn_is_the_end():
    signs = np.ones((2, N))
    climb = Climb(quotient_of(2), signs, np.ones(N, dtype=bool))
    assert np.array_equal(climb.to_the_top(), signs)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), anchors=st.integers(0, 8), fewest=st.integers(1, 2))
def test_the_search_finds_the_best_choice_of_all(seed: int, anchors: int, fewest: int):
    quotient, held = quotient_of(seed), np.arange(N) < anchors
    gains, signs = search(quotient, held, fewest)
    assert gains[0] == pytest.approx(quotient.gains(every_choice(held, fewest)).max())
    assert (signs[:, held] == 1).all()
    assert ((signs < 0).sum(axis=1) >= fewest).all()
    assert gains == pytest.approx(quotient.gains(signs))
    assert (np.diff(gains) <= 0).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_search_does_not_mind_the_order(seed: int):
    quotient, order = quotient_of(seed), np.random.default_rng(seed).permutation(N)
    held = np.arange(N) < 3
    gains, signs = search(quotient, held, 1)
    again, shuffled = search(quotient.of(order), held[order], 1)
    assert again[0] == pytest.approx(gains[0])
    assert np.array_equal(shuffled[0], signs[0][order])


def test_the_search_starts_from_the_axes_that_it_is_told_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signs_module, "_AXES", 1)
    n, random = 24, np.random.default_rng(0)
    halves = np.where(random.permutation(n) < n // 2, -1.0, 1.0)
    axes = np.linalg.qr(np.column_stack([halves, random.standard_normal((n, n - 1))]))[0]
    loss = (axes * np.array([1.0, 0.0, *range(2, n)])) @ axes.T  # the halves are second
    starts = [signs_module._starts(loss, np.zeros(n, dtype=bool), 2, first) for first in (0, 1)]
    assert [bool((rows == halves).all(axis=1).any()) for rows in starts] == [False, True]
