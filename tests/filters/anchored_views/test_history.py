"""What clients uploaded lately, and what follows from it."""

import copy
import json

import numpy as np
import pytest

from encagg_cli import filters
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.filters.anchored_views import reversal
from encagg_cli.filters.anchored_views.cloud import Cloud
from encagg_cli.filters.anchored_views.history import OwnHistory, SidesHistory

N, K, D = 30, 4, 200
NOBODY = np.zeros(0, dtype=bool)


def clients_with_ways_of_their_own(rounds: int, seed: int = 0) -> list[np.ndarray]:
    """Honest rounds in which clients share next to nothing, and each goes on nearly as before."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((N, D)) + 0.1
    return [own + 0.5 * rng.standard_normal((N, D)) for _ in range(rounds)]


def test_continuity_is_the_largest_cosine_with_a_remembered_upload():
    history = OwnHistory(2, 2)
    accepted = np.array([True, True])
    history.remember(["a", "b"], np.array([[1.0, 0.0], [0.0, 2.0]]), accepted)
    history.remember(["a", "b"], np.array([[0.0, 1.0], [0.0, 1.0]]), accepted)
    now = history.continuity(["b", "a", "c"], np.array([[0.0, -3.0], [3.0, 4.0], [1.0, 1.0]]))
    assert now[:2] == pytest.approx([-1.0, 0.8])
    assert np.isnan(now[2])


def test_rejected_uploads_are_not_remembered_and_old_ones_are_forgotten():
    history = OwnHistory(2, 2)
    history.remember(["a", "b"], np.eye(2), np.array([True, False]))
    assert np.isnan(history.continuity(["b"], np.eye(2)[:1])).all()
    for _ in range(2):
        assert not np.isnan(history.continuity(["a"], np.eye(2)[:1])).any()
        history.remember(["b"], np.eye(2)[:1], np.array([False]))
    assert np.isnan(history.continuity(["a"], np.eye(2)[:1])).all()


def test_an_attacker_that_earned_trust_first_is_held_against_its_own_past():
    rounds = clients_with_ways_of_their_own(5)
    method = filters.get("anchored-views")
    assert all(method.decide(updates, trusted=range(K)).accepted.all() for updates in rounds[:3])
    for updates in rounds[3:]:
        updates[-6:] = np.random.default_rng(1).standard_normal((6, D)) + 0.1
        decision = method.decide(updates, trusted=range(K))
        assert np.flatnonzero(~decision.accepted).tolist() == list(range(N - 6, N))
        assert set(decision.reason[-6:]) == {"changed"}


def test_without_memory_the_same_attack_passes():
    rounds = clients_with_ways_of_their_own(4)
    method = filters.get("anchored-views(history=0)")
    rounds[-1][-6:] = np.random.default_rng(1).standard_normal((6, D)) + 0.1
    assert [method.decide(updates, trusted=range(K)).accepted.all() for updates in rounds] == [True] * 4
    assert method.state_dict() == {}


def test_honest_clients_that_go_on_as_before_lose_no_more_than_alpha():
    lost = []
    for seed in range(4):
        method = filters.get("anchored-views")
        decisions = [method.decide(updates, trusted=range(K)) for updates in clients_with_ways_of_their_own(6, seed)]
        lost += [float((~decision.accepted[K:]).mean()) for decision in decisions]
    assert np.mean(lost) <= 0.02


def test_a_replay_goes_on_from_its_state():
    rounds = clients_with_ways_of_their_own(5, 3)
    rounds[3][-6:] *= -1.0
    whole, first = filters.get("anchored-views"), filters.get("anchored-views")
    for updates in rounds[:3]:
        whole.decide(updates, trusted=range(K))
        first.decide(updates, trusted=range(K))
    second = filters.get("anchored-views")
    second.load_state_dict(first.state_dict())
    for updates in rounds[3:]:
        expected, resumed = (method.decide(updates, trusted=range(K)) for method in (whole, second))
        assert np.array_equal(expected.score, resumed.score)
        assert expected.reason == resumed.reason


def test_a_client_is_held_against_its_own_uploads_of_three_rounds_at_most():
    for history, rounds in ((2, 2), (7, 3)):
        method = filters.get(f"anchored-views(history={history})")
        for updates in clients_with_ways_of_their_own(5):
            method.decide(updates, trusted=range(K))
        kept = [name for name in method.state_dict() if name.startswith("clients_")]
        assert len(kept) == rounds
        assert len([name for name in method.state_dict() if name.startswith("sides_cosines_")]) == min(history, 5)


def test_a_state_of_other_settings_is_refused():
    state = filters.get("anchored-views").state_dict()
    for text in ("anchored-views(history=2)", "anchored-views(history=4)", "anchored-views(buckets=1024)"):
        other = filters.get("anchored-views")
        other.decide(clients_with_ways_of_their_own(1)[0], trusted=range(K))
        with pytest.raises(UnusableInput):
            filters.get(text).load_state_dict(other.state_dict())
    with pytest.raises(UnusableInput):
        filters.get("anchored-views").load_state_dict({"rounds_seen": np.array([1.0])})
    with pytest.raises(UsageError):
        filters.get("anchored-views(history=0)").load_state_dict(state)


def cosines_of(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, 40)) + 0.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T).astype(np.float32).astype(np.float64)


def test_cosines_of_the_last_rounds_are_kept_for_whom_they_know():
    history, rounds = SidesHistory(2), [cosines_of(8, seed) for seed in range(3)]
    for cosines in rounds:
        history.remember(list("abcdefgh"), cosines, cosines.T**2, cosines, np.zeros(8, dtype=bool), searched=False)
    nothing = np.zeros((0, 0))
    history.remember([], nothing, nothing, nothing, NOBODY, searched=False)  # a round of which nobody is left
    (second, third), (second_updates, third_updates), _ = history.rounds_of(["b", "z", "a"])
    squares = [(cosines**2).astype(np.float32) for cosines in rounds]
    kept = [(second, rounds[1]), (third, rounds[2]), (second_updates, squares[1]), (third_updates, squares[2])]
    for past, cosines in kept:
        assert past[0, 2] == cosines[1, 0]
        assert past[0, 0] == cosines[1, 1]
        assert np.isnan(past[1]).all()
        assert np.isnan(past[:, 1]).all()
    assert history.rounds_of(["y", "z"]) == ([], [], [])


def test_where_clients_were_is_kept_for_whom_it_knows():
    history, gram = SidesHistory(2), cosines_of(20, 0)
    names = [chr(ord("a") + index) for index in range(20)]
    history.remember(names, gram, gram, gram, np.zeros(20, dtype=bool), searched=False)
    fewer = gram[:17, :17]
    history.remember(names[:17], fewer, fewer, fewer, np.zeros(17, dtype=bool), searched=False)
    clouds = history.rounds_of(["b", "z", "a"])[2]
    assert clouds[0].points[[0, 2]] == pytest.approx(Cloud.of(gram).points[[1, 0]])
    assert clouds[0].there.tolist() == [True, False, True]
    assert not clouds[1].there.any()  # five axes: too few


def test_a_round_too_large_to_keep_is_not():
    history = SidesHistory(2)
    nobody = np.zeros(513, dtype=bool)
    nothing = np.zeros((513, 513))
    history.remember([str(index) for index in range(513)], nothing, nothing, nothing, nobody, searched=False)
    assert history.rounds_of(["1"]) == ([], [], [])


def test_who_was_clearly_reversed_is_accused_as_long_as_the_round_is_remembered():
    history = SidesHistory(2)
    for found in ([3], [2], []):
        accused = np.isin(np.arange(4), found)
        history.remember(list("abcd"), cosines_of(4, 0), np.eye(4), np.eye(4), accused, searched=False)
        if found == [2]:
            assert history.accused(["d", "a", "z", "c"]).tolist() == [True, False, False, True]
    assert history.accused(["d", "a", "z", "c"]).tolist() == [False, False, False, True]
    assert not SidesHistory(2).accused(["a"]).any()


def test_who_was_accused_is_cleared_by_as_many_rounds_that_found_others():
    history = SidesHistory(7)

    def remember(clients: str, found: str, *, searched: bool) -> None:
        here = np.array([client in found for client in clients])
        gram = np.eye(len(clients))
        history.remember(list(clients), cosines_of(len(clients), 0), gram, gram, here, searched=searched)

    remember("abcde", "cde", searched=True)
    remember("abcde", "c", searched=False)  # whom earlier rounds had accused: nobody was looked for
    remember("abcd", "c", searched=True)  # e is not there
    assert history.accused(list("abcde")).tolist() == [False, False, True, False, True]
    remember("abcde", "d", searched=True)
    assert history.accused(list("abcde")).tolist() == [False, False, True, True, False]


def test_sides_survive_in_a_state():
    history, other = SidesHistory(3), SidesHistory(3)
    names = [chr(ord("a") + index) for index in range(20)]
    history.remember(names, *(cosines_of(20, seed) for seed in range(3)), np.arange(20) == 7, searched=True)
    one = np.ones((1, 1))
    history.remember(["b"], one, one, one, np.zeros(1, dtype=bool), searched=False)
    other.restore(history.state(), "it")
    for kept, again in zip(history.rounds_of(["a", "b"]), other.rounds_of(["a", "b"]), strict=True):
        for one, its in zip(kept, again, strict=True):
            if isinstance(one, Cloud):
                one, its = np.append(one.points, one.ridge), np.append(its.points, its.ridge)
            assert np.array_equal(one, its, equal_nan=True)
    assert other.accused(["g", "h"]).tolist() == [False, True]
    assert [seen.searched for seen in other._seen] == [True, False]
    for missing in ("cosines_1", "updates_0", "accused_1", "searched_0", "points_0", "ridge_1"):
        damaged = history.state()
        del damaged[f"sides_{missing}"]
        with pytest.raises(UnusableInput, match=r"where its clients|which side"):
            other.restore(damaged, "it")
    for name, value in (("points_0", np.nan), ("points_1", 1e200)):
        damaged = copy.deepcopy(history.state())
        damaged[f"sides_{name}"] = np.full((len(damaged[f"sides_{name}"]), 1), value)
        with pytest.raises(UnusableInput, match="damaged"):
            other.restore(damaged, "it")
    for name in ("cosines_0", "updates_0"):
        damaged = copy.deepcopy(history.state())
        damaged[f"sides_{name}"][0, 0] = np.nan
        with pytest.raises(UnusableInput, match="damaged"):
            other.restore(damaged, "it")
    with pytest.raises(UnusableInput, match="other settings"):
        SidesHistory(4).restore(history.state(), "it")


def test_the_method_tells_who_is_accused():
    """The same round after the same past, but for who was found reversed in that."""
    attackers = np.arange(N) >= 22
    rng = np.random.default_rng(0)
    step = 0.14 * rng.standard_normal(400)  # too faint for this round to tell
    first, second = (step + rng.standard_normal((N, 400)) for _ in range(2))
    before = filters.get("anchored-views")
    ids = np.array(before.decide(first, trusted=range(K)).clients)
    rejected = []
    for accused in ([], ids[attackers].tolist()):
        method = filters.get("anchored-views")
        method.load_state_dict(before.state_dict() | {"sides_accused_0": json.dumps(accused)})
        decision = method.decide(second * np.where(attackers, -1.0, 1.0)[:, None], trusted=range(K))
        rejected.append(np.array(decision.reason) == "reversed")
    assert not rejected[0].any()
    assert np.array_equal(rejected[1], attackers)


def test_the_method_accuses_only_whom_it_is_certain_of(monkeypatch: pytest.MonkeyPatch):
    updates = 0.2 * np.random.default_rng(0).standard_normal(400)
    updates = updates + np.random.default_rng(1).standard_normal((N, 400))
    updates[22:] *= -1.0
    for share_of_alpha, accused in ((1.0, 8), (1e-30, 0)):
        monkeypatch.setattr(reversal, "_CERTAIN", share_of_alpha)
        method = filters.get("anchored-views")
        decision = method.decide(updates, trusted=range(K))
        assert decision.reason.count("reversed") == 8
        state = method.state_dict()
        assert len(json.loads(state["sides_accused_0"])) == accused
        assert state["sides_searched_0"].tolist() == [float(accused > 0)]


def wrong_over_rounds(text: str, first: int) -> list[int]:
    """Eight clients flip their updates in every round, in which what is shared is faint: wrong verdicts by round."""
    method, wrong, n = filters.get(text), [], 30
    attackers = np.arange(n) >= n - 8
    for at in range(first, first + 5):
        rng = np.random.default_rng(at)
        step = rng.standard_normal(400) * 0.25
        axes = np.linalg.qr(rng.standard_normal((400, 3)))[0].T
        updates = step + 6.0 * rng.standard_normal((n, 3)) @ axes + 0.9 * rng.standard_normal((n, 400))
        decision = method.decide(updates * np.where(attackers, -1.0, 1.0)[:, None], trusted=range(K))
        wrong.append(int((~decision.accepted != attackers).sum()))
    return wrong


def test_who_reverses_round_after_round_is_told_apart_in_the_end():
    with_past = np.array([wrong_over_rounds("anchored-views", first) for first in (0, 10, 20)])
    without = np.array([wrong_over_rounds("anchored-views(history=0)", first) for first in (0, 10, 20)])
    assert np.array_equal(with_past[:, 0], without[:, 0])
    assert with_past[:, 2:].sum() <= 2
    assert without[:, 2:].sum() > 5


def test_only_who_is_on_a_side_is_remembered_on_it():
    """Not those who were rejected for their length, but those who were for being reversed."""
    rng = np.random.default_rng(0)
    updates = 0.5 * rng.standard_normal(D) + rng.standard_normal((N, 6)) @ rng.standard_normal((6, D))
    updates += rng.standard_normal((N, D))
    updates[-4:] += 40.0 * rng.standard_normal((4, D))
    method = filters.get("anchored-views")
    decision = method.decide(updates, trusted=range(K))
    assert np.flatnonzero(~decision.accepted).tolist() == list(range(N - 4, N))
    assert "reversed" not in decision.reason
    assert len(json.loads(method.state_dict()["sides_0"])) == N - 4
