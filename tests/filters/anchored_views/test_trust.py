"""Trust along agreement and opposition, on graphs small enough to work out by hand."""

import numpy as np
import pytest

from encagg_cli.filters.anchored_views.trust import opposition, propagate, relations


def graph(n: int, **edges: float) -> np.ndarray:
    """Strengths from edges named by their two clients: `e01=0.5`."""
    strength = np.zeros((n, n))
    for name, value in edges.items():
        i, j = int(name[1]), int(name[2])
        strength[i, j] = strength[j, i] = value
    return strength


def test_a_clear_relation_says_far_more_than_a_faint_one():
    strength = relations(np.array([[1.0, 0.8, -0.2], [0.8, 1.0, 0.4], [-0.2, 0.4, 1.0]]))
    assert strength[0, 1] == pytest.approx(0.262144)
    assert strength[1, 2] == pytest.approx(0.004096)
    assert strength[0, 2] == pytest.approx(-0.000064)
    assert np.diag(strength).tolist() == [0, 0, 0]


def test_trust_passes_from_friend_to_friend():
    trust = propagate(graph(3, e01=1.0, e12=1.0), np.array([True, False, False]))
    # Client 1 has x = tanh((1 + y) / 2), client 2 has y = tanh(x).
    x = y = 0.0
    for _ in range(200):
        x, y = np.tanh((1 + y) / 2), np.tanh(x)
    assert trust[1:] == pytest.approx([(1 + y) / 2, x])


def test_who_opposes_a_friend_is_distrusted_and_so_are_its_friends():
    trust = propagate(graph(4, e01=1.0, e12=-1.0, e23=1.0), np.array([True, False, False, False]))
    assert trust[1] > 0
    assert trust[2] < 0
    assert trust[3] < 0


def test_no_trust_reaches_a_stranger():
    trust = propagate(graph(3, e01=1.0), np.array([True, False, False]))
    assert trust[2] == 0.0


def test_reversing_uploads_reverses_their_trust():
    cosines = np.corrcoef(np.random.default_rng(1).standard_normal((12, 6)) + 0.7)
    signs = np.where(np.arange(12) < 7, 1.0, -1.0)
    trusted = np.arange(12) < 3
    honest = propagate(relations(cosines), trusted)
    attacked = propagate(relations(cosines * np.outer(signs, signs)), trusted)
    assert attacked == pytest.approx(honest * signs, abs=1e-12)


def test_opposition_is_the_weighted_share_of_opposed_relations():
    strength = graph(4, e02=-3.0, e13=1.0, e01=9.0)
    assert opposition(strength, np.array([False, False, True, True])) == pytest.approx((3 - 1) / 4)


def test_a_group_related_to_nobody_opposes_nobody():
    assert opposition(graph(4, e01=1.0, e23=1.0), np.array([False, False, True, True])) == 0.0
