"""The anchored split, against a search over all splits in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encagg_cli.filters.anchored_views.split import anchored_split, gain_of


def log_likelihood_gain(values: list[float], far: set[int]) -> float:
    """Two normal distributions over one, by the definition, spreads floored as documented."""
    n = len(values)

    def spread(part: list[float]) -> float:
        mean = sum(part) / len(part)
        return math.sqrt(sum((x - mean) ** 2 for x in part) / len(part))

    whole = spread(values)
    near = [x for i, x in enumerate(values) if i not in far]
    away = [x for i, x in enumerate(values) if i in far]
    s1, s2 = spread(near), spread(away)
    s1 = max(s1, 0.1 * s2, math.sqrt(1e-3) * whole)
    s2 = max(s2, 0.25 * s1)
    return sum(len(part) * math.log(len(part) / n * whole / s) for part, s in ((near, s1), (away, s2)))


def best_by_search(values: list[float], trusted: list[bool], low: bool, high: bool) -> tuple[float, set[int]]:
    best = (-math.inf, set[int]())
    for sign in (1,) * high + (-1,) * low:
        order = sorted(range(len(values)), key=lambda i: sign * values[i])
        for cut in range(3, len(values)):
            far = set(order[cut:])
            if not any(trusted[i] for i in far):
                best = max(best, (log_likelihood_gain(values, far), far), key=lambda found: found[0])
    return best


@given(
    st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=6, max_size=12, unique=True),
    st.sets(st.integers(0, 5), min_size=1, max_size=3),
    st.sampled_from([(True, True), (True, False), (False, True)]),
)
@settings(max_examples=150, deadline=None)
def test_the_split_is_the_best_of_all_that_keep_the_known_benign_near(values, anchors, sides):
    low, high = sides
    trusted = [i in anchors for i in range(len(values))]
    gain, far = best_by_search(values, trusted, low, high)
    split = anchored_split(np.array(values), np.array(trusted), low=low, high=high)
    if not far:
        assert split is None
    else:
        assert split is not None
        assert split.gain == pytest.approx(gain, abs=1e-6)
        assert log_likelihood_gain(values, set(np.flatnonzero(split.far).tolist())) == pytest.approx(gain, abs=1e-6)


def test_a_group_that_stands_apart_is_the_far_side():
    values = np.array([0.0, 0.1, -0.1, 0.05, -0.05, 7.0, 7.1])
    split = anchored_split(values, np.arange(7) < 2, low=True, high=True)
    assert split is not None
    assert split.far.tolist() == [False] * 5 + [True] * 2
    assert split.high


def test_the_known_benign_decide_which_side_is_far():
    values = np.array([0.0, 0.1, -0.1, 0.05, 7.0, 7.1, 6.9, 7.05])
    split = anchored_split(values, np.arange(8) >= 6, low=True, high=True)
    assert split is not None
    assert split.far.tolist() == [True] * 4 + [False] * 4
    assert not split.high


def test_a_known_benign_client_inside_a_group_shields_it():
    values = np.array([0.0, 0.1, -0.1, 0.05, 7.0, 7.1, 6.9, 7.05])
    split = anchored_split(values, np.array([1, 1, 0, 0, 1, 0, 0, 0], dtype=bool), low=True, high=True)
    assert split is None or split.gain < 3


def test_a_side_that_is_not_asked_about_is_not_cut():
    values = np.array([0.0, 0.1, -0.1, 0.05, -0.05, -9.0, -9.1])
    split = anchored_split(values, np.arange(7) < 2, low=False, high=True)
    assert split is None or not split.far[5:].any()


def test_equal_values_have_no_split():
    assert anchored_split(np.ones(8), np.arange(8) < 2, low=True, high=True) is None


@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
@settings(deadline=None)
def test_the_gain_has_no_unit(scale, shift):
    values = np.random.default_rng(3).standard_normal(20)
    trusted = np.arange(20) < 4
    one = anchored_split(values, trusted, low=True, high=True)
    other = anchored_split(values * scale + shift * scale, trusted, low=True, high=True)
    assert one is not None
    assert other is not None
    assert other.gain == pytest.approx(one.gain, rel=1e-5, abs=1e-5)
    assert np.array_equal(one.far, other.far)


@given(
    st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=6, max_size=12, unique=True),
    st.sets(st.integers(0, 11), min_size=1, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_any_group_may_be_split_off_overlapping_or_not(values, far):
    far = {client for client in far if client < len(values)} or {0}
    mask = np.isin(np.arange(len(values)), list(far))
    assert gain_of(np.array(values), mask) == pytest.approx(log_likelihood_gain(values, far), abs=1e-6)


def test_a_split_gains_nothing_where_there_is_none():
    values, nobody = np.arange(6.0), np.zeros(6, dtype=bool)
    for axis, far in ((values, nobody), (np.ones(6), values > 4), (values, values > 1)):  # two are no near side
        assert gain_of(axis, far) == -np.inf
