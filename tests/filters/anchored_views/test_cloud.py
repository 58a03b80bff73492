"""Where clients lie on a round's principal axes, and groups that have nothing of what honest ones differ in most."""

import numpy as np
import pytest
from scipy.linalg import eigh

from encagg_cli.filters.anchored_views import cloud
from encagg_cli.filters.anchored_views.cloud import Cloud, drawn_in
from encagg_cli.sketch import principal_coordinates

N, D = 50, 600
ATTACKERS = np.arange(N) >= 30


def honest_updates(seed: int, clients: int = N) -> np.ndarray:
    """A shared step, differences along eight axes, the first ones larger, and what a batch adds."""
    random = np.random.default_rng(seed)
    step = random.standard_normal(D)
    axes = np.linalg.qr(random.standard_normal((D, 8)))[0].T
    places = random.standard_normal((clients, 8)) * np.sqrt(D) * np.linspace(2.5, 1.0, 8)
    return step + places @ axes + 1.5 * random.standard_normal((clients, D))


def hidden(updates: np.ndarray, attackers: np.ndarray, kept: float = 0.0) -> np.ndarray:
    """Attackers go to the mean within the principal plane, and reverse it outside (EnCAgg, eqs. 56-57).

    But for a share that they have `kept` of what they are within it.
    """
    mean = updates.mean(axis=0)
    plane = np.linalg.svd(updates - mean, full_matrices=False)[2][:2]
    inside = (1.0 - kept) * (mean - updates) @ plane.T @ plane
    outside = mean - plane.T @ (plane @ mean)
    return np.where(attackers[:, None], updates + inside - 2.0 * outside, updates)


def cloud_of(updates: np.ndarray) -> Cloud:
    return Cloud.of(updates @ updates.T)


def test_a_plane_is_that_of_the_largest_quotients_of_variances():
    random = np.random.default_rng(0)
    points, far, ridge = random.standard_normal((40, 7)) * np.arange(1, 8), np.arange(40) >= 22, 0.3
    centred = points - points[~far].mean(axis=0)
    near, group = centred[~far].T @ centred[~far] / 22, centred[far].T @ centred[far] / 18
    quotients, directions = eigh(near + ridge * np.eye(7), group + ridge * np.eye(7))
    basis = np.linalg.qr(directions[:, -2:])[0]
    held = np.trace(basis.T @ near @ basis) / np.linalg.eigvalsh(near)[-2:].sum()
    assert Cloud(points, ridge).depths(far[None])[0] == pytest.approx(np.log(quotients[-2:]).mean() + 6.0 * held)


def test_three_points_that_are_one_have_collapsed_to_the_ridge():
    """By hand: those near have a variance of 1 along both axes, the others of 0, and a plane holds all there is."""
    points = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert Cloud(points, 0.1).depths(np.arange(7)[None] >= 4) == pytest.approx([np.log(1.1 / 0.1) + 6.0])


def test_chance_is_that_of_rounds_with_as_much_spread():
    random = np.random.default_rng(2)
    points = random.standard_normal((N, 10)) * np.linspace(3.0, 1.0, 10)
    sizes = np.array([30, 15, 30])
    expected = [
        np.mean(
            [
                Cloud(random.standard_normal((N, 10)) * points.std(axis=0), 0.1).depths(np.arange(N)[None] < size)[0]
                for _ in range(200)
            ]
        )
        for size in sizes
    ]
    measured = Cloud(points, 0.1).by_chance(sizes)
    assert measured == pytest.approx(expected, abs=0.4)
    assert measured[0] == measured[2] < measured[1]  # smaller groups collapse further
    groups = random.random((3, N)) < 0.5
    beyond = Cloud(points, 0.1).depths(groups) - Cloud(points, 0.1).by_chance(groups.sum(axis=1))
    assert Cloud(points, 0.1).collapse(groups) == pytest.approx(beyond)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.45, 0.6])
def test_who_hides_in_the_principal_plane_has_collapsed_and_honest_clients_have_not(share: float):
    attackers = (np.arange(N) >= N - round(share * N))[None]
    rounds = [honest_updates(seed) for seed in range(6)]
    attacked = [cloud_of(hidden(updates, attackers[0])).collapse(attackers)[0] for updates in rounds]
    honest = [cloud_of(updates).collapse(attackers)[0] for updates in rounds]
    assert min(attacked) > 2.5 > 1.0 > max(honest)


def test_uploads_far_off_are_drawn_in_to_half_as_far_again_as_most():
    points = np.array([[3.0, 4.0], [-3.0, 4.0], [0.0, -5.0], [60.0, -80.0], [-2.0, 0.0]])  # around the median
    expected = np.array([[3.0, 4.0], [-3.0, 4.0], [0.0, -5.0], [4.5, -6.0], [-2.0, 0.0]])
    assert drawn_in(points + np.array([7.0, -1.0])) == pytest.approx(expected)
    assert drawn_in(np.ones((5, 2))) == pytest.approx(np.zeros((5, 2)))
    assert drawn_in(np.zeros((5, 0))).shape == (5, 0)


def test_beside_a_few_large_uploads_nobody_has_collapsed(monkeypatch: pytest.MonkeyPatch):
    """Flipped labels make some late in training: but for them, nobody differs much along their axes."""
    others = (np.arange(N) >= 10) & (np.arange(N) < N - 5)
    rounds = [honest_updates(seed) for seed in range(6)]
    for updates in rounds:
        updates[-5:] += 9.0 * (updates[-5:] - updates.mean(axis=0))
    drawn = [cloud_of(updates).collapse(others[None])[0] for updates in rounds]
    monkeypatch.setattr(cloud, "drawn_in", lambda coordinates: coordinates)
    assert max(drawn) < 0.5 * min(cloud_of(updates).collapse(others[None])[0] for updates in rounds)


def test_neither_order_nor_scale_of_the_clients_matters():
    updates, order = hidden(honest_updates(3), ATTACKERS), np.random.default_rng(0).permutation(N)
    as_it_is = cloud_of(updates).collapse(ATTACKERS[None])
    assert cloud_of(1e-9 * updates[order]).collapse(ATTACKERS[order][None]) == pytest.approx(as_it_is, abs=1e-6)


def test_it_tells_of_those_who_were_there():
    updates, there = honest_updates(0), np.arange(N) % 2 == 0
    place = np.where(there, np.cumsum(there) - 1, -1)
    seen = cloud_of(updates[there]).among(place)
    assert np.array_equal(seen.there, there)
    assert seen.collapse(ATTACKERS[None]) == pytest.approx(cloud_of(updates[there]).collapse(ATTACKERS[there][None]))


def test_of_few_clients_and_of_equal_ones_it_tells_nothing():
    assert not cloud_of(np.ones((N, D))).there.any()
    assert not cloud_of(honest_updates(0, 17)).there.any()  # five axes
    assert cloud_of(honest_updates(0, 18)).there.all()


def test_updates_of_few_parameters_do_no_harm():
    """Of most axes, nothing is left: the median variance is none."""
    updates = hidden(honest_updates(0), ATTACKERS) @ np.linalg.qr(np.random.default_rng(1).standard_normal((D, 9)))[0]
    assert np.isfinite(cloud_of(updates).collapse(ATTACKERS[None])).all()


def test_the_axes_are_the_principal_ones():
    updates = honest_updates(0)
    expected = drawn_in(principal_coordinates(updates @ updates.T, N))[:, :16]
    centred = updates - updates.mean(axis=0)
    axes, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    points = Cloud.of(centred @ centred.T).points
    for by_another_way in (drawn_in(axes * lengths)[:, :16], expected):
        turned = by_another_way * np.sign((points * by_another_way).sum(axis=0))
        assert points == pytest.approx(turned, abs=1e-6 * np.abs(points).max())
