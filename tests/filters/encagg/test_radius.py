"""The radius is one of the distances between known-benign uploads, and the roots are that pair."""

import numpy as np
import pytest

from encagg_cli.filters.encagg.projection import distances
from encagg_cli.filters.encagg.radius import radius_from_known

# Known-benign at 0, 1, 3, 7, 15 on a line (rows 1, 3, 4, 6, 7): every pair has a distance of its own.
POSITIONS = np.array([100.0, 0.0, -50.0, 1.0, 3.0, 0.5, 7.0, 15.0])
KNOWN = np.array([False, True, False, True, True, False, True, True])
LINE = distances(np.stack([POSITIONS, np.zeros(8)], axis=1))
# In order: 1, 2, 3, 4, 6, 7, 8, 12, 14, 15.


@pytest.mark.parametrize(
    ("r", "epsilon", "roots"),
    [
        (0.2, 2.0, (3, 4)),  # ⌈0.2 · 10⌉ = 2nd
        (0.21, 3.0, (1, 4)),  # ⌈2.1⌉ = 3rd
        (0.01, 1.0, (1, 3)),  # never before the first
        (0.3, 3.0, (1, 4)),  # 0.3 · 10 is exactly 3
        (1.0, 15.0, (1, 7)),
    ],
)
def test_the_radius_is_the_quantile_of_known_benign_distances(r: float, epsilon: float, roots: tuple[int, int]) -> None:
    radius = radius_from_known(LINE, KNOWN, r)
    assert radius.epsilon == epsilon
    assert radius.roots == roots


def test_a_product_that_rounds_up_does_not_skip_a_distance() -> None:
    points = np.random.default_rng(0).normal(size=(3, 2))
    # 3 pairs: 1/3 · 3 is 1, and 0.1 · 30 = 3.0000000000000004 for 30 pairs would be the 4th.
    assert 0.1 * 3 * 10 > 3
    many = np.random.default_rng(1).normal(size=(25, 2))  # 300 pairs; 0.07 · 300 = 21.000000000000004
    assert 0.07 * 300 > 21
    pairs = np.sort(distances(many)[np.triu_indices(25, k=1)])
    assert radius_from_known(distances(many), np.ones(25, dtype=bool), 0.07).epsilon == pairs[20]
    nearest = distances(points)[np.triu_indices(3, k=1)].min()
    assert radius_from_known(distances(points), np.ones(3, dtype=bool), 1 / 3).epsilon == nearest


def test_two_known_benign_uploads_are_the_roots_themselves() -> None:
    radius = radius_from_known(LINE, np.isin(np.arange(8), [4, 6]), 0.2)
    assert (radius.epsilon, radius.roots) == (4.0, (4, 6))


def test_the_pair_is_within_its_own_reach() -> None:
    radius = radius_from_known(LINE, KNOWN, 0.2)
    assert radius.epsilon < radius.reach() < radius.epsilon * (1 + 1e-8)
    assert radius.reach(3.0) == pytest.approx(3 * radius.reach())


def test_the_radius_is_not_finer_than_the_data_resolve() -> None:
    assert radius_from_known(LINE, KNOWN, 0.2, at_least=2.5).epsilon == 2.5


def test_one_known_benign_upload_gives_no_radius() -> None:
    with pytest.raises(ValueError, match="two known-benign"):
        radius_from_known(LINE, np.arange(8) == 1, 0.2)
