"""The ways to group clients, against scikit-learn and brute force."""

import warnings
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MeanShift, estimate_bandwidth
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_limits

from encagg_cli.filters.grouping import (
    NOISE,
    by_size,
    gap_clusters,
    k_means,
    majority_density_cluster,
    mean_shift,
    silhouette,
    two_means,
    upper_of_two,
)

Matrix = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """scikit-learn's threads wait for each other longer than such small data take."""
    with threadpool_limits(1):
        yield


def blobs(seed: int, sizes: tuple[int, ...], apart: float = 8.0, axes: int = 2) -> Matrix:
    generator = np.random.default_rng(seed)
    centres = apart * generator.permutation(np.eye(len(sizes), axes) if len(sizes) <= axes else np.eye(len(sizes)))
    centres = centres[:, :axes] if len(sizes) <= axes else np.arange(len(sizes))[:, None] * np.full(axes, apart)
    return np.vstack([c + generator.standard_normal((n, axes)) for c, n in zip(centres, sizes, strict=True)])


def inertia(points: Matrix, members: NDArray[np.bool_]) -> float:
    return sum(float(((p - p.mean(axis=0)) ** 2).sum()) for p in (points[members], points[~members]) if len(p))


@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9))
def test_two_means_on_a_line_is_optimal(values: list[int]) -> None:
    points = np.array(values, dtype=float)
    upper = upper_of_two(points)
    if len(set(values)) == 1:
        assert not upper.any()
        return
    best = min(inertia(points, np.array(mask)) for mask in product([True, False], repeat=len(values)))
    assert inertia(points, upper) == pytest.approx(best, abs=1e-9)
    assert points[upper].min() > points[~upper].max()


@pytest.mark.parametrize("seed", range(5))
def test_two_means_from_inner_products_is_as_good_as_scikit_learns(seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((30, 6))
    theirs = KMeans(2, n_init=20, random_state=0).fit(points).inertia_
    members = two_means((points - 3.0) @ (points - 3.0).T)
    assert inertia(points, members) <= theirs * 1.02


def test_two_means_of_equal_points_has_one_cluster() -> None:
    assert not two_means(np.ones((5, 5))).any()
    assert not two_means(np.zeros((1, 1))).any()


def test_two_means_survives_a_point_1e30_away() -> None:
    points = np.random.default_rng(0).standard_normal((10, 3))
    points[4] *= 1e30
    members = two_means(points @ points.T)
    assert members.sum() in {1, 9}
    assert np.flatnonzero(members if members.sum() == 1 else ~members).tolist() == [4]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_k_means_is_as_good_as_scikit_learns(k: int) -> None:
    points = blobs(k, (10, 15, 20))
    labels = k_means(points, k)
    ours = sum(float(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum()) for c in set(labels))
    assert ours <= KMeans(k, n_init=20, random_state=0).fit(points).inertia_ * 1.02


@pytest.mark.parametrize(("sizes", "expected"), [((40,), 1), ((25, 15), 2), ((20, 20, 10), 3)])
def test_the_gap_statistic_counts_well_separated_clusters(sizes: tuple[int, ...], expected: int) -> None:
    counts = [gap_clusters(blobs(seed, sizes, apart=12.0), 9, seed=seed) for seed in range(5)]
    assert counts.count(expected) >= 4


@pytest.mark.parametrize("points", [np.zeros((6, 2)), np.zeros((1, 2)), np.array([[0.0, 0.0], [1.0, 1.0]])])
def test_the_gap_statistic_sees_one_cluster_where_there_is_nothing_to_split(points: Matrix) -> None:
    assert gap_clusters(points, 9) == 1


def test_the_gap_statistic_bears_equal_points_in_two_places() -> None:
    assert gap_clusters(np.repeat([[0.0, 1.0], [5.0, 1.0]], 10, axis=0), 9) == 2


@pytest.mark.parametrize("n", [4, 5, 20, 60])
@pytest.mark.parametrize("seed", range(3))
def test_mean_shift_is_scikit_learns(n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.random((n, 3))
    points[: n // 3] += 0.8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MeanShift(bandwidth=estimate_bandwidth(points, quantile=0.5), cluster_all=False).fit(points).labels_
    ours = mean_shift(points, 0.5)
    np.testing.assert_array_equal(ours == NOISE, theirs == -1)
    assert adjusted_rand_score(theirs, ours) == pytest.approx(1.0)


def test_mean_shift_of_equal_points() -> None:
    np.testing.assert_array_equal(mean_shift(np.ones((4, 3)), 0.5), 0)
    twice = np.repeat([[0.0], [7.0]], [3, 5], axis=0)
    np.testing.assert_array_equal(mean_shift(twice, 0.3), [1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("seed", range(4))
def test_silhouette_is_scikit_learns(seed: int) -> None:
    points = blobs(seed, (6, 3), apart=2.0 * seed)
    members = np.arange(9) < 6
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert silhouette(distances, members) == pytest.approx(silhouette_score(points, members))
    alone = np.arange(9) == 2
    assert silhouette(distances, alone) == pytest.approx(silhouette_score(points, alone))
    assert silhouette(distances, np.ones(9, dtype=bool)) == 0.0


def test_the_majority_cluster_leaves_out_a_far_minority() -> None:
    points = blobs(0, (14, 6), apart=30.0)
    labels = majority_density_cluster(np.linalg.norm(points[:, None] - points[None], axis=2))
    assert (labels[14:] == NOISE).all()
    assert (labels[:14] == 0).sum() >= 8
    for n in (1, 2):
        np.testing.assert_array_equal(majority_density_cluster(np.zeros((n, n))), 0)


def test_clusters_are_named_by_size() -> None:
    np.testing.assert_array_equal(by_size(np.array([5, 2, 2, -1, 2, 5, 0])), [1, 0, 0, -1, 0, 1, 2])
    np.testing.assert_array_equal(by_size(np.array([-1, -1])), [-1, -1])
