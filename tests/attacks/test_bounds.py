"""What Min-Max and Min-Sum promise, for any honest updates: within their bound, and no farther step would be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from encagg_cli import attacks
from encagg_cli.attacks import Scene, craft_matrix
from encagg_cli.sketch import ArraySource

DIRECTIONS = {
    "unit": lambda g: -g.mean(axis=0) / max(np.linalg.norm(g.mean(axis=0)), 1e-300),
    "sign": lambda g: -np.sign(g.mean(axis=0)),
    "sd": lambda g: -g.std(axis=0),
}
honest_updates = st.tuples(st.integers(2, 8), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-100, 100, width=32, allow_subnormal=False))
)


def scene_of(g):
    updates = np.vstack([g, g[:1]])
    ids = tuple(f"c{row}" for row in range(len(updates)))
    source = ArraySource(updates, ids, np.zeros(len(updates), dtype=bool))
    return Scene(source=source, poisoning=ids[-1:], malicious=ids[-1:], honest_clients=ids[:-1])


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None, :], axis=2)


def slack_of(g):
    return 1e-4 * (1.0 + np.abs(g).max())  # float32 uploads


@given(honest_updates, st.sampled_from(sorted(DIRECTIONS)))
@settings(max_examples=150, deadline=None)
def test_min_max_is_no_farther_from_any_honest_update_than_two_of_those_are_apart(g, direction):
    crafted = craft_matrix(attacks.get(f"min-max(direction={direction})"), scene_of(g)).astype(np.float64)
    g = g.astype(np.float64)
    assert distances(crafted, g).max() <= distances(g, g).max() + slack_of(g)


@given(honest_updates, st.sampled_from(sorted(DIRECTIONS)))
@settings(max_examples=150, deadline=None)
def test_min_sums_squared_distances_sum_to_no_more_than_an_honest_updates(g, direction):
    crafted = craft_matrix(attacks.get(f"min-sum(direction={direction})"), scene_of(g)).astype(np.float64)
    g = g.astype(np.float64)
    bound = (distances(g, g) ** 2).sum(axis=1).max()
    assert (distances(crafted, g) ** 2).sum() <= bound + slack_of(g) * (1.0 + np.sqrt(bound)) * len(g)


def halving_search(g, p, passes):
    """The published search for the largest step: from 10, steps halved, to a tolerance."""
    gamma, step, best = 10.0, 10.0, 0.0
    while step > 1e-9:
        if passes(g.mean(axis=0) + gamma * p):
            best, gamma = gamma, gamma + step / 2
        else:
            gamma -= step / 2
        step /= 2
    return g.mean(axis=0) + best * p


@pytest.mark.parametrize("direction", sorted(DIRECTIONS))
@pytest.mark.parametrize("data", range(3))
def test_both_find_what_the_published_search_finds(make_scene, direction, data):
    scene = make_scene(data=data)
    g = scene.source.updates[:8].astype(np.float64)
    p = DIRECTIONS[direction](g)
    p = p / np.linalg.norm(p)
    farthest = distances(g, g).max()
    largest_sum = (distances(g, g) ** 2).sum(axis=1).max()
    min_max = halving_search(g, p, lambda m: distances(m[None], g).max() <= farthest)
    min_sum = halving_search(g, p, lambda m: (distances(m[None], g) ** 2).sum() <= largest_sum)
    np.testing.assert_allclose(
        craft_matrix(attacks.get(f"min-max(direction={direction})"), scene)[0], min_max, atol=1e-5
    )
    np.testing.assert_allclose(
        craft_matrix(attacks.get(f"min-sum(direction={direction})"), scene)[0], min_sum, atol=1e-5
    )


def test_equal_honest_updates_leave_nothing_to_do(make_scene):
    scene = make_scene(updates=np.ones((11, 40)))
    for name in ("min-max", "min-sum", "lie"):
        np.testing.assert_array_equal(craft_matrix(attacks.get(name), scene), np.ones((3, 40)))
