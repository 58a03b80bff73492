"""The plane that EnCAgg clusters on is that of PCA, and without it distances are those of the whole space."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import PCA

from encagg_cli.filters.encagg.projection import distances, project, resolution


def deviations_of(updates: np.ndarray, origin: int = 0) -> np.ndarray:
    relative = updates - updates[origin]
    return relative @ relative.T


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [2, 3, 20, 60])
def test_the_plane_is_that_of_pca_up_to_sign_and_translation(n: int, seed: int) -> None:
    updates = np.random.default_rng(seed).normal(size=(n, 300)) * np.linspace(1, 4, 300)
    plane = project(deviations_of(updates, origin=seed % n), "pca")
    expected = PCA(n_components=2, svd_solver="full").fit_transform(updates)
    plane = plane - plane.mean(axis=0)
    signs = np.sign((plane * expected).sum(axis=0))
    np.testing.assert_allclose(plane * signs, expected, atol=1e-7)


def test_the_plane_of_some_uploads_is_their_own_pca() -> None:
    updates = np.random.default_rng(1).normal(size=(30, 200))
    updates[20:] += 50.0
    rows = np.arange(18)
    plane = project(deviations_of(updates)[np.ix_(rows, rows)], "pca")
    expected = PCA(n_components=2, svd_solver="full").fit_transform(updates[rows])
    np.testing.assert_allclose(pdist(plane), pdist(expected), rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 25])
def test_without_projection_distances_are_those_of_the_whole_space(n: int) -> None:
    updates = np.random.default_rng(n).normal(size=(n, 400))
    points = project(deviations_of(updates), "none")
    np.testing.assert_allclose(squareform(pdist(updates)), distances(points), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(points[:, :2], project(deviations_of(updates), "pca")[:, :2], atol=1e-9)


def test_equal_uploads_have_no_resolution_to_speak_of() -> None:
    assert resolution(np.zeros((6, 6)), np.ones(6, dtype=bool)) == 0.0


def test_resolution_is_far_below_ordinary_distances_and_grows_with_them() -> None:
    updates = np.random.default_rng(2).normal(size=(12, 100))
    known = np.arange(12) < 4
    own = resolution(deviations_of(updates), known)
    assert 0 < own < 1e-6 * pdist(updates).min()
    assert resolution(deviations_of(1000 * updates), known) == pytest.approx(1000 * own)


def test_one_absurd_upload_does_not_coarsen_the_resolution() -> None:
    updates = np.random.default_rng(3).normal(size=(12, 100))
    updates[11] *= 1e30
    assert resolution(deviations_of(updates), np.arange(12) < 4) < 1e-4 * pdist(updates[:11]).min()
