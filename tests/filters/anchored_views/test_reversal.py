"""Whitening and the two tests for reversed groups, against dense arithmetic on the updates themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encagg_cli.filters.anchored_views import reversal, whitening
from encagg_cli.filters.anchored_views.reversal import reversed_group
from encagg_cli.filters.anchored_views.whitening import alignment, mirrored, sides_apart, whitened
from encagg_cli.sketch import ArraySource, GramNeed, sketch_round

N, D, K = 30, 400, 4


def honest_updates(seed: int, *, shared: float = 1.0, differences: float = 4.0, batch: float = 1.0) -> np.ndarray:
    """A shared step, large differences between clients along three axes, and what a batch adds."""
    random = np.random.default_rng(seed)
    step = random.standard_normal(D)
    step *= shared * np.sqrt(D) * 0.3 / np.linalg.norm(step)
    axes = np.linalg.qr(random.standard_normal((D, 3)))[0].T
    places = differences * np.sqrt(D) * 0.3 * random.standard_normal((N, 3))
    return step + places @ axes + 0.3 * batch * random.standard_normal((N, D))


def keep_and_reverse(updates: np.ndarray, attackers: np.ndarray) -> np.ndarray:
    """Attackers keep their own update and reverse the mean in it, outside of the principal plane."""
    mean = updates.mean(axis=0)
    plane = np.linalg.svd(updates - mean, full_matrices=False)[2][:2]
    outside = mean - plane.T @ (plane @ mean)
    return np.where(attackers[:, None], updates - 2.0 * outside, updates)


def group_of(updates: np.ndarray, alpha: float = 0.02) -> np.ndarray | None:
    trusted = np.arange(len(updates)) < K
    clients = [f"{index:03d}" for index in range(len(updates))]
    source = ArraySource(updates.astype(np.float32), clients, trusted)
    gram = sketch_round(source, [GramNeed()]).gram
    return reversed_group(gram, np.arange(len(updates)), trusted, alpha, later=False).group


def test_whitened_cosines_are_those_of_updates_whose_axes_are_scaled():
    updates = honest_updates(0)
    centred = updates - updates.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variances = singular[: N - 1] ** 2
    typical = 8.0 * np.median(variances)
    places = updates @ axes[: N - 1].T
    scaled = updates + (places * (np.sqrt(typical / (variances + typical)) - 1.0)) @ axes[: N - 1]
    units = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    assert whitened(updates @ updates.T) == pytest.approx(units @ units.T, abs=1e-9)


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 50))
def test_neither_the_scale_nor_the_order_of_the_updates_matters(scale: float, seed: int):
    updates = honest_updates(seed)
    order = np.random.default_rng(seed).permutation(N)
    inner = updates @ updates.T
    expected = whitened(inner)
    assert whitened(scale**2 * inner) == pytest.approx(expected, abs=1e-7)
    assert whitened(inner[np.ix_(order, order)]) == pytest.approx(expected[np.ix_(order, order)], abs=1e-7)


def test_copies_are_not_whitened():
    assert whitened(np.full((6, 6), 4.0)) == pytest.approx(np.ones((6, 6)))
    assert whitened(np.zeros((6, 6))) == pytest.approx(np.zeros((6, 6)))


def test_alignment_is_the_cosine_with_the_weighted_sum_of_the_others():
    random = np.random.default_rng(3)
    units = random.standard_normal((7, 20))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    weights = random.uniform(-1, 1, 7)
    for client, value in enumerate(alignment(units @ units.T, weights)):
        others = np.delete(weights, client) @ np.delete(units, client, axis=0)
        assert value == pytest.approx(units[client] @ others / np.linalg.norm(others))


def test_nobody_is_aligned_with_nothing():
    assert alignment(np.eye(3), np.array([1.0, 0.0, 0.0])) == pytest.approx(np.zeros(3))
    assert alignment(np.eye(3), np.zeros(3)) == pytest.approx(np.zeros(3))


def test_sides_are_apart_by_the_angle_between_their_sums():
    units = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [0.0, -1.0]])
    group = np.array([False, False, True, True])
    near, far = np.array([1.6, 0.8]), np.array([-1.0, -1.0])
    expected = -(near @ far) / (np.linalg.norm(near) * np.linalg.norm(far))
    assert sides_apart(units @ units.T, group) == pytest.approx(expected)
    assert sides_apart(units @ units.T, np.zeros(4, dtype=bool)) == 0.0


def test_who_opposes_counts_against_it():
    units = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.3], [-1.0, 0.2], [-1.0, -0.2]])
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    weights = mirrored(units @ units.T, np.array([True, True, False, False, False]))
    assert weights[:2].tolist() == [1.0, 1.0]
    assert weights[2] > 0.9
    assert (weights[3:] < -0.9).all()


@pytest.mark.parametrize("test", ["both", "required_opposition"])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_reversing_only_what_is_shared_is_found(share: float, test: str, monkeypatch: pytest.MonkeyPatch):
    """By both tests together, and by mirroring alone."""
    if test != "both":
        monkeypatch.setattr(reversal, test, lambda *_, **__: np.inf)
    attackers = np.arange(N) >= N - round(share * N)
    found = [group_of(keep_and_reverse(honest_updates(seed), attackers)) for seed in range(6)]
    right = [0.0 if group is None else float((group == attackers).mean()) for group in found]
    assert np.mean(right) > 0.9


def test_without_whitening_they_lie_inside_the_honest_cloud(monkeypatch: pytest.MonkeyPatch):
    def plain(inner: np.ndarray) -> np.ndarray:
        norms = np.sqrt(np.diag(inner))
        return inner / np.outer(norms, norms)

    monkeypatch.setattr(reversal, "whitened", plain)
    attackers = np.arange(N) >= 20
    found = [group_of(keep_and_reverse(honest_updates(seed), attackers)) for seed in range(6)]
    assert sum(group is not None and (group == attackers).mean() > 0.9 for group in found) < 3


def test_flipped_signs_are_found_where_a_batch_drowns_what_is_shared():
    attackers = np.arange(N) >= 22
    found = []
    for seed in range(6):
        updates = honest_updates(seed, shared=1.2, differences=1.0, batch=2.5)
        updates[attackers] *= -1.0
        group = group_of(updates)
        found.append(0.0 if group is None else float((group == attackers).mean()))
    assert np.median(found) > 0.95


@pytest.mark.parametrize("differences", [0.0, 1.0, 2.0])
def test_honest_clients_do_not_oppose_each_other(differences: float):
    groups = [group_of(honest_updates(seed, differences=differences)) for seed in range(60)]
    lost = sum(int(group.sum()) for group in groups if group is not None)
    assert lost / (60 * (N - K)) <= 0.02


def test_halves_that_oppose_each_other_by_chance_are_rejected_less_often(monkeypatch: pytest.MonkeyPatch):
    """Where a model has converged, honest uploads have nothing in common."""

    def lost() -> int:
        groups = [group_of(honest_updates(seed, shared=0.0, differences=1.0)) for seed in range(40)]
        return sum(int(group.sum()) for group in groups if group is not None)

    checked = lost()
    monkeypatch.setattr(reversal, "_have_in_common", lambda *_: True)
    unchecked = lost()
    assert unchecked > 40  # more than one client a round
    assert checked < 0.75 * unchecked


def test_a_looser_alpha_asks_for_less():
    for required in (reversal.required_opposition, reversal.required_distance):
        for n in (10, 20, 50, 200):
            bounds = [required(alpha, n, later=False) for alpha in (0.005, 0.02, 0.1)]
            assert bounds == sorted(bounds, reverse=True)
            assert required(0.02, n, later=True) >= required(0.02, n, later=False)


def test_disagreeing_anchors_reject_nobody_by_mirroring(monkeypatch: pytest.MonkeyPatch):
    """With known-benign clients on both sides, no side is theirs."""
    monkeypatch.setattr(reversal, "required_opposition", lambda *_, **__: np.inf)
    attackers = np.arange(N) % 2 == 1  # two of the four anchors among them
    assert group_of(keep_and_reverse(honest_updates(1), attackers)) is None


def test_the_median_variance_sets_what_is_typical():
    assert whitening._TYPICAL > 1  # an isotropic round is left nearly as it is
    isotropic = np.random.default_rng(0).standard_normal((12, 4000)) + 0.5
    inner = isotropic @ isotropic.T
    norms = np.sqrt(np.diag(inner))
    assert whitened(inner) == pytest.approx(inner / np.outer(norms, norms), abs=0.03)
