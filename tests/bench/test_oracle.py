"""Scores that are told who is honest, the best that a threshold on them can do, and the harm of an aggregate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, roc_auc_score

from encagg_cli.bench.oracle import best_counts, harm, oracle_scores, ordered_pairs
from encagg_cli.sketch import ArraySource, GramNeed, sketch_round


def gram_of(updates: np.ndarray):
    ids = [f"{row:03d}" for row in range(len(updates))]
    return sketch_round(ArraySource(updates, ids, np.zeros(len(updates), dtype=bool)), [GramNeed()]).gram


def test_oracle_scores_compare_every_upload_with_the_other_honest_ones() -> None:
    rng = np.random.default_rng(0)
    updates = rng.normal(size=(9, 40)) + 1.0
    updates[:3] *= -1.0
    poisoned = np.arange(9) < 3
    scores = oracle_scores(gram_of(updates), poisoned).scores
    for client in range(9):
        others = updates[[row for row in range(3, 9) if row != client]].mean(axis=0)
        cosine = updates[client] @ others / np.linalg.norm(updates[client]) / np.linalg.norm(others)
        assert scores["cosine"][client] == pytest.approx(1 - cosine, abs=1e-5)
        assert scores["distance"][client] == pytest.approx(np.linalg.norm(updates[client] - others), rel=1e-4)
    assert scores["cosine"][:3].min() > scores["cosine"][3:].max()


@given(
    score=arrays(np.float64, 8, elements=st.integers(0, 4).map(float)),
    poisoned=arrays(np.bool_, 8).filter(lambda labels: 0 < labels.sum() < 8),
)
def test_pairs_are_those_of_the_area_under_the_curve(score: np.ndarray, poisoned: np.ndarray) -> None:
    wins, pairs = ordered_pairs(score, poisoned)
    assert wins / pairs == pytest.approx(roc_auc_score(poisoned, score))


@given(
    score=arrays(np.float64, 7, elements=st.integers(0, 4).map(float)),
    poisoned=arrays(np.bool_, 7).filter(lambda labels: labels.any()),
)
def test_the_best_threshold_is_the_best_of_all_thresholds(score: np.ndarray, poisoned: np.ndarray) -> None:
    tp, fp, tn, fn = best_counts(score, poisoned)
    assert (tp + fn, fp + tn) == (poisoned.sum(), (~poisoned).sum())
    tried = max(f1_score(poisoned, score >= threshold) for threshold in np.unique(score))
    assert 2 * tp / (2 * tp + fp + fn) == pytest.approx(tried)


def test_nothing_is_rejected_where_nothing_is_poisoned() -> None:
    assert best_counts(np.array([3.0, 1.0]), np.array([False, False])) == (0, 0, 2, 0)


def test_harm_is_distance_and_angle_from_the_honest_mean() -> None:
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(6, 30)) + 0.5
    poisoned = np.arange(6) < 2
    gram = gram_of(updates)
    mean = updates[2:].mean(axis=0)
    for weight in (np.full(6, 1 / 6), np.array([0.5, 0.5, 0, 0, 0, 0]), np.array([0.1, 0, 0, 0, 0.2, 0])):
        aggregate = weight @ updates
        distance, angle = harm(gram, weight, poisoned)
        assert distance == pytest.approx(np.linalg.norm(aggregate - mean) / np.linalg.norm(mean), rel=1e-4)
        cosine = aggregate @ mean / np.linalg.norm(aggregate) / np.linalg.norm(mean)
        assert angle == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-2)
    assert harm(gram, (~poisoned) / 4, poisoned) == pytest.approx((0.0, 0.0), abs=1e-5)
    assert np.isnan(harm(gram, np.zeros(6), poisoned)).all()
