"""The Gram matrix that is streamed in float32 agrees with a dense one in float64."""

import numpy as np
import pytest
from numpy.typing import NDArray

from encagg_cli.sketch import ArraySource, Gram, GramNeed, sketch_round

N, D = 23, 150_001  # three blocks, the last one short


def streamed(updates: NDArray[np.floating], trusted: NDArray[np.bool_] | None = None) -> Gram:
    ids = [f"client-{row:03d}" for row in range(len(updates))]
    flags = np.zeros(len(updates), dtype=bool) if trusted is None else trusted
    return sketch_round(ArraySource(updates, ids, flags), [GramNeed()]).gram


@pytest.fixture(scope="module")
def updates() -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    shared = rng.standard_normal(D)
    return (shared + rng.uniform(0.2, 3.0, (N, 1)) * rng.standard_normal((N, D))).astype(np.float32)


@pytest.fixture(scope="module")
def dense(updates: NDArray[np.float32]) -> NDArray[np.float64]:
    return updates.astype(np.float64)


@pytest.fixture(scope="module")
def gram(updates: NDArray[np.float32]) -> Gram:
    return streamed(updates)


def test_inner_products_are_those_of_the_dense_matrix(gram: Gram, dense: NDArray[np.float64]) -> None:
    norms = np.linalg.norm(dense, axis=1)
    assert np.abs(gram.inner - dense @ dense.T).max() < 1e-6 * norms.max() ** 2
    np.testing.assert_allclose(gram.norms, norms, rtol=1e-12)


def test_squared_distances_are_those_of_the_dense_matrix(gram: Gram, dense: NDArray[np.float64]) -> None:
    expected = ((dense[:, None] - dense[None, :]) ** 2).sum(axis=2)
    np.testing.assert_allclose(gram.squared_distances, expected, rtol=2e-6)
    np.testing.assert_allclose(gram.distances, np.sqrt(expected), rtol=1e-6)


def test_cosines_are_those_of_the_dense_matrix(gram: Gram, dense: NDArray[np.float64]) -> None:
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    np.testing.assert_allclose(gram.cosines, unit @ unit.T, atol=1e-6)


def test_a_subset_is_centred_on_its_own_mean(gram: Gram, dense: NDArray[np.float64]) -> None:
    chosen = np.array([3, 5, 11, 20])
    centred = dense[chosen] - dense[chosen].mean(axis=0)
    np.testing.assert_allclose(gram.subset(chosen), centred @ centred.T, rtol=2e-6, atol=1e-6 * D)


def test_distances_to_a_weighted_mean(gram: Gram, dense: NDArray[np.float64]) -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(N))
    expected = ((dense - weights @ dense) ** 2).sum(axis=1)
    np.testing.assert_allclose(gram.squared_distances_to(weights), expected, rtol=2e-6)


def test_cosines_to_a_weighted_sum(gram: Gram, dense: NDArray[np.float64]) -> None:
    weights = np.random.default_rng(2).uniform(0, 1, N)
    target = weights @ dense
    expected = dense @ target / np.linalg.norm(dense, axis=1) / np.linalg.norm(target)
    np.testing.assert_allclose(gram.cosines_to(weights), expected, atol=1e-6)


def test_an_all_zero_update_has_cosine_zero_with_everything() -> None:
    updates = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    updates[2] = 0
    cosines = streamed(updates).cosines
    assert not cosines[2].any()
    assert not cosines[:, 2].any()
    assert cosines[0, 0] == 1


def test_equal_updates_are_at_distance_zero_from_each_other() -> None:
    updates = np.random.default_rng(3).standard_normal((41, 70_000)).astype(np.float32)
    updates[[5, 17, 40]] = updates[2]
    updates[30] = updates[31]
    gram = streamed(updates)
    group = np.ix_([2, 5, 17, 40], [2, 5, 17, 40])
    assert not gram.distances[group].any()
    assert gram.distances[30, 31] == 0
    np.testing.assert_array_equal(gram.inner[5, [0, 1, 3]], gram.inner[2, [0, 1, 3]])
    others = gram.distances[~np.eye(41, dtype=bool)].reshape(41, 40)
    assert (
        np.count_nonzero(others == 0, axis=1)
        == np.isin(np.arange(41), [2, 5, 17, 40]) * 3 + np.isin(np.arange(41), [30, 31])
    ).all()


def test_updates_that_are_equal_in_some_columns_only_are_told_apart() -> None:
    updates = np.random.default_rng(4).standard_normal((6, 140_000)).astype(np.float32)
    updates[4, :100_000] = updates[1, :100_000]
    expected = np.linalg.norm(updates[4].astype(float) - updates[1].astype(float))
    assert streamed(updates).distances[1, 4] == pytest.approx(expected, rel=1e-6)


def test_raw_weights_that_differ_by_little_keep_their_differences() -> None:
    """Weights of norm 1000 and deltas of 1e-4 a coordinate: a plain float32 Gram matrix ranks the attacker first."""
    rng = np.random.default_rng(5)
    d, n = 200_000, 20
    weights = rng.standard_normal(d)
    weights *= 1000 / np.linalg.norm(weights)
    direction = rng.standard_normal(d)
    deltas = 1e-4 * (0.5 * direction + rng.standard_normal((n, d)))
    deltas[7] = -1.5 * deltas[7]
    updates = (weights + deltas).astype(np.float32)
    dense = updates.astype(np.float64)
    expected = ((dense[:, None] - dense[None, :]) ** 2).sum(axis=2)

    gram = streamed(updates)

    np.testing.assert_allclose(gram.squared_distances, expected, rtol=1e-5)
    medians = np.median(gram.squared_distances, axis=1)
    assert medians.argmax() == 7
    np.testing.assert_array_equal(np.argsort(medians), np.argsort(np.median(expected, axis=1)))
    naive = updates @ updates.T
    squares = np.diag(naive)
    naive_distances = squares[:, None] + squares[None, :] - 2 * naive
    assert np.abs(naive_distances - expected).max() > expected.max()  # the case is as hard as it claims to be


def test_one_client_of_absurd_norm_does_not_blur_the_others() -> None:
    rng = np.random.default_rng(6)
    updates = rng.standard_normal((12, 90_000)).astype(np.float32)
    direction = rng.standard_normal(90_000)
    updates[9] = (1e30 * direction / np.linalg.norm(direction)).astype(np.float32)
    others = np.arange(12) != 9
    dense = updates[others].astype(np.float64)
    expected = np.sqrt(((dense[:, None] - dense[None, :]) ** 2).sum(axis=2))

    gram = streamed(updates)

    np.testing.assert_allclose(gram.distances[np.ix_(others, others)], expected, rtol=1e-6)
    np.testing.assert_allclose(gram.distances[9, others], 1e30, rtol=1e-5)
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    np.testing.assert_allclose(gram.cosines[np.ix_(others, others)], unit @ unit.T, atol=1e-6)
    huge = updates[9].astype(np.float64)
    np.testing.assert_allclose(gram.cosines[9, others], unit @ huge / np.linalg.norm(huge), atol=1e-6)


@pytest.mark.parametrize("size", [1e-37, 1e-20, 1e-3, 1e20, 1e36])
def test_rounds_of_any_size_keep_their_precision(size: float) -> None:
    updates = (size * np.random.default_rng(8).standard_normal((9, 1000))).astype(np.float32)
    dense = updates.astype(np.float64)
    expected = ((dense[:, None] - dense[None, :]) ** 2).sum(axis=2)
    np.testing.assert_allclose(streamed(updates).squared_distances, expected, rtol=1e-5)


def test_columns_are_centred_on_a_known_benign_client_where_there_is_one() -> None:
    updates = np.random.default_rng(9).standard_normal((10, 100)).astype(np.float32)
    trusted = np.zeros(10, dtype=bool)
    trusted[[3, 8]] = True
    assert streamed(updates, trusted).reference in (3, 8)
