"""The loss of a choice of sides and the search for the best ones, against regressions and searches by brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from encagg_cli.filters.anchored_views import sides
from encagg_cli.filters.anchored_views.ridge import unexplained_shares
from encagg_cli.filters.anchored_views.sides import Sides, common_part, explanations, loss_of

N, D = 11, 60


def units(seed: int, n: int = N, shared: float = 0.5) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, D)) + shared * np.random.default_rng(99).standard_normal(D)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def signs_of(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], n)


def left_out(rows: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """What scikit-learn predicts of each sign from the other clients."""
    rows = rows / np.sqrt(unexplained_shares(rows @ rows.T))[:, None]
    rows /= np.sqrt(np.mean(np.sum(rows**2, axis=1)))
    ridge = float(np.median(np.linalg.eigvalsh(rows @ rows.T)))
    return cross_val_predict(Ridge(alpha=ridge, fit_intercept=False), rows, signs, cv=LeaveOneOut())


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_those_of_a_ridge_regression_without_the_client(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sides, "_FRIENDSHIP", 0.0)
    rows, signs = units(seed), signs_of(seed)
    expected = np.mean((signs - left_out(rows, signs)) ** 2)
    assert signs @ loss_of(rows @ rows.T) @ signs == pytest.approx(expected, rel=1e-9)


def test_the_common_part_is_what_the_others_predict():
    rows, signs = units(4), signs_of(4)
    assert common_part(rows @ rows.T, signs) == pytest.approx(left_out(rows, signs), abs=1e-9)


def test_friends_on_different_sides_cost_and_opponents_do_not(monkeypatch: pytest.MonkeyPatch):
    """Two pairs who say nothing about each other: one of friends, one of opponents."""
    cosines = np.eye(4)
    cosines[0, 1] = cosines[1, 0] = 0.8
    cosines[2, 3] = cosines[3, 2] = -0.8
    with_friends = loss_of(cosines)
    monkeypatch.setattr(sides, "_FRIENDSHIP", 0.0)
    friends = with_friends - loss_of(cosines)

    def frustration(*signs: float) -> float:
        return float(np.array(signs) @ friends @ np.array(signs))

    assert frustration(1, 1, 1, -1) == pytest.approx(0.0, abs=1e-9)
    assert frustration(1, -1, 1, -1) == pytest.approx(frustration(1, 1, 1, 1))
    assert frustration(1, -1, 1, 1) == pytest.approx(2 * frustration(1, -1, 1, -1))


def test_the_frustration_is_that_of_relations_cubed():
    hat = np.array([[0.5, 0.3, -0.1], [0.3, 0.9, 0.2], [-0.1, 0.2, 0.4]])
    relation = np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        relation[i, j] = relation[j, i] = (hat[i, j] / np.sqrt(hat[i, i] * hat[j, j])) ** 3
    degree = np.abs(relation).sum(axis=1)
    expected = np.array(
        [[(float(i == j) - relation[i, j] / np.sqrt(degree[i] * degree[j])) / 3 for j in range(3)] for i in range(3)]
    )
    assert sides._frustration(hat) == pytest.approx(expected)


def test_reversing_uploads_reverses_the_sides():
    rows, flips = units(5), signs_of(5)
    flipped_rows = rows * flips[:, None]
    signs = signs_of(6)
    assert signs @ loss_of(rows @ rows.T) @ signs == pytest.approx(
        (signs * flips) @ loss_of(flipped_rows @ flipped_rows.T) @ (signs * flips)
    )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), anchors=st.integers(0, 3))
def test_the_best_explanation_is_the_best_of_all(seed: int, anchors: int):
    rows = units(seed, shared=0.3) * signs_of(seed)[:, None]
    loss = loss_of(rows @ rows.T)
    every = np.array(list(product([-1.0, 1.0], repeat=N)))
    every = every[(every[:, :anchors] > 0).all(axis=1)]
    best = np.einsum("mi,ij,mj->m", every, loss, every).min()
    values, signs = explanations(loss, np.arange(N) < anchors)
    assert values[0] == pytest.approx(best)
    assert (np.diff(values) >= 0).all()
    assert (signs[:, :anchors] > 0).all()
    assert np.einsum("mi,ij,mj->m", signs, loss, signs) == pytest.approx(values)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_clients_does_not_matter(seed: int):
    n = 24
    rows = units(seed, n, shared=0.2) * signs_of(seed, n)[:, None]
    loss, order = loss_of(rows @ rows.T), np.random.default_rng(seed).permutation(n)
    anchors = np.arange(n) < 3
    values, signs = explanations(loss, anchors)
    again, shuffled = explanations(loss[np.ix_(order, order)], anchors[order])
    assert again == pytest.approx(values)
    assert shuffled[0].tolist() == signs[0][order].tolist()


def reversed_round(seed: int, n: int = 30, shared: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The loss of a round in which the last ten clients flip their updates, and who they are."""
    attackers = np.arange(n) >= n - 10
    rows = units(seed, n, shared) * np.where(attackers, -1.0, 1.0)[:, None]
    return loss_of(rows @ rows.T), attackers


def test_who_is_flipped_in_every_good_explanation_is_found():
    loss, attackers = reversed_round(0)
    assert Sides(loss, np.arange(30) < 4).flipped(4.0).tolist() == attackers.tolist()


def test_nobody_is_flipped_where_nobody_flips_or_nothing_is_shared():
    rows = units(1, 30, 1.0)
    assert not Sides(loss_of(rows @ rows.T), np.arange(30) < 4).flipped(4.0).any()
    lost = 0
    for seed in range(40):
        rows = units(seed, 30, 0.0)
        lost += int(Sides(loss_of(rows @ rows.T), np.arange(30) < 4).flipped(4.0).sum())
    assert lost / (40 * 26) <= 0.01


def test_either_check_alone_tells_noise_from_structure():
    anchors = np.arange(30) < 4
    for shared, structure in ((0.0, False), (1.0, True)):
        beyond, parted = 0, 0
        for seed in range(10):
            rows = units(seed, 30, shared)
            loss = loss_of(rows @ rows.T)
            beyond += Sides(loss, anchors)._is_beyond_chance()
            parted += Sides(loss, anchors)._has_rival()
        assert beyond == (10 if structure else 0)
        assert parted == 0 if structure else parted >= 8


@pytest.mark.parametrize(("check", "answer"), [("_is_beyond_chance", False), ("_has_rival", True)])
def test_nobody_is_flipped_where_a_check_says_that_nothing_is_told(
    check: str, answer: bool, monkeypatch: pytest.MonkeyPatch
):
    loss, _ = reversed_round(0)
    monkeypatch.setattr(Sides, check, lambda _: answer)
    assert not Sides(loss, np.arange(30) < 4).flipped(4.0).any()


def test_without_the_checks_noise_would_be_explained(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sides, "_BEYOND_CHANCE", -np.inf)
    monkeypatch.setattr(Sides, "_has_rival", lambda _: False)
    lost = 0
    for seed in range(40):
        rows = units(seed, 30, 0.0)
        lost += int(Sides(loss_of(rows @ rows.T), np.arange(30) < 4).flipped(1.0).sum())
    assert lost / (40 * 26) > 0.05


def test_who_shares_nothing_with_anybody_is_on_no_side(monkeypatch: pytest.MonkeyPatch):
    """Beside seven who flip, three whose uploads are noise: most of them could as well be on the other side."""

    def found() -> tuple[int, int]:
        strangers, attackers = 0, 0
        for seed in range(20):
            rows = units(seed, 30, 1.0) * np.where(np.arange(30) < 20, 1.0, -1.0)[:, None]
            noise = np.random.default_rng(seed + 500).standard_normal((3, D))
            rows[-3:] = noise / np.linalg.norm(noise, axis=1, keepdims=True)
            far = Sides(loss_of(rows @ rows.T), np.arange(30) < 4).flipped(4.0)
            strangers, attackers = strangers + int(far[-3:].sum()), attackers + int(far[20:27].sum())
        return strangers, attackers

    strangers, attackers = found()
    assert attackers == 140
    monkeypatch.setattr(sides, "_OWN", -np.inf)
    assert strangers < 0.75 * found()[0]


def test_known_benign_clients_on_both_sides_tell_nothing():
    loss, _ = reversed_round(2)
    assert not Sides(loss, np.isin(np.arange(30), [0, 1, 28, 29])).flipped(4.0).any()


def test_more_nats_reject_fewer():
    rows = units(3, 30, 0.35) * np.where(np.arange(30) < 20, 1.0, -1.0)[:, None]
    loss, anchors = loss_of(rows @ rows.T), np.arange(30) < 4
    counts = [int(Sides(loss, anchors).flipped(nats).sum()) for nats in (0.5, 2.0, 6.0, 20.0, 1e6)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0
    assert counts[-1] == 0


def test_who_flips_is_on_the_other_side_and_clearly_so():
    loss, attackers = reversed_round(0)
    far, nats = Sides(loss, np.arange(30) < 4).opposed()
    assert far.tolist() == attackers.tolist()
    assert nats > 10


def test_as_clearly_as_it_is_better_than_what_parts_the_known_benign():
    """By trying all choices: nine clients, three of whom flip."""
    rows = units(1, shared=0.7) * np.where(np.arange(N) < N - 3, 1.0, -1.0)[:, None]
    loss, anchors = loss_of(rows @ rows.T), np.arange(N) < 3
    every = np.array(list(product([-1.0, 1.0], repeat=N)))
    values = np.einsum("mi,ij,mj->m", every, loss, every)
    alike = every[:, anchors].sum(axis=1)
    best = values[(alike == 3) & (every < 0).any(axis=1)].min()
    rivals = values[np.abs(alike) < 3]
    expected = N / 2 * np.log(rivals.min() / best)
    far, nats = Sides(loss, anchors).opposed()
    assert far.tolist() == (np.arange(N) >= N - 3).tolist()
    assert nats == pytest.approx(expected)


@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_no_side_is_clear_where_nobody_flips(shared: float):
    clear = [
        Sides(loss_of(rows @ rows.T), np.arange(30) < 4).opposed()[1] > 5
        for rows in (units(s, 30, shared) for s in range(40))
    ]
    assert np.mean(clear) <= 0.05


def test_a_group_is_two_though_fewer_on_the_other_side_are_explained_better(monkeypatch: pytest.MonkeyPatch):
    loss, anchors = np.eye(30) / 30.0, np.arange(30) < 4
    choices = np.ones((3, 30))
    choices[1, 29] = choices[2, 28:] = -1.0
    monkeypatch.setattr(sides, "explanations", lambda *_: (np.array([1.0, 1.1, 1.2]), choices))
    assert np.flatnonzero(Sides(loss, anchors).opposed()[0]).tolist() == [28, 29]
    monkeypatch.setattr(sides, "explanations", lambda *_: (np.array([1.0, 1.1]), choices[:2]))
    assert Sides(loss, anchors).opposed()[1] == -np.inf


@pytest.mark.parametrize(("nats", "opposes"), [(7.9, True), (8.1, False)])
def test_no_group_opposes_the_rest_where_all_being_on_one_side_is_far_better(
    nats: float, opposes: bool, monkeypatch: pytest.MonkeyPatch
):
    """All agree: the choice with everybody but the known-benign turned is bad, and only what parts those is worse."""
    n = 30
    loss, anchors = np.eye(n) / n, np.arange(n) < 4
    choices = np.where(anchors, 1.0, -1.0)[None]
    monkeypatch.setattr(sides, "explanations", lambda *_: (np.array([np.exp(2 * nats / n)]), choices))
    far, beyond = Sides(loss, anchors).opposed()
    assert far.any() == opposes
    assert np.isfinite(beyond) == opposes


def test_known_benign_clients_on_both_sides_are_rivals():
    loss, _ = reversed_round(2)
    assert Sides(loss, np.arange(30) < 4).opposed()[1] > 10
    assert Sides(loss, np.isin(np.arange(30), [0, 1, 28, 29])).opposed()[1] < 0


def test_where_no_explanation_parts_the_known_benign_one_of_them_is_turned(monkeypatch: pytest.MonkeyPatch):
    loss, attackers = reversed_round(0)
    anchors, sides_ = np.arange(30) < 4, np.where(attackers, -1.0, 1.0)
    only = np.array([sides_])
    monkeypatch.setattr(sides, "explanations", lambda loss, _: (np.einsum("mi,ij,mj->m", only, loss, only), only))
    turned = np.array([np.where(np.arange(30) == anchor, -1.0, sides_) for anchor in range(4)])
    rival = np.einsum("mi,ij,mj->m", turned, loss, turned).min()
    assert Sides(loss, anchors).opposed()[1] == pytest.approx(15 * np.log(rival / (sides_ @ loss @ sides_)))


@pytest.mark.parametrize("anchors", [0, 29, 30])
def test_no_group_can_oppose_where_all_or_none_are_known_benign(anchors: int):
    loss, _ = reversed_round(0)
    far, nats = Sides(loss, np.arange(30) < anchors).opposed()
    assert not far.any()
    assert nats == -np.inf


def test_rounds_together_tell_what_each_leaves_open():
    anchors, flips = np.arange(30) < 4, np.where(np.arange(30) < 20, 1.0, -1.0)
    found = []
    for start in range(0, 60, 6):
        losses = []
        for seed in range(start, start + 6):
            rows = units(seed, 30, 0.35) * flips[:, None]
            losses.append(loss_of(rows @ rows.T))
        found.append([(Sides(np.mean(losses[:m], axis=0), anchors).flipped(4.0) == (flips < 0)).mean() for m in (1, 6)])
    alone, together = np.mean(found, axis=0)
    assert together > 0.97
    assert together > alone + 0.03


def test_clients_that_were_not_there_neither_cost_nor_count():
    rows = units(0, 6)
    cosines = np.full((8, 8), np.nan)
    there = np.array([7, 0, 2, 3, 5, 6])
    cosines[np.ix_(there, there)] = rows @ rows.T
    loss = loss_of(cosines)
    assert np.allclose(loss[np.ix_(there, there)], loss_of(rows @ rows.T))
    assert not loss[[1, 4]].any()
    assert not loss[:, [1, 4]].any()
    assert not loss_of(np.full((3, 3), np.nan)).any()


@pytest.mark.parametrize("cosines", [np.ones((7, 7)), np.zeros((7, 7)), np.eye(7), -np.ones((7, 7)) + 2 * np.eye(7)])
def test_degenerate_rounds_give_finite_losses_and_reject_nobody(cosines: np.ndarray):
    loss = loss_of(cosines)
    assert np.isfinite(loss).all()
    assert not Sides(loss, np.arange(7) < 2).flipped(4.0).any()
    assert Sides(loss, np.arange(7) < 2).opposed()[1] < 5
    assert np.isfinite(common_part(cosines, np.ones(7))).all()
