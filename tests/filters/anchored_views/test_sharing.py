"""What a group has of what the others share, in rounds made for it."""

import numpy as np
import pytest

from encagg_cli.filters.anchored_views.ridge import alike
from encagg_cli.filters.anchored_views.sharing import Sharing, contrast_and_share

N, D = 20, 300
NEAR = np.arange(N) < 12


def round_with(shares: np.ndarray, seed: int) -> np.ndarray:
    """Cosines of a round in which the clients have these `shares` (n,) of a step, and noise."""
    random = np.random.default_rng(seed)
    rows = shares[:, None] * random.standard_normal(D) + 0.3 * random.standard_normal((N, D))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
def test_a_group_has_as_much_as_it_was_given(share: float, expected: float):
    sharing = Sharing.of([round_with(np.where(NEAR, 1.0, share), seed) for seed in range(3)], NEAR, ~NEAR)
    assert sharing.mean == pytest.approx(expected, abs=0.15)


def test_this_round_clears_who_has_its_share():
    today = np.where(NEAR | (np.arange(N) == 19), 1.0, -1.0)
    earlier = np.where(NEAR, 1.0, -1.0)
    sharing = Sharing.of([round_with(today, 0), *(round_with(earlier, seed) for seed in (1, 2))], NEAR, ~NEAR)
    assert (sharing.guilty & ~NEAR).tolist() == (~NEAR & (np.arange(N) != 19)).tolist()


def test_nobody_is_cleared_by_what_the_whole_group_has():
    """They all have half of the step, and none is less guilty than the others."""
    sharing = Sharing.of([round_with(np.where(NEAR, 1.0, 0.5), 0)], NEAR, ~NEAR)
    assert sharing.mean > 0.4
    assert sharing.guilty[~NEAR].all()


@pytest.mark.parametrize(("share", "little"), [(0.9, False), (0.4, False), (0.05, True), (-0.5, True)])
def test_a_group_that_has_little_is_none_of_the_rest(share: float, little: bool):
    assert Sharing.of([round_with(np.where(NEAR, 1.0, share), 0)], NEAR, ~NEAR).little == little


def test_who_was_not_there_is_not_cleared_and_counts_for_nothing():
    past = round_with(np.where(NEAR, 1.0, -1.0), 0)
    past[19] = past[:, 19] = np.nan
    today = np.full((N, N), np.nan)
    today[:19, :19] = round_with(np.where(NEAR, 1.0, -1.0), 1)[:19, :19]
    sharing = Sharing.of([today, past], NEAR, ~NEAR)
    assert np.isfinite(sharing.mean)
    assert sharing.today[19] == 0
    assert sharing.guilty[19]


def test_a_group_that_was_never_there_shares_in_full():
    nowhere = round_with(np.ones(N), 0)
    nowhere[~NEAR] = nowhere[:, ~NEAR] = np.nan
    assert Sharing.of([nowhere], NEAR, ~NEAR).mean == 1.0


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.8])
def test_the_contrast_is_that_of_regressions_solved_anew_for_each_that_is_left_out(share: float):
    products, near = alike(round_with(np.where(NEAR, 1.0, share), 2)), np.flatnonzero(NEAR)
    ridge = np.median(np.linalg.eigvalsh(products[np.ix_(near, near)]))
    has = np.empty(N)
    for client in range(N):
        others = near[near != client]
        kernel = products[np.ix_(others, others)] + ridge * np.eye(len(others))
        has[client] = products[client, others] @ np.linalg.solve(kernel, np.ones(len(others)))
    spread = np.sqrt((has[~NEAR].std() ** 2 + has[NEAR].std() ** 2) / 2 + 0.01)
    expected = (has[NEAR].mean() - has[~NEAR].mean()) / spread
    assert contrast_and_share(products, ~NEAR)[0] == pytest.approx(expected)
    assert (expected > 3) == (share <= 0)
