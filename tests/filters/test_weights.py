"""Rules that weigh uploads, against their formulas written out."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from encagg_cli.filters import Decision, get
from encagg_cli.filters.passes import aggregate_pieces
from encagg_cli.sketch import ArraySource

Matrix = NDArray[np.float64]


def updates_of(seed: int, n: int = 12, d: int = 30) -> Matrix:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(d) + generator.standard_normal((n, d))).astype(np.float32).astype(np.float64)


def test_mean() -> None:
    decision = get("mean").decide(updates_of(0))
    assert decision.weight is not None
    np.testing.assert_array_equal(decision.weight, np.full(12, 1 / 12))
    assert decision.accepted.all()


@pytest.mark.parametrize("seed", range(3))
def test_fltrust(seed: int) -> None:
    updates = updates_of(seed)
    updates[:4] *= -3
    root = np.random.default_rng(100 + seed).standard_normal(30) + updates[5:].mean(axis=0)
    cosines = updates @ root / np.linalg.norm(updates, axis=1) / np.linalg.norm(root)
    trust = np.maximum(cosines, 0)
    rescaled = updates * (np.linalg.norm(root) / np.linalg.norm(updates, axis=1))[:, None]
    decision = get("fltrust").decide(updates, vectors={"root_gradient": root})
    np.testing.assert_array_equal(decision.accepted, cosines > 0)
    np.testing.assert_allclose(decision.score, 1 - cosines, atol=1e-6)
    assert decision.weight is not None
    np.testing.assert_allclose(decision.weight @ updates, trust @ rescaled / trust.sum(), rtol=1e-5)


@pytest.mark.parametrize("root", [None, np.zeros(30), np.full(30, np.nan)])
def test_fltrust_without_a_usable_root_gradient_tells_nothing(
    root: Matrix | None, judge_stored: Callable[..., Decision]
) -> None:
    decision = judge_stored(get("fltrust"), updates_of(0), vectors={} if root is None else {"root_gradient": root})
    assert not decision.accepted.any()
    assert set(decision.reason) == {"no-reference"}


def test_fltrust_bears_a_huge_root_gradient() -> None:
    updates = updates_of(0)
    plain = get("fltrust").decide(updates, vectors={"root_gradient": updates[3]})
    huge = get("fltrust").decide(updates, vectors={"root_gradient": updates[3].astype(np.float32) * np.float32(1e37)})
    np.testing.assert_allclose(plain.score, huge.score, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_cosine_to_the_known_benign_leaves_each_of_them_out_of_its_own_reference(seed: int) -> None:
    updates = updates_of(seed)
    known = [2, 5, 7]
    expected = np.empty(12)
    for row in range(12):
        reference = updates[[k for k in known if k != row]].mean(axis=0)
        expected[row] = updates[row] @ reference / np.linalg.norm(updates[row]) / np.linalg.norm(reference)
    decision = get("cosine-to-known-benign").decide(updates, trusted=known)
    np.testing.assert_allclose(decision.score, 1 - expected, atol=1e-5)


def test_norm_bound() -> None:
    updates = updates_of(1)
    updates[3] *= 20
    norms = np.linalg.norm(updates, axis=1)
    for text, bound in (("norm-bound(bound=3.0)", 3.0), ("norm-bound", float(np.median(norms)))):
        decision = get(text).decide(updates)
        assert decision.weight is not None
        assert decision.statistic is not None
        expected = np.mean([g / max(1, np.linalg.norm(g) / bound) for g in updates], axis=0)
        np.testing.assert_allclose(decision.weight @ updates, expected, rtol=1e-6)
        np.testing.assert_allclose(decision.statistic, norms / bound, rtol=1e-6)
        assert decision.accepted.all()
    rejecting = get("norm-bound(reject_above=4.0)").decide(updates)
    np.testing.assert_array_equal(~rejecting.accepted, np.arange(12) == 3)


def test_weak_differential_privacy_adds_seeded_noise_to_the_aggregate() -> None:
    updates = np.zeros((4, 70_000))
    chosen = get("norm-bound(noise=0.025)")
    source = ArraySource(updates, tuple("abcd"), np.zeros(4, dtype=bool))
    decision = chosen.decide(updates, clients="abcd")
    first, again, other = (
        np.concatenate(list(aggregate_pieces(chosen, decision, source, seed=seed))) for seed in (1, 1, 2)
    )
    assert first.std() == pytest.approx(0.025, rel=0.02)
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.02
    assert len(np.unique(first)) == len(first)


@pytest.mark.parametrize("seed", range(3))
def test_rfa_is_the_geometric_median(seed: int) -> None:
    """Found independently by minimising the sum of distances."""
    updates = updates_of(seed, d=6)
    updates[:4] += 8
    decision = get("rfa").decide(updates)
    assert decision.weight is not None
    assert decision.statistic is not None
    assert decision.weight.sum() == pytest.approx(1)
    found = minimize(lambda v: np.linalg.norm(updates - v, axis=1).sum(), updates.mean(axis=0), method="BFGS").x
    np.testing.assert_allclose(decision.weight @ updates, found, atol=1e-3)
    np.testing.assert_allclose(decision.statistic, np.linalg.norm(updates - found, axis=1), atol=1e-3)
    np.testing.assert_array_equal(~decision.accepted, np.arange(12) < 4)


def test_rfa_follows_weiszfeld_step_by_step_from_the_weighted_mean() -> None:
    updates = updates_of(0)
    examples = np.arange(1, 13)
    prior = examples / examples.sum()
    v = prior @ updates
    for _ in range(3):
        weight = prior / np.maximum(1e-9, np.linalg.norm(updates - v, axis=1))
        weight /= weight.sum()
        v = weight @ updates
    decision = get("rfa(iterations=3,by_examples=true)").decide(updates, num_examples=list(examples))
    assert decision.weight is not None
    np.testing.assert_allclose(decision.weight, weight, rtol=1e-5)


def test_rfa_converges_with_an_upload_1e30_times_larger() -> None:
    updates = updates_of(0)
    clean = get("rfa").decide(np.delete(updates, 4, axis=0))
    huge = updates.copy()
    huge[4] *= 1e30
    decision = get("rfa").decide(huge)
    assert decision.weight is not None
    assert clean.weight is not None
    np.testing.assert_array_equal(~decision.accepted, np.arange(12) == 4)
    aggregate = decision.weight @ huge
    assert np.linalg.norm(aggregate - clean.weight @ np.delete(updates, 4, axis=0)) < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_crh_truth_discovery(seed: int) -> None:
    updates = updates_of(seed)
    updates[:4] += 8
    weight = np.ones(12)
    for _ in range(100):
        truth = weight @ updates / weight.sum()
        squares = ((updates - truth) ** 2).sum(axis=1)
        weight = -np.log(squares / squares.sum())
    decision = get("crh-truth-discovery").decide(updates)
    assert decision.weight is not None
    np.testing.assert_allclose(decision.weight, weight / weight.sum(), rtol=1e-4)
