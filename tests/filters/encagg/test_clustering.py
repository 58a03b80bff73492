"""Density clustering is DBSCAN, checked against one written out from its definition."""

import numpy as np
import pytest

from encagg_cli.filters.encagg.clustering import NOISE, centres, density_clusters
from encagg_cli.filters.encagg.projection import distances
from encagg_cli.filters.encagg.radius import Radius


def dbscan(points: np.ndarray, epsilon: float, min_samples: int) -> list[int]:
    """DBSCAN from its definition: clusters grow from core points, in row order; border points go to the first."""
    near = [[j for j in range(len(points)) if np.linalg.norm(p - points[j]) <= epsilon] for p in points]
    labels = [-1] * len(points)
    cluster = 0
    for start in range(len(points)):
        if labels[start] != -1 or len(near[start]) < min_samples:
            continue
        queue = [start]
        while queue:
            point = queue.pop()
            if labels[point] == -1:
                labels[point] = cluster
                if len(near[point]) >= min_samples:
                    queue += near[point]
        cluster += 1
    return labels


@pytest.mark.parametrize("min_samples", [1, 3, 5])
@pytest.mark.parametrize("epsilon", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_those_of_the_definition(seed: int, epsilon: float, min_samples: int) -> None:
    random = np.random.default_rng(seed)
    points = np.vstack([random.normal(size=(30, 2)), random.normal(3.0, 0.3, size=(15, 2))])
    labels = density_clusters(distances(points), Radius(epsilon, (0, 1)), min_samples)
    assert labels.dtype == np.int32
    assert labels.tolist() == dbscan(points, epsilon, min_samples)


def test_points_exactly_one_radius_apart_are_neighbours_in_spite_of_rounding() -> None:
    # Steps of 0.1 are 0.1 + 1e-17 apart or less, by rounding; none may break the chain.
    points = np.stack([np.arange(20) * 0.1, np.zeros(20)], axis=1)
    steps = np.diff(points[:, 0])
    assert (steps > 0.1).any()
    assert set(density_clusters(distances(points), Radius(0.1, (0, 1)), 3)) == {0}


def test_a_point_counts_among_its_own_neighbours() -> None:
    pair = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert density_clusters(distances(pair), Radius(1.0, (0, 1)), 2).tolist() == [0, 0]
    assert density_clusters(distances(pair), Radius(1.0, (0, 1)), 3).tolist() == [NOISE, NOISE]


def test_with_a_radius_of_zero_equal_points_are_one_cluster() -> None:
    points = np.array([[2.0, 1.0]] * 5 + [[2.0, 1.0 + 1e-12]])
    assert density_clusters(distances(points), Radius(0.0, (0, 1)), 5).tolist() == [0] * 5 + [NOISE]


def test_a_centre_is_the_mean_of_its_cluster_and_noise_has_none() -> None:
    points = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0], [5.0, 5.0], [5.0, 7.0]])
    found = centres(points, np.array([0, 0, NOISE, 1, 1], dtype=np.int32))
    assert {label: centre.tolist() for label, centre in found.items()} == {0: [1.0, 0.0], 1: [5.0, 6.0]}
