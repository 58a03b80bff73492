"""Groups that oppose the rest, in rounds made for it."""

import numpy as np
import pytest

from encagg_cli import filters
from encagg_cli.filters.anchored_views import reversal
from encagg_cli.filters.anchored_views.evidence import Evidence
from encagg_cli.filters.anchored_views.reversal import required_nats, reversed_group
from encagg_cli.filters.anchored_views.sides import Sides
from encagg_cli.sketch import ArraySource, GramNeed, sketch_round

N, D, K = 30, 400, 4


def honest_updates(seed: int, *, shared: float = 1.0, differences: float = 4.0, batch: float = 1.0) -> np.ndarray:
    """A shared step, large differences between clients along three axes, and what a batch adds."""
    random = np.random.default_rng(seed)
    step = random.standard_normal(D)
    step *= shared * np.sqrt(D) * 0.3 / np.linalg.norm(step)
    axes = np.linalg.qr(random.standard_normal((D, 3)))[0].T
    places = differences * np.sqrt(D) * 0.3 * random.standard_normal((N, 3))
    return step + places @ axes + 0.3 * batch * random.standard_normal((N, D))


def keep_and_reverse(updates: np.ndarray, attackers: np.ndarray) -> np.ndarray:
    """Attackers keep their own update and reverse the mean in it, outside of the principal plane."""
    mean = updates.mean(axis=0)
    plane = np.linalg.svd(updates - mean, full_matrices=False)[2][:2]
    outside = mean - plane.T @ (plane @ mean)
    return np.where(attackers[:, None], updates - 2.0 * outside, updates)


def cosines_of(updates: np.ndarray) -> np.ndarray:
    clients = [f"{index:03d}" for index in range(len(updates))]
    source = ArraySource(updates.astype(np.float32), clients, np.arange(len(updates)) < K)
    return sketch_round(source, [GramNeed()]).gram.cosines


def evidence_of(updates: np.ndarray, past: tuple[np.ndarray, ...] = ()) -> Evidence:
    return Evidence.of(cosines_of(updates), [cosines_of(earlier) for earlier in past])


def group_of(updates: np.ndarray, past: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    return reversed_group(evidence_of(updates, past), np.arange(N) < K, 0.02, later=False).group


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_reversing_only_what_is_shared_is_found(share: float):
    attackers = np.arange(N) >= N - round(share * N)
    found = [group_of(keep_and_reverse(honest_updates(seed), attackers)) for seed in range(6)]
    assert np.mean([(group == attackers).mean() for group in found]) > 0.95


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_flipped_signs_are_found(share: float):
    attackers = np.arange(N) >= N - round(share * N)
    found = [group_of(honest_updates(seed) * np.where(attackers, -1.0, 1.0)[:, None]) for seed in range(6)]
    assert np.mean([(group == attackers).mean() for group in found]) > 0.95


def test_flipped_signs_are_found_over_rounds_where_a_batch_drowns_what_is_shared():
    attackers = np.arange(N) >= 22
    right = []
    for seed in range(0, 40, 4):
        rounds = [
            honest_updates(seed + t, shared=0.6, differences=1.0, batch=3.0) * np.where(attackers, -1.0, 1.0)[:, None]
            for t in range(4)
        ]
        groups = (group_of(rounds[-1]), group_of(rounds[-1], tuple(rounds[:-1])))
        right.append([float((group == attackers).mean()) for group in groups])
    alone, together = np.mean(right, axis=0)
    assert together > 0.95
    assert together > alone + 0.02


def faint_rounds(attackers: np.ndarray) -> list[np.ndarray]:
    """Rounds in which a batch drowns what is shared, and `attackers` flip their updates."""
    flips = np.where(attackers, -1.0, 1.0)[:, None]
    return [honest_updates(seed, shared=0.6, differences=1.0, batch=3.0) * flips for seed in range(12)]


def test_the_accused_are_found_in_rounds_that_alone_tell_nothing():
    attackers, anchors = np.arange(N) >= 22, np.arange(N) < K
    alone, told = [], []
    for updates in faint_rounds(attackers):
        evidence = evidence_of(updates)
        alone.append(reversed_group(evidence, anchors, 0.02, later=False).group)
        told.append(reversed_group(evidence, anchors, 0.02, later=False, accused=attackers).group)
    assert np.mean(np.array(alone)[:, attackers]) < 0.2
    assert np.mean(np.array(told)[:, attackers]) > 0.8
    assert np.array_equal(np.array(told)[:, ~attackers], np.array(alone)[:, ~attackers])


def test_only_who_is_reversed_at_a_tenth_of_alpha_is_accused_from_now_on():
    attackers, anchors = np.arange(N) >= 22, np.arange(N) < K
    nobody = np.zeros(N, dtype=bool)
    flips = np.where(attackers, -1.0, 1.0)[:, None]
    clear, doubtful = [], []
    for seed in range(12):
        for found, updates in (
            (clear, honest_updates(seed)),
            (doubtful, honest_updates(seed, shared=0.75, differences=1.0, batch=3.0)),
        ):
            evidence = evidence_of(updates * flips)
            here = reversed_group(evidence, anchors, 0.02, later=False, accused=nobody)
            strictly = reversed_group(evidence, anchors, 0.002, later=False, accused=nobody)
            assert np.array_equal(here.certain, here.group & strictly.group)
            found.append((here.group.sum(), here.certain.sum()))
    assert np.array_equal(*np.transpose(clear))
    found, certain = np.sum(doubtful, axis=0)
    assert found > certain + 8


def test_the_accused_who_still_oppose_the_rest_stay_accused():
    attackers, anchors = np.arange(N) >= 22, np.arange(N) < K
    for updates in faint_rounds(attackers):
        reversal = reversed_group(evidence_of(updates), anchors, 0.02, later=False, accused=attackers)
        assert np.array_equal(reversal.certain & attackers, reversal.group & attackers)


def test_a_round_has_searched_where_its_own_search_is_certain_of_some():
    attackers, anchors = np.arange(N) >= 22, np.arange(N) < K
    flips = np.where(attackers, -1.0, 1.0)[:, None]
    clear = evidence_of(honest_updates(0) * flips)
    faint = evidence_of(honest_updates(0, shared=0.6, differences=1.0, batch=3.0) * flips)
    for evidence, searched in ((clear, True), (faint, False)):
        told = reversed_group(evidence, anchors, 0.02, later=False, accused=attackers)
        assert told.searched == searched
        assert told.certain[attackers].mean() > 0.9


def test_the_accused_who_are_honest_now_are_cleared():
    accused, anchors = np.arange(N) >= 22, np.arange(N) < K
    groups = [
        reversed_group(evidence_of(updates), anchors, 0.02, later=False, accused=accused).group
        for updates in faint_rounds(np.zeros(N, dtype=bool))
    ]
    assert np.mean(np.array(groups)[:, accused]) < 0.15


@pytest.mark.parametrize(("share", "still"), [(0.1, True), (0.3, False)])
def test_the_accused_who_all_have_little_of_what_is_shared_stay_accused_but_for_who_has_more(
    share: float, still: bool, monkeypatch: pytest.MonkeyPatch
):
    attackers, nobody = np.arange(N) >= 20, np.zeros(N, dtype=bool)
    monkeypatch.setattr(reversal, "standing_out", lambda *_: ((nobody, -np.inf),) * 2)
    monkeypatch.setattr(Sides, "flipped", lambda *_: nobody.copy())
    monkeypatch.setattr(Sides, "opposed", lambda *_: (nobody, -np.inf))
    random = np.random.default_rng(0)
    step = random.standard_normal(D)
    own = attackers[:, None] * random.standard_normal(D)  # so that the known-benign have less in common with them
    updates = np.where(attackers, share, 1.0)[:, None] * step + own + random.standard_normal((N, D))
    updates[-1] = 0.6 * step + random.standard_normal(D)  # stopped
    found = reversed_group(evidence_of(updates), np.arange(N) < K, 0.02, later=False, accused=attackers).group
    assert found.tolist() == (attackers & still & (np.arange(N) < N - 1)).tolist()


def test_honest_clients_are_cleared_who_were_accused_in_place_of_the_attackers():
    attackers, anchors = np.arange(N) >= 18, np.arange(N) < K
    for updates in faint_rounds(attackers):
        evidence = evidence_of(updates)
        alone = reversed_group(evidence, anchors, 0.02, later=False).group
        wrongly = reversed_group(evidence, anchors, 0.02, later=False, accused=~attackers).group
        assert np.array_equal(wrongly, alone)


@pytest.mark.parametrize("differences", [0.0, 1.0, 2.0])
def test_honest_clients_do_not_oppose_each_other(differences: float):
    groups = [group_of(honest_updates(seed, differences=differences)) for seed in range(60)]
    assert np.sum(groups) / (60 * (N - K)) <= 0.02


def test_halves_that_oppose_each_other_by_chance_are_left_alone():
    """Where a model has converged, honest uploads have nothing in common."""
    lost = 0
    for seed in range(0, 60, 3):
        rounds = [honest_updates(seed + t, shared=0.0, differences=1.0) for t in range(3)]
        lost += int(group_of(rounds[-1], tuple(rounds[:-1])).sum())
    assert lost / (20 * (N - K)) <= 0.05


def test_who_stopped_is_not_held_to_its_past():
    attackers = np.arange(N) >= 22
    honest, past = [], []
    for seed in range(4):
        honest.append(honest_updates(seed))
        past.append(honest_updates(seed + 10) * np.where(attackers, -1.0, 1.0)[:, None])
    assert not group_of(honest[0], tuple(past[:3])).any()


def test_who_begins_today_is_found_despite_an_honest_past():
    attackers = np.arange(N) >= 22
    today = honest_updates(0) * np.where(attackers, -1.0, 1.0)[:, None]
    assert group_of(today, tuple(honest_updates(seed) for seed in (1, 2, 3))).tolist() == attackers.tolist()


def test_who_begins_today_is_let_pass_where_this_round_alone_does_not_count():
    """But for the first round, which has no other to be told by."""
    attackers = np.arange(N) >= 22
    today = honest_updates(0) * np.where(attackers, -1.0, 1.0)[:, None]
    past = tuple(honest_updates(seed) for seed in (1, 2, 3))
    how = {"alpha": 0.02, "later": False, "groups": False, "today_alone": False}
    assert not reversed_group(evidence_of(today, past), np.arange(N) < K, **how).group.any()
    assert reversed_group(evidence_of(today), np.arange(N) < K, **how).group.tolist() == attackers.tolist()


def test_the_common_part_tells_the_sides():
    attackers = np.arange(N) >= 22
    updates = keep_and_reverse(honest_updates(0), attackers)
    found = reversed_group(evidence_of(updates), np.arange(N) < K, 0.02, later=False)
    assert found.common[attackers].max() < 0 < found.common[~attackers].min()


def test_a_looser_alpha_asks_for_less():
    for past in (False, True):
        bounds = [required_nats(alpha, past=past, later=False) for alpha in (0.005, 0.02, 0.1)]
        assert bounds == sorted(bounds, reverse=True)
        assert required_nats(0.02, past=past, later=True) > required_nats(0.02, past=past, later=False)
    assert required_nats(0.02, past=True, later=False) < required_nats(0.02, past=False, later=False)


@pytest.mark.parametrize(
    ("nats", "share", "how", "found"),
    [
        (4.1, -1.0, {}, True),
        (50.0, 1.0, {}, False),
        (3.9, -1.0, {}, False),
        (4.1, -1.0, {"alpha": 0.005}, False),
        (3.9, -1.0, {"alpha": 0.1}, True),
        (4.1, -1.0, {"later": True}, False),
        (50.0, -1.0, {"groups": False}, False),
    ],
)
@pytest.mark.parametrize("past", [False, True])
def test_a_group_opposes_the_rest_if_it_is_clear_and_has_nothing_of_what_they_share(
    nats: float, share: float, how: dict[str, float], found: bool, past: bool, monkeypatch: pytest.MonkeyPatch
):
    """Clients who flip, and honest clients, whatever the search for sides says of them, today or of all rounds."""
    attackers = np.arange(N) >= 22
    sign = np.where(attackers, share, 1.0)[:, None]
    rounds = [honest_updates(seed, differences=1.0) * sign for seed in (range(3) if past else range(1))]
    answers = iter([(attackers, 0.0)] * past + [(attackers, nats)])
    monkeypatch.setattr(Sides, "flipped", lambda *_: np.zeros(N, dtype=bool))
    monkeypatch.setattr(reversal._Telling, "_standing_out", lambda *_: np.zeros(N, dtype=bool))
    monkeypatch.setattr(Sides, "opposed", lambda _: next(answers))
    evidence = evidence_of(rounds[0], tuple(rounds[1:]))
    group = reversed_group(evidence, np.arange(N) < K, **{"alpha": 0.02, "later": False, **how}).group
    assert group.tolist() == (attackers & found).tolist()


@pytest.mark.parametrize(("certain", "of_the_group"), [(29, True), (10, False)])
def test_the_group_of_who_is_certain_to_be_on_the_other_side_goes_with_them(
    certain: int, of_the_group: bool, monkeypatch: pytest.MonkeyPatch
):
    """And no other group does."""
    attackers, alone = np.arange(N) >= 22, np.arange(N) == certain
    updates = honest_updates(0, differences=1.0) * np.where(attackers | alone, -1.0, 1.0)[:, None]
    monkeypatch.setattr(Sides, "flipped", lambda *_: alone.copy())
    monkeypatch.setattr(reversal._Telling, "_standing_out", lambda *_: np.zeros(N, dtype=bool))
    monkeypatch.setattr(Sides, "opposed", lambda _: (attackers, 50.0))
    group = reversed_group(evidence_of(updates), np.arange(N) < K, 0.02, later=False).group
    assert group.tolist() == (attackers if of_the_group else alone).tolist()


@pytest.mark.parametrize("clearer", [0, 1])
def test_of_what_today_and_all_rounds_say_the_clearer_counts(clearer: int, monkeypatch: pytest.MonkeyPatch):
    """Not both together."""
    groups = np.arange(N) >= 22, np.arange(N) >= 24
    rounds = [honest_updates(seed, differences=1.0) * np.where(groups[0], -1.0, 1.0)[:, None] for seed in range(3)]
    answers = iter([(group, 9.0 if at == clearer else 8.0) for at, group in enumerate(groups)])
    monkeypatch.setattr(reversal._Telling, "_standing_out", lambda *_: np.zeros(N, dtype=bool))
    monkeypatch.setattr(Sides, "flipped", lambda *_: np.zeros(N, dtype=bool))
    monkeypatch.setattr(Sides, "opposed", lambda _: next(answers))
    evidence = evidence_of(rounds[0], tuple(rounds[1:]))
    group = reversed_group(evidence, np.arange(N) < K, 0.02, later=False).group
    assert group.tolist() == groups[clearer].tolist()


def test_disagreeing_anchors_reject_nobody():
    """With known-benign clients on both sides, no side is theirs."""
    attackers = np.arange(N) % 2 == 1  # two of the four anchors among them
    assert not group_of(keep_and_reverse(honest_updates(1), attackers)).any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("differences", [2.0, 8.0])
def test_a_known_benign_client_that_reverses_what_is_shared_is_suspected(differences: float, seed: int):
    attackers = np.isin(np.arange(N), [0, *range(20, N)])
    updates = keep_and_reverse(honest_updates(seed, differences=differences), attackers)
    decision = filters.get("anchored-views").decide(updates, trusted=range(K + 1))
    assert decision.reason[0] == "suspect-anchor"
    assert (~decision.accepted).tolist() == attackers.tolist()
