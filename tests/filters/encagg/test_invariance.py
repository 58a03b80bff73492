"""Client order, and scale and rotation of all updates, leave EnCAgg's verdicts as they are, generator included.

Real gradients: softmax regression on scikit-learn's digits, Dirichlet shares of the classes, some of them poisoned. The
updates are float32, so distances move in their sixth digit; rounds in which a distance comes that close to a bound it
is compared with, or an axis to having no clear sign, are set aside.
"""

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.datasets import load_digits

from encagg_cli import filters
from encagg_cli.filters import Decision

N, KNOWN, ROUNDS, PARAMETERS = 24, 5, 3, 650
ROUNDING = 1e-5  # of the plane's extent: the most that float32 has been seen to move a distance here
IDS = [f"client-{row:02d}" for row in range(N)]
TRUSTED = IDS[:KNOWN]


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    pixels, classes = load_digits(return_X_y=True)
    return np.hstack([pixels / 16.0, np.ones((len(pixels), 1))]), classes


@cache
def rotation() -> np.ndarray:
    return ortho_group.rvs(PARAMETERS, random_state=0)


def gradients(seed: int) -> list[np.ndarray]:
    """Honest and poisoned gradients, (ROUNDS, N, PARAMETERS), of one training; the first clients are honest."""
    random = np.random.default_rng(seed)
    pixels, classes = digits()
    shares = random.dirichlet([0.7] * 10, size=N)
    weights = random.normal(size=(65, 10)) * 0.1
    rounds = []
    for _ in range(ROUNDS):
        updates = np.empty((N, PARAMETERS))
        for client in range(N):
            likelihood = shares[client][classes]
            batch = random.choice(len(pixels), 40, p=likelihood / likelihood.sum())
            logits = pixels[batch] @ weights
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            odds /= odds.sum(axis=1, keepdims=True)
            odds[np.arange(40), classes[batch]] -= 1
            updates[client] = (pixels[batch].T @ odds / 40).ravel()
        weights -= 0.5 * updates.mean(axis=0).reshape(65, 10)
        poisoned = int(random.integers(0, 13))
        if poisoned:
            honest = updates[: N - poisoned]
            attack = random.integers(3)
            if attack == 0:
                updates[N - poisoned :] *= -random.uniform(1, 3)
            elif attack == 1:
                updates[N - poisoned :] = honest.mean(axis=0) - 1.5 * honest.std(axis=0)
            else:
                updates[N - poisoned :] += random.normal(size=PARAMETERS) * honest.std()
        rounds.append(updates)
    return rounds


def is_clear(decision: Decision, gamma: float = 3.0) -> bool:
    """No distance is nearly a bound, except that of the roots, which is ε itself; no axis is nearly without a sign."""
    epsilon = float(decision.trace["radius"])
    second, pseudo = decision.trace["second_plane"], decision.trace["pseudo"]
    order = {client: row for row, client in enumerate(decision.clients)}
    retained = np.array([order[client] for client in decision.trace["second_clients"]])
    known = np.isin(decision.clients, TRUSTED)
    roots = [order[client] for client in decision.trace["roots"]]
    for points, others, rows in (
        (decision.plane, decision.plane, np.arange(N)),
        (second, np.vstack([second, pseudo]), retained),
    ):
        centred = points - points.mean(axis=0)
        low, high = -centred.min(axis=0), centred.max(axis=0)
        pairs = cdist(points, others)
        pairs[np.ix_(np.isin(rows, roots), np.flatnonzero(np.isin(rows, roots)))] = 0.0
        to_known = pairs[:, : len(points)][:, known[rows]]
        nearest = min(np.abs(pairs - epsilon).min(), np.abs(to_known - gamma * epsilon).min())
        if nearest < ROUNDING * np.abs(centred).max() or (np.abs(high - low) < 1e-3 * np.maximum(high, low)).any():
            return False
    return True


def outcome(decision: Decision) -> list[tuple[str, bool, str, int]]:
    clusters = decision.cluster if decision.cluster is not None else []
    return list(zip(decision.clients, decision.accepted.tolist(), decision.reason, map(int, clusters), strict=True))


def replay(rounds: list[np.ndarray], order: np.ndarray | None = None) -> list[Decision]:
    method = filters.get("encagg")
    rows = np.arange(N) if order is None else order
    ids = [IDS[row] for row in rows]
    decisions = [method.decide(updates[rows], clients=ids, trusted=TRUSTED) for updates in rounds]
    return [decision.in_order(IDS) for decision in decisions]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(N)))
def test_client_order_changes_no_bit_of_the_outcome(seed: int, order: list[int]) -> None:
    rounds = gradients(seed)
    for one, other in zip(replay(rounds), replay(rounds, np.array(order)), strict=True):
        assert outcome(one) == outcome(other)
        assert np.array_equal(one.score, other.score)
        assert np.array_equal(one.trace["pseudo"], other.trace["pseudo"])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), exponent=st.floats(-8, 8))
def test_scaling_all_updates_changes_no_verdict(seed: int, exponent: float) -> None:
    rounds = gradients(seed)
    decisions = replay(rounds)
    assume(all(map(is_clear, decisions)))
    scaled = replay([updates * 10.0**exponent for updates in rounds])
    for one, other in zip(decisions, scaled, strict=True):
        assert outcome(one) == outcome(other)
        np.testing.assert_allclose(other.score, one.score, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(other.trace["losses"], one.trace["losses"], rtol=1e-3)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_turning_all_updates_changes_no_verdict(seed: int) -> None:
    rounds = gradients(seed)
    decisions = replay(rounds)
    assume(all(map(is_clear, decisions)))
    turned = replay([updates @ rotation() for updates in rounds])
    for one, other in zip(decisions, turned, strict=True):
        assert outcome(one) == outcome(other)
        np.testing.assert_allclose(other.score, one.score, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(other.plane, one.plane, atol=1e-3 * np.abs(one.plane).max())


def test_the_rounds_compared_here_are_of_every_kind() -> None:
    decisions = [decision for seed in range(60) for decision in replay(gradients(seed))]
    reasons = {reason for decision in decisions for reason in decision.reason}
    assert reasons == {"kept", "recovered", "trusted", "other-cluster", "out-of-reach", "noise"}
    assert sum(map(is_clear, decisions)) > 0.8 * len(decisions)


@pytest.mark.parametrize("seed", range(3))
def test_pseudo_gradients_turn_and_scale_with_the_updates(seed: int) -> None:
    rounds = gradients(seed)
    for one, other in zip(replay(rounds), replay([7.0 * updates @ rotation() for updates in rounds]), strict=True):
        relative = [d.trace["pseudo"] - d.trace["second_plane"].mean(axis=0) for d in (one, other)]
        np.testing.assert_allclose(relative[1], 7.0 * relative[0], atol=1e-3 * np.abs(relative[1]).max())
