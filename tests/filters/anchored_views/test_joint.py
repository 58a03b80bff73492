"""Uploads that have something in common which no known-benign upload has: in made rounds, and in trained backdoors."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from encagg_cli import filters
from encagg_cli.federation.datasets import load
from encagg_cli.federation.models import Model
from encagg_cli.federation.partition import dirichlet
from encagg_cli.federation.training import Clients, LocalTraining
from encagg_cli.filters.anchored_views import detector, in_words, joint, scene
from encagg_cli.filters.anchored_views.joint import joint_group
from encagg_cli.filters.anchored_views.parting import in_common
from encagg_cli.filters.anchored_views.ridge import unexplained_shares
from tests.benchmarks.backdoors import with_trigger

N, D, K = 40, 500, 5
ANCHORS = np.arange(N) < K
MARKED = np.arange(N) >= 34
ALPHA = 0.02


def cosines_of(updates: np.ndarray) -> np.ndarray:
    updates = updates / np.linalg.norm(updates, axis=1, keepdims=True)
    return updates @ updates.T


def updates_of(seed: int, trigger: float, marked: np.ndarray = MARKED) -> np.ndarray:
    """Uploads of ten classes, mixed by each client in the same way in every round.

    To their own the `marked` (n,) add the same: `trigger`, in five coordinates.
    """
    mixture = np.random.default_rng(0).dirichlet(np.full(10, 0.5), size=N)
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal(D) + 3.0 * mixture @ rng.standard_normal((10, D))
    updates += 0.7 * rng.standard_normal((N, D))
    updates[np.ix_(marked, np.arange(5))] += trigger
    return updates


def round_of(seed: int, trigger: float, marked: np.ndarray = MARKED) -> np.ndarray:
    return cosines_of(updates_of(seed, trigger, marked))


def group_of(rounds: list[np.ndarray], anchors: np.ndarray = ANCHORS) -> np.ndarray:
    """Who is found where signs tell nothing, as of a trigger in few of many coordinates."""
    return joint_group(rounds, np.eye(N), anchors, ALPHA, later=False)


def found(rounds: list[np.ndarray]) -> list[int]:
    return np.flatnonzero(group_of(rounds)).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_who_has_the_same_beside_its_own_is_found_in_one_round(seed: int):
    assert found([round_of(seed, 10.0)]) == np.flatnonzero(MARKED).tolist()


def test_what_one_round_does_not_tell_several_do():
    alone = [found([round_of(seed, 6.7)]) for seed in range(6)]
    assert not any(alone)
    assert found([round_of(seed, 6.7) for seed in range(6)]) == np.flatnonzero(MARKED).tolist()


def test_honest_classes_are_nobody():
    for seed in range(0, 60, 6):
        rounds = [round_of(seed + each, 0.0) for each in range(6)]
        assert not found(rounds)
        assert not found(rounds[:1])


def test_a_class_that_no_known_benign_client_has_is_nobody():
    """Classes are parted as clearly where the known-benign are on both sides."""
    for seed in range(6):
        mixture = np.random.default_rng(0).dirichlet(np.full(10, 0.5), size=N)
        lacking = np.argsort(mixture[:, 3], kind="stable")[:K]
        rounds = [round_of(seed * 6 + each, 0.0) for each in range(6)]
        assert not group_of(rounds, np.isin(np.arange(N), lacking)).any()


def test_the_known_benign_are_never_in_it():
    with_two = MARKED | (np.arange(N) < 2)
    assert not found([round_of(seed, 10.0, with_two) for seed in range(3)])


def test_who_does_so_no_longer_is_not_held_to_its_past():
    still = MARKED & (np.arange(N) != 39)
    rounds = [round_of(0, 10.0, still), *(round_of(seed, 10.0) for seed in range(1, 5))]
    assert found(rounds) == np.flatnonzero(still).tolist()


def test_who_was_not_there_neither_counts_nor_goes_free():
    absent = round_of(1, 10.0)
    absent[[7, 36]] = np.nan
    absent[:, [7, 36]] = np.nan
    assert found([round_of(0, 10.0), absent, round_of(2, 10.0)]) == np.flatnonzero(MARKED).tolist()


def test_the_order_of_clients_does_not_matter():
    rounds, order = [round_of(seed, 10.0) for seed in range(3)], np.random.default_rng(0).permutation(N)
    shuffled = [cosines[np.ix_(order, order)] for cosines in rounds]
    group = group_of(shuffled, ANCHORS[order])
    assert np.array_equal(group, MARKED[order])


@pytest.mark.parametrize(
    ("rounds", "known_benign", "alpha", "later", "required"),
    [
        (1, 5, 0.02, False, 10.5),
        (2, 5, 0.02, False, 6.5),
        (2, 8, 0.02, False, 6.5),
        (2, 2, 0.02, False, 6.5 + 6.0 * np.log(2.0)),
        (2, 5, 0.002, False, 6.5 + 2.0 * np.log(10.0)),
        (2, 5, 0.02, True, 8.5),
    ],
)
def test_how_much_clearer_than_its_rivals_a_parting_must_be(
    rounds: int, known_benign: int, alpha: float, later: bool, required: float, monkeypatch: pytest.MonkeyPatch
):
    """Of fifty clients; of these forty, by the root of their number less."""
    required *= np.sqrt(N / 50)
    signs = np.where(MARKED, -1.0, 1.0)[None]
    monkeypatch.setattr(joint, "partings", lambda *_: (np.array([30.0]), signs))
    for more, rejected in ((-0.01, True), (0.01, False)):
        monkeypatch.setattr(joint, "gain_of_rivals", lambda *_, more=more: 30.0 - required + more)
        cosines = [round_of(seed, 10.0) for seed in range(rounds)]
        group = joint_group(cosines, np.eye(N), np.arange(N) < known_benign, alpha, later=later)
        assert np.array_equal(group, MARKED & rejected)


def test_one_known_benign_client_has_nobody_to_be_parted_from():
    assert not group_of([round_of(0, 10.0)], np.arange(N) < 1).any()
    assert group_of([round_of(0, 10.0)], np.arange(N) < 2).any()


@pytest.mark.parametrize(("near", "rejected"), [(5, 0), (6, N - 6)])
def test_a_parting_that_leaves_too_few_is_none(near: int, rejected: int, monkeypatch: pytest.MonkeyPatch):
    signs = np.where(np.arange(N) < near, 1.0, -1.0)[None]
    monkeypatch.setattr(joint, "partings", lambda *_: (np.array([90.0]), signs))
    monkeypatch.setattr(joint, "in_common", lambda *_: np.ones(N))
    monkeypatch.setattr(joint, "_gain", lambda *_: 0.0)
    assert group_of([round_of(0, 0.0)]).sum() == rejected


def test_the_filter_remembers_who_was_found_so():
    """No round alone tells, signs know nothing of five coordinates, and who was found is looked for again."""
    method, names = filters.get("anchored-views"), [f"{index:02d}" for index in range(N)]
    verdicts = [method.decide(updates_of(seed, 7.0), clients=names, trusted=names[:K]) for seed in range(10)]
    assert verdicts[0].accepted.all()
    for verdict in verdicts[4:]:
        assert np.array_equal(~verdict.accepted, MARKED)
        assert {verdict.reason[client] for client in np.flatnonzero(MARKED)} == {"joint"}
    assert in_words(verdicts[-1])[-1] == "one of 6 that have something in common which no known-benign upload has"


@pytest.mark.parametrize("copies", [False, True])
def test_it_is_told_by_the_updates_as_they_are_and_whether_others_have_been_rejected(
    copies: bool, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def nobody(
        rounds: list[np.ndarray], signs_today: np.ndarray, anchors: np.ndarray, alpha: float, *, later: bool
    ) -> np.ndarray:
        asked.append((rounds, signs_today, later))
        return np.zeros(len(anchors), dtype=bool)

    monkeypatch.setattr(detector, "joint_group", nobody)
    monkeypatch.setattr(scene, "weight_of_signs", lambda *_: 1.0)
    method, names = filters.get("anchored-views"), [f"{index:02d}" for index in range(N)]
    first, second = updates_of(0, 0.0), updates_of(1, 0.0)
    second[-2:] = second[-1] if copies else second[-2:]
    for updates in (first, second):
        method.decide(updates, clients=names, trusted=names[:K])
    left = N - 2 * copies
    assert [later for *_, later in asked] == [False, copies]
    for cosines, updates in zip(asked[1][0], (second, first), strict=True):
        assert np.allclose(cosines, cosines_of(updates)[:left, :left], atol=1e-5)
    assert np.allclose(asked[1][1], cosines_of(np.sign(second))[:left, :left], atol=1e-5)


def test_a_class_is_told_by_signs_too_and_a_trigger_is_not():
    """A group without known-benign clients that all coordinates tell, and one that five do."""
    along = np.sign(np.random.default_rng(1).standard_normal(D))
    dense, sparse = updates_of(0, 0.0), updates_of(0, 10.0)
    dense[MARKED] += 6.0 * along
    assert found([cosines_of(dense)]) == np.flatnonzero(MARKED).tolist()  # but for signs
    for updates, rejected in ((dense, False), (sparse, True)):
        rounds, signs = [cosines_of(updates)], cosines_of(np.sign(updates))
        assert np.array_equal(joint_group(rounds, signs, ANCHORS, ALPHA, later=False), MARKED & rejected)


@pytest.mark.parametrize(("by_signs", "rejected"), [(0.64, True), (0.66, False)])
def test_what_signs_tell_nearly_as_well_is_a_class(by_signs: float, rejected: bool, monkeypatch: pytest.MonkeyPatch):
    cosines, signs = round_of(0, 10.0), np.eye(N)
    monkeypatch.setattr(joint, "_gain", lambda told_by, _: by_signs * 40.0 if told_by is signs else 40.0)
    assert joint_group([cosines], signs, ANCHORS, ALPHA, later=False).any() == rejected


def test_a_share_of_what_is_common_is_a_regression_on_the_others():
    cosines, far = round_of(0, 10.0), MARKED
    scaled = cosines / np.sqrt(np.outer(unexplained_shares(cosines), unexplained_shares(cosines)))
    scaled /= np.diag(scaled).mean()
    variances, axes = np.linalg.eigh(scaled)
    rows = axes * np.sqrt(np.maximum(variances, 0.0))
    centred = rows - rows.mean(axis=0)
    ridge = 0.3 * float(np.median(np.linalg.eigvalsh(centred @ centred.T)))
    signs = np.where(far, -1.0, 1.0)
    predicted = cross_val_predict(Ridge(alpha=ridge), rows, signs, cv=LeaveOneOut())
    alone = np.array([np.delete(signs, client).mean() for client in range(N)])
    assert in_common(cosines, far, 0.3) == pytest.approx((alone - predicted) / (alone + 1.0), abs=1e-6)
    assert in_common(cosines, far, 0.3)[far].min() > 0.5
    assert in_common(cosines, far, 0.3)[~far].max() < 0.25


def test_a_trained_backdoor_is_found_and_nobody_else():
    """Six of forty clients of digits, Dirichlet 0.5: what each of them uploads is mostly honest."""
    data = load("digits", None)
    shards = dirichlet(data.train_y, N, 0.5, np.random.default_rng(3))
    model, training = Model("mlp", data), LocalTraining(epochs=2, batch_size=16, learning_rate=0.3)
    honest = Clients(data, shards, model, training, seed=0)
    backdoored = Clients(with_trigger(data, 0.5), shards, model, training, seed=0)
    state, method = model.initial(np.random.default_rng(0)), filters.get("anchored-views")
    names = [f"client-{index:02d}" for index in range(N)]
    verdicts = []
    for number in range(10):
        own = np.stack([honest.update(client, number, state) for client in range(N)])
        updates = own.copy()
        for client in np.flatnonzero(MARKED):
            updates[client] = backdoored.update(client, number, state)
        verdicts.append(method.decide(updates, clients=names, trusted=names[:K]))
        state = state + own.mean(axis=0)
    late = verdicts[6:]
    assert np.mean([(~each.accepted)[MARKED].mean() for each in late]) > 0.9
    assert np.mean([(~each.accepted)[~MARKED].mean() for each in verdicts]) < 0.02
    assert {each.reason[client] for each in late for client in np.flatnonzero(MARKED) if not each.accepted[client]} <= {
        "joint",
        "reversed",
    }
