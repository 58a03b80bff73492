"""Median, trimmed mean and LASA against dense references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata, trim_mean

from encagg_cli.errors import UsageError
from encagg_cli.filters import Filter, get
from encagg_cli.filters.passes import aggregate_pieces
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch import ArraySource

Matrix = NDArray[np.float64]


def updates_of(seed: int, n: int, d: int, *, ties: bool = False) -> Matrix:
    values = np.random.default_rng(seed).standard_normal((n, d))
    return np.round(values) if ties else values.astype(np.float32).astype(np.float64)


def aggregate(chosen: Filter, updates: Matrix, layout: tuple[Parameter, ...] | None = None) -> Matrix:
    clients = tuple(f"{row:03d}" for row in range(len(updates)))
    source = ArraySource(updates, clients, np.zeros(len(updates), dtype=bool), layout=layout)
    decision = chosen.decide(updates, clients=clients, parameters=layout)
    return np.concatenate(list(aggregate_pieces(chosen, decision, source)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_median(n: int, ties: bool) -> None:
    updates = updates_of(n, n, 300, ties=ties)
    np.testing.assert_allclose(aggregate(get("median"), updates), np.median(updates, axis=0), rtol=1e-12)
    ranks = rankdata(updates, axis=0) - 1  # ties share their mean rank
    distance = np.abs(ranks - (n - 1) / 2).mean(axis=1) / ((n - 1) / 2 if n > 1 else 1)
    decision = get("median").decide(updates)
    assert decision.statistic is not None
    np.testing.assert_allclose(decision.statistic, distance, rtol=1e-12, atol=1e-15)
    assert decision.accepted.all()
    assert decision.threshold is None


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.25, 0.49])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_trimmed_mean(n: int, beta: float) -> None:
    updates = updates_of(n, n, 300)
    chosen = get("trimmed-mean", beta=beta)
    np.testing.assert_allclose(aggregate(chosen, updates), trim_mean(updates, beta, axis=0), rtol=1e-12)
    k = int(beta * n)
    ranks = rankdata(updates, axis=0, method="ordinal") - 1
    decision = chosen.decide(updates)
    assert decision.statistic is not None
    np.testing.assert_allclose(decision.statistic, ((ranks < k) | (ranks >= n - k)).mean(axis=1), rtol=1e-12)


def test_trimmed_mean_is_told_f_instead_of_beta() -> None:
    updates = updates_of(0, 11, 50)
    np.testing.assert_allclose(
        aggregate(get("trimmed-mean(f=3)"), updates), np.sort(updates, axis=0)[3:-3].mean(axis=0), rtol=1e-12
    )
    with pytest.raises(UsageError, match="would drop 6 values on each side, and there are 11"):
        get("trimmed-mean(f=6)").decide(updates)


def test_equal_values_share_the_places_of_the_trimmed() -> None:
    """Three of four clients share the lowest value of one column: each is trimmed a third of the time."""
    updates = np.array([[0.0], [0.0], [0.0], [5.0]])
    decision = get("trimmed-mean(beta=0.25)").decide(updates)
    assert decision.statistic is not None
    np.testing.assert_allclose(decision.statistic, [1 / 3, 1 / 3, 1 / 3, 1.0])


@settings(deadline=None)  # a loaded machine is no failure
@given(st.integers(0, 1000), st.integers(2, 9), st.sampled_from(["median", "trimmed-mean(beta=0.3)"]))
def test_ranks_ignore_increasing_maps_and_signed_zeros(seed: int, n: int, text: str) -> None:
    updates = updates_of(seed, n, 40, ties=True)
    signed = np.where(updates == 0, -0.0, updates)
    signed[::2] = np.where(updates[::2] == 0, 0.0, updates[::2])
    first, second = get(text).decide(updates), get(text).decide(signed**3 * 10)
    assert first.statistic is not None
    assert second.statistic is not None
    np.testing.assert_allclose(first.statistic, second.statistic)


def test_ranks_hold_across_scales_that_float32_sums_would_lose() -> None:
    """A client 1e30 times larger is always at an end, and the order of the others is what it was."""
    updates = updates_of(3, 9, 200)
    huge = updates.copy()
    huge[4] *= 1e30
    without = np.delete(np.arange(9), 4)
    small = get("median").decide(updates[without]).statistic
    decision = get("median").decide(huge)
    assert decision.statistic is not None
    assert decision.statistic[4] == 1.0
    assert small is not None
    np.testing.assert_array_equal(np.argsort(decision.statistic[without])[-1], np.argsort(small)[-1])


def test_a_limit_makes_a_verdict() -> None:
    updates = updates_of(0, 9, 200)
    updates[4] += 50
    decision = get("median(reject_above=0.9)").decide(updates)
    np.testing.assert_array_equal(~decision.accepted, np.arange(9) == 4)
    assert decision.reason[4] == "far-from-middle"
    np.testing.assert_allclose(
        aggregate(get("median(reject_above=0.9)"), updates), np.median(np.delete(updates, 4, axis=0), axis=0)
    )
    trimmed = get("trimmed-mean(reject_above=0.9)").decide(np.vstack([updates, updates_of(1, 3, 200)]))
    np.testing.assert_array_equal(~trimmed.accepted, np.arange(12) == 4)


LAYERS = (Parameter("a", (30, 4), 0), Parameter("b", (30,), 120), Parameter("c", (50,), 150))


def dense_lasa(updates: Matrix, sparsity: float, lambda_n: float, lambda_s: float) -> tuple[Matrix, Matrix]:
    """Share of tensors in which each client does not survive, and the aggregate."""
    norms = np.linalg.norm(updates, axis=1)
    clipped = updates * np.minimum(1, np.median(norms) / norms)[:, None]
    kept = round((1 - sparsity) * updates.shape[1])
    sparse = np.zeros_like(clipped)
    for row, update in enumerate(clipped):
        largest = np.argsort(-np.abs(update), kind="stable")[:kept]
        sparse[row, largest] = update[largest]
    failed = np.zeros(len(updates))
    aggregate = np.empty(updates.shape[1])
    for tensor in LAYERS:
        here = slice(tensor.offset, tensor.offset + tensor.size)
        signs = np.sign(sparse[:, here])
        figures = [
            (np.linalg.norm(sparse[:, here], axis=1), lambda_n),
            (0.5 * (1 + signs.sum(axis=1) / np.abs(signs).sum(axis=1)), lambda_s),
        ]
        good = np.all([np.abs(x - np.median(x)) / x.std() < limit for x, limit in figures], axis=0)
        failed += ~good
        aggregate[here] = clipped[good if good.any() else slice(None), here].mean(axis=0)
    return failed / len(LAYERS), aggregate


@pytest.mark.parametrize("seed", range(5))
def test_lasa(seed: int) -> None:
    updates = updates_of(seed, 12, 200) + 0.2
    updates[:3] *= 4
    share, expected = dense_lasa(updates, 0.3, 1.5, 1.0)
    chosen = get("lasa(lambda_n=1.5)")
    decision = chosen.decide(updates, parameters=LAYERS)
    assert decision.statistic is not None
    np.testing.assert_allclose(decision.statistic, share)
    np.testing.assert_allclose(aggregate(chosen, updates, LAYERS), expected, rtol=1e-5, atol=1e-7)


def test_lasa_averages_all_where_nobody_survives_in_a_tensor() -> None:
    updates = updates_of(2, 6, 200)
    none_survive = get("lasa(lambda_n=1e-9)")
    norms = np.linalg.norm(updates, axis=1)
    clipped = updates * np.minimum(1, np.median(norms) / norms)[:, None]
    np.testing.assert_allclose(aggregate(none_survive, updates, LAYERS), clipped.mean(axis=0), rtol=1e-5)
    assert get("lasa(lambda_n=1e-9,reject_above=0.9)").decide(updates, parameters=LAYERS).reason[0] == "unusual-tensors"
