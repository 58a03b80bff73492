"""The same aggregates as ByzFL and Flower make, where their definitions are ours; skipped where they are not installed.

Where definitions differ, the test says how, and brings them together:

- ByzFL's Krum and Multi-Krum add up the `n - f - 1` nearest squared distances, one more than the paper's `n - f - 2`:
  theirs told `f` scores as ours told `f - 1`.
- ByzFL's geometric median begins at zero, takes 3 steps and has an absolute `ν` of 0.1; both are run to convergence.
- ByzFL's centred clipping keeps its last aggregate whole, ours a projection of it: equal up to rounding for updates of
  no more parameters than the projection has numbers.
- ByzFL's median of torch tensors is the lower of two middle values; of numpy arrays it is ours.
- Flower's trimmed mean is told a share, as ours is.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encagg_cli.filters import get
from encagg_cli.filters.krum import krum_scores
from encagg_cli.filters.passes import aggregate_pieces
from encagg_cli.sketch import ArraySource

Matrix = NDArray[np.float64]

SEEDS = range(4)


def updates_of(seed: int, n: int = 15, d: int = 40) -> Matrix:
    generator = np.random.default_rng(seed)
    updates = generator.standard_normal(d) + 0.5 * generator.standard_normal((n, d))
    updates[:3] += 2 * generator.standard_normal((3, d))
    return updates.astype(np.float32).astype(np.float64)


def clients(updates: Matrix) -> list[str]:
    return [f"{row:03d}" for row in range(len(updates))]


def ours(text: str, updates: Matrix) -> Matrix:
    chosen = get(text)
    source = ArraySource(updates, clients(updates), np.zeros(len(updates), dtype=bool))
    decision = chosen.decide(updates, clients=clients(updates))
    return np.concatenate(list(aggregate_pieces(chosen, decision, source)))


@pytest.fixture
def byzfl() -> Any:
    return pytest.importorskip("byzfl", exc_type=ImportError)


@pytest.fixture
def flower() -> Any:
    return pytest.importorskip("flwr.server.strategy.aggregate", exc_type=ImportError)


@pytest.mark.parametrize("seed", SEEDS)
def test_byzfl_mean_median_and_trimmed_mean(byzfl: Any, seed: int) -> None:
    updates = updates_of(seed)
    np.testing.assert_allclose(ours("mean", updates), byzfl.Average()(updates), rtol=1e-9)
    np.testing.assert_allclose(ours("median", updates), byzfl.Median()(updates), rtol=1e-9)
    np.testing.assert_allclose(ours("trimmed-mean(f=4)", updates), byzfl.TrMean(f=4)(updates), rtol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_byzfl_krum_and_multi_krum(byzfl: Any, seed: int) -> None:
    updates = updates_of(seed)
    np.testing.assert_allclose(ours("krum(f=3)", updates), byzfl.Krum(f=4)(updates), rtol=1e-6)
    squares = ((updates[:, None] - updates[None]) ** 2).sum(axis=2)
    kept = np.argsort(krum_scores(squares, 3))[:11]
    np.testing.assert_allclose(updates[kept].mean(axis=0), byzfl.MultiKrum(f=4)(updates), rtol=1e-9)
    np.testing.assert_allclose(ours("multi-krum(f=3,m=11)", updates), byzfl.MultiKrum(f=4)(updates), rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_byzfl_geometric_median(byzfl: Any, seed: int) -> None:
    updates = updates_of(seed)
    theirs = byzfl.GeometricMedian(nu=1e-9, T=300)(updates)
    np.testing.assert_allclose(ours("rfa", updates), theirs, atol=1e-4)


def test_byzfl_centred_clipping_over_rounds(byzfl: Any) -> None:
    theirs, chosen = byzfl.CenteredClipping(tau=3.0), get("centred-clipping(tau=3.0)")
    last = np.zeros(40)
    for seed in SEEDS:
        updates = updates_of(seed)
        decision = chosen.decide(updates, clients=clients(updates))
        assert decision.weight is not None
        last = decision.weight @ updates + decision.prior_weight * last
        np.testing.assert_allclose(last, theirs(updates), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_flower_krum_multi_krum_and_bulyan(flower: Any, seed: int) -> None:
    updates = updates_of(seed)
    results = [([update], 1) for update in updates]
    np.testing.assert_allclose(ours("krum(f=3)", updates), flower.aggregate_krum(results, 3, 0)[0], rtol=1e-6)
    np.testing.assert_allclose(ours("multi-krum(f=3)", updates), flower.aggregate_krum(results, 3, 12)[0], rtol=1e-6)
    bulyan = flower.aggregate_bulyan(results, 3, flower.aggregate_krum, to_keep=0)[0]
    np.testing.assert_allclose(ours("bulyan(f=3)", updates), bulyan, rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_flower_median_and_trimmed_mean(flower: Any, seed: int) -> None:
    updates = updates_of(seed)
    results = [([update], 1) for update in updates]
    np.testing.assert_allclose(ours("median", updates), flower.aggregate_median(results)[0], rtol=1e-9)
    trimmed = flower.aggregate_trimmed_avg(results, 0.2)[0]
    np.testing.assert_allclose(ours("trimmed-mean(beta=0.2)", updates), trimmed, rtol=1e-9)
