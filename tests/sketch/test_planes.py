"""Principal planes from the Gram matrix are those of PCA on the updates."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from encagg_cli.sketch import ArraySource, GramNeed, principal_coordinates, sketch_round


def plane_of(
    updates: NDArray[np.floating], chosen: NDArray[np.intp] | None = None, axes: int = 2
) -> NDArray[np.float64]:
    ids = [f"{row:03d}" for row in range(len(updates))]
    gram = sketch_round(ArraySource(updates, ids, np.zeros(len(updates), dtype=bool)), [GramNeed()]).gram
    deviations = gram.deviations if chosen is None else gram.deviations[np.ix_(chosen, chosen)]
    return principal_coordinates(deviations, axes)


def pca(updates: NDArray[np.floating], axes: int = 2) -> NDArray[np.float64]:
    """scikit-learn's coordinates with each axis pointing to its farthest point."""
    points: NDArray[np.float64] = PCA(axes, svd_solver="full").fit_transform(updates.astype(np.float64))
    farthest = points[np.abs(points).argmax(axis=0), np.arange(axes)]
    return points * np.sign(farthest)


def clusters(n: int = 30, d: int = 80_000, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((3, d)) * np.array([[0.1], [0.06], [0.02]])
    return (centres[rng.integers(0, 3, n)] + 0.05 * rng.standard_normal((n, d))).astype(np.float32)


def test_the_plane_is_that_of_pca_up_to_a_translation() -> None:
    updates = clusters()
    ours = plane_of(updates)
    expected = pca(updates)
    np.testing.assert_allclose(ours - ours.mean(axis=0), expected, atol=1e-5 * np.abs(expected).max())


def test_the_plane_of_a_subset_is_that_of_pca_on_the_subset() -> None:
    updates = clusters()
    chosen = np.array([0, 4, 5, 6, 11, 17, 21, 29])
    ours = plane_of(updates, chosen)
    expected = pca(updates[chosen])
    np.testing.assert_allclose(ours - ours.mean(axis=0), expected, atol=1e-5 * np.abs(expected).max())


def test_more_axes_can_be_had() -> None:
    updates = clusters()
    ours = plane_of(updates, axes=5)
    expected = pca(updates, axes=5)
    np.testing.assert_allclose(ours - ours.mean(axis=0), expected, atol=1e-4 * np.abs(expected).max())


def test_the_plane_does_not_depend_on_the_order_of_clients() -> None:
    updates = clusters(seed=3)
    order = np.random.default_rng(1).permutation(len(updates))
    straight, shuffled = plane_of(updates), plane_of(updates[order])
    straight -= straight.mean(axis=0)
    shuffled -= shuffled.mean(axis=0)
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-5 * np.abs(straight).max())


def test_one_client_of_absurd_norm_leaves_the_axis_on_which_the_others_differ() -> None:
    updates = clusters(seed=4)
    others = np.arange(len(updates)) != 9
    direction = np.random.default_rng(2).standard_normal(updates.shape[1])
    updates[9] = (1e30 * direction / np.linalg.norm(direction)).astype(np.float32)

    plane = plane_of(updates)

    # The first axis is the absurd client's; along the second, the others lie as on their own first axis, seen along
    # the absurd direction, which is all but perpendicular to them.
    dense = updates.astype(np.float64)
    direction /= np.linalg.norm(direction)
    seen = dense[others] - np.outer(dense[others] @ direction, direction)
    expected = pca(seen)[:, 0]
    second = plane[others, 1] - plane[others, 1].mean()
    assert abs(plane[9, 0]) == pytest.approx(1e30, rel=1e-5)
    assert abs(np.corrcoef(second, expected)[0, 1]) > 1 - 1e-6
    np.testing.assert_allclose(np.abs(second).max(), np.abs(expected).max(), rtol=1e-4)


def test_without_the_absurd_client_the_principal_plane_of_the_others_is_right() -> None:
    updates = clusters(seed=5)
    others = np.flatnonzero(np.arange(len(updates)) != 9)
    updates[9] *= np.float32(1e30)
    ours = plane_of(updates, others)
    expected = pca(updates[others])
    np.testing.assert_allclose(ours - ours.mean(axis=0), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_clients_have_a_plane_of_as_many_axes_as_they_span(n: int) -> None:
    updates = np.random.default_rng(0).standard_normal((n, 40)).astype(np.float32)
    plane = plane_of(updates) if n else principal_coordinates(np.zeros((0, 0)))
    assert plane.shape == (n, 2)
    assert not plane[:, 1].any()


def test_equal_updates_fall_on_one_point() -> None:
    updates = clusters(seed=6)
    updates[[4, 8]] = updates[1]
    plane = plane_of(updates)
    scale = np.abs(plane).max()
    assert np.abs(plane[[4, 8]] - plane[1]).max() < 1e-9 * scale
