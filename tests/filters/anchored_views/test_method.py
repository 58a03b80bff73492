"""The filter as a whole: who is rejected, for what reason, and what does not matter."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from encagg_cli import filters
from encagg_cli.errors import UsageError
from encagg_cli.filters import Decision
from encagg_cli.filters.anchored_views import detector, in_words, reversal
from encagg_cli.filters.anchored_views import scene as scene_
from encagg_cli.filters.anchored_views.anchors import by_chance_apart
from encagg_cli.filters.anchored_views.copies import coincide, copied
from encagg_cli.filters.anchored_views.detector import Findings, Searches, detect, required_gain
from encagg_cli.filters.anchored_views.scene import Scene
from encagg_cli.filters.anchored_views.standing import Outlook
from encagg_cli.filters.anchored_views.views import View
from encagg_cli.sketch import ArraySource, GramNeed, sketch_round
from encagg_cli.sketch.signs import SignCosinesNeed

N, K, D = 40, 5, 300
ATTACKERS = np.arange(28, N)
ONLY_VIEWS = Searches(sides=False, groups=False)


def honest(seed: int = 0, *, spread: float = 1.0) -> np.ndarray:
    """Honest uploads of ten overlapping classes: a common direction, each client's own mixture, and noise."""
    rng = np.random.default_rng(seed)
    common, classes = rng.standard_normal(D), rng.standard_normal((10, D))
    mixture = rng.dirichlet(np.full(10, 0.5), size=N)
    return common + spread * (mixture - mixture.mean(axis=0)) @ classes * 1.5 + rng.standard_normal((N, D)) * 0.7


def decide(updates: np.ndarray, text: str = "anchored-views", trusted=range(K), **options) -> Decision:
    return filters.get(text).decide(updates, trusted=list(trusted), **options)


def scene_of(updates: np.ndarray, trusted: np.ndarray) -> Scene:
    source = ArraySource(updates.astype(np.float32), [f"{i:02d}" for i in range(len(updates))], trusted)
    sketch = sketch_round(source, [GramNeed(), SignCosinesNeed()])
    return Scene(sketch.gram, sketch[SignCosinesNeed()])


def attacked(name: str, seed: int = 0) -> np.ndarray:
    updates, rng = honest(seed), np.random.default_rng(seed + 100)
    kept = updates[: ATTACKERS[0]]
    mean, deviation = kept.mean(axis=0), kept.std(axis=0)
    own, noise = updates[ATTACKERS], rng.standard_normal((len(ATTACKERS), D))
    updates[ATTACKERS] = {
        "sign-flip": -own,
        "scaling": 10 * own,
        "noise": noise * np.sqrt((kept**2).mean()),
        "little-is-enough": np.tile(mean - 1.5 * deviation, (len(own), 1)),
        "noisy colluders": mean - 1.5 * deviation + 0.5 * deviation * noise,
        "inner product": np.tile(-0.1 * mean, (len(own), 1)),
        "shadows": updates[0] - 0.3 * mean + 0.2 * deviation * noise,
    }[name]
    return updates


REASONS = {
    "sign-flip": {"reversed", "separate"},
    "scaling": {"distant"},
    "noise": {"unrelated", "distant"},
    "little-is-enough": {"copy"},
    "noisy colluders": {"colluding", "separate"},
    "inner product": {"copy"},
    "shadows": {"shadowing", "colluding"},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", REASONS)
def test_attackers_are_rejected_for_what_they_did_and_nobody_else_is(name, seed):
    decision = decide(attacked(name, seed))
    assert np.flatnonzero(~decision.accepted).tolist() == ATTACKERS.tolist()
    assert {decision.reason[i] for i in ATTACKERS} <= REASONS[name]


def test_a_round_without_attack_loses_nobody():
    decision = decide(honest())
    assert decision.accepted.all()
    assert set(decision.reason) == {"kept", "trusted"}


def test_without_attack_no_larger_share_is_lost_than_alpha_says():
    lost = [int((~decide(honest(seed)).accepted).sum()) for seed in range(40)]
    assert sum(lost) / (40 * (N - K)) <= 0.02


def test_a_majority_of_attackers_is_found_too():
    updates = honest()
    updates[12:] *= -1.0
    decision = decide(updates)
    assert np.flatnonzero(~decision.accepted).tolist() == list(range(12, N))


def test_a_lone_attacker_is_found():
    updates = honest()
    updates[-1] *= 10.0
    assert np.flatnonzero(~decide(updates).accepted).tolist() == [N - 1]


def test_two_groups_in_one_round_are_told_apart():
    updates = honest()
    updates[28:34] = updates[28]
    updates[34:] *= 8.0
    decision = decide(updates)
    assert np.flatnonzero(~decision.accepted).tolist() == ATTACKERS.tolist()
    assert decision.cluster is not None
    assert len(set(decision.cluster[28:34])) == len(set(decision.cluster[34:])) == 1
    assert decision.cluster[28] != decision.cluster[34]
    assert in_words(decision)[28] == "one of 6 identical uploads"


def test_copies_of_a_known_benign_upload_are_rejected_and_the_upload_is_not():
    updates = honest()
    updates[-3:] = updates[0]
    decision = decide(updates)
    assert np.flatnonzero(~decision.accepted).tolist() == [N - 3, N - 2, N - 1]
    assert decision.reason[0] == "trusted"


def test_copied_groups_by_hand():
    points = np.array([0.0, 1.0, 5.0, 5.0, 9.0, 1.0, 9.005])
    trusted = np.arange(7) < 2
    groups = copied(coincide(np.abs(points[:, None] - points[None]), trusted), trusted, np.ones(7, dtype=bool))
    assert [group.tolist() for group in groups] == [[5], [2, 3], [4, 6]]


def test_copies_by_way_of_others_are_copies_in_any_order():
    points = np.array([0.0, 1.0, 5.0, 5.006, 5.012])
    for order in ([0, 1, 2, 3, 4], [0, 1, 3, 4, 2], [0, 1, 4, 2, 3]):
        distances = np.abs(points[order][:, None] - points[order][None])
        trusted = np.arange(5) < 2
        groups = copied(coincide(distances, trusted), trusted, np.ones(5, dtype=bool))
        assert [group.tolist() for group in groups] == [[2, 3, 4]]


def test_two_known_benign_clients_with_one_upload_do_not_hide_who_else_copied():
    points = np.array([0.0, 0.0, 1.0, 5.0, 5.0001])
    trusted = np.arange(5) < 3
    groups = copied(coincide(np.abs(points[:, None] - points[None]), trusted), trusted, np.ones(5, dtype=bool))
    assert [group.tolist() for group in groups] == [[3, 4]]


def test_known_benign_clients_with_one_upload_are_both_believed():
    updates = honest()
    updates[1] = updates[0]
    assert set(decide(updates).reason) == {"kept", "trusted"}
    alike = decide(np.ones((20, D)))
    assert np.flatnonzero(alike.accepted).tolist() == list(range(K))
    assert set(alike.reason) == {"copy", "trusted"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decoys", ["none", "copies", "noise"])
def test_two_decoys_do_not_shield_who_has_nothing_of_what_all_share(decoys: str, seed: int):
    """Attackers who keep their own upload, less the mean of all: only all that is known of them together tells."""
    updates = honest(seed, spread=2.0)
    updates[ATTACKERS] -= updates[: ATTACKERS[0]].mean(axis=0)
    if decoys == "copies":
        updates[ATTACKERS[1]] = updates[ATTACKERS[0]]
    elif decoys == "noise":
        updates[ATTACKERS[:2]] = 8.0 * np.random.default_rng(seed).standard_normal((2, D))
    decision = decide(updates)
    assert np.flatnonzero(~decision.accepted).tolist() == ATTACKERS.tolist()
    assert decision.reason.count("reversed") == len(ATTACKERS) - 2 * (decoys != "none")


def test_where_there_are_copies_the_others_are_still_drawn():
    decision = decide(attacked("little-is-enough"))
    assert decision.plane is not None
    assert np.flatnonzero(np.isnan(decision.plane[:, 0])).tolist() == ATTACKERS.tolist()
    assert np.isfinite(decision.trace["view likeness"]).sum() == ATTACKERS[0]


def test_every_reason_has_words():
    updates = honest()
    updates[N - 1, 0] = np.nan
    assert in_words(decide(updates))[-1] == "not a number somewhere, or infinite"


@pytest.mark.parametrize("known_benign", [2, 3, 4, 5, 8, 10])
def test_with_fewer_known_benign_clients_alpha_is_as_much_smaller_as_honest_groups_are_oftener_without_one(
    known_benign: int, monkeypatch: pytest.MonkeyPatch
):
    share = np.linspace(0.0, 1.0, 10_001)

    def lost(known: int) -> float:
        return float((share * (1.0 - share) ** known).max())

    exact = lost(5) / lost(min(known_benign, 8))
    assert by_chance_apart(known_benign) == pytest.approx(exact, abs=0.05)
    trusted = np.arange(N) < known_benign
    scene = scene_of(attacked("scaling"), trusted)
    evidence = detect(scene, trusted, 0.02).evidence[ATTACKERS].max()
    ratio = required_gain(0.02 * min(1.0, by_chance_apart(known_benign)), N) / required_gain(0.02, N)
    monkeypatch.setattr(detector, "by_chance_apart", lambda _: 1.0)
    assert detect(scene, trusted, 0.02).evidence[ATTACKERS].max() / evidence == pytest.approx(ratio)


def test_alpha_sets_how_clear_a_cut_must_be():
    assert required_gain(0.02, 50) == pytest.approx(10.5)
    assert required_gain(0.002, 50) == pytest.approx(10.5 + 2.6 * np.log(10))
    updates = attacked("noisy colluders")
    updates[ATTACKERS] = honest()[ATTACKERS] * 0.75 + updates[ATTACKERS] * 0.25
    rejected = [int((~decide(updates, f"anchored-views(alpha={alpha})").accepted).sum()) for alpha in (1e-9, 1e-4, 0.2)]
    assert rejected == sorted(rejected)
    assert rejected[0] < rejected[-1]


def test_a_view_can_ask_for_a_clearer_split(monkeypatch: pytest.MonkeyPatch):
    updates = honest()
    values = np.random.default_rng(1).standard_normal(N) + np.where(np.arange(N) < 28, 0.0, 8.0)
    cut = []
    for bar in (1.0, 100.0):

        def views_of(_: object, alive: np.ndarray, bar: float = bar) -> tuple[View, ...]:
            return (View("made up", values[alive], "", "separate", bar=bar),)

        monkeypatch.setattr(scene_, "views_of", views_of)
        found = detect(scene_of(updates, np.arange(N) < K), np.arange(N) < K, 0.02, searches=ONLY_VIEWS)
        cut.append(np.flatnonzero(found.rejected).tolist())
    assert cut == [ATTACKERS.tolist(), []]


@pytest.mark.parametrize("apart", [0.0, 8.0])
def test_the_searches_are_told_whom_a_view_would_cut_off_by_itself(apart: float, monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(1).standard_normal(N) + np.where(np.arange(N) < 28, 0.0, apart)
    told: list[list[int] | None] = []
    weighed: list[list[str]] = []

    def reversed_group(*how: object, outlook: Outlook, **options: Any) -> reversal.Reversal:
        told.append(None if outlook.cut is None else np.flatnonzero(outlook.cut).tolist())
        weighed.append([view.name for view in outlook.views])
        return reversal.reversed_group(*how, outlook=outlook, **options)

    monkeypatch.setattr(scene_, "views_of", lambda _, alive: (View("made up", values[alive], "", "separate"),))
    monkeypatch.setattr(detector, "reversed_group", reversed_group)
    detect(scene_of(honest(), np.arange(N) < K), np.arange(N) < K, 0.02)
    assert told[0] == (ATTACKERS.tolist() if apart else None)
    assert weighed[0] == ["made up", "nearest known-benign"]


@pytest.mark.parametrize("against", [False, True])
def test_a_view_can_spare_groups_that_have_what_the_others_share(against: bool, monkeypatch: pytest.MonkeyPatch):
    """Unless they stand apart very clearly, and only on the side with that word."""
    monkeypatch.setattr(scene_, "distance_for_its_kind", lambda excess, *_: View("none", np.zeros_like(excess), "", ""))
    updates = attacked("sign-flip") if against else honest()
    scene = scene_of(updates, np.arange(N) < K)
    scene.look(np.arange(N))
    share = scene.shared(np.arange(N), np.arange(N) >= 28)
    assert share < -0.5 if against else share > 0.5
    chance = np.random.default_rng(1).standard_normal(N)

    def cut_by(apart: float, most: Mapping[str, float]) -> list[int]:
        values = np.where(np.arange(N) < 28, 0.0, apart) + chance

        def views_of(_: object, alive: np.ndarray) -> tuple[View, ...]:
            return (View("made up", values[alive], "unrelated", "separate", most_shared=most),)

        monkeypatch.setattr(scene_, "views_of", views_of)
        found = detect(scene_of(updates, np.arange(N) < K), np.arange(N) < K, 0.02, searches=ONLY_VIEWS)
        return np.flatnonzero(found.rejected).tolist()

    more, less = {"separate": share - 0.01}, {"separate": share + 0.01}
    assert [cut_by(8.0, most) for most in (more, less, {})] == [[], ATTACKERS.tolist(), ATTACKERS.tolist()]
    assert cut_by(1000.0, more) == ATTACKERS.tolist()
    assert cut_by(8.0, {"unrelated": share - 0.01}) == ATTACKERS.tolist()
    assert cut_by(-8.0, more) == ATTACKERS.tolist()


def test_neither_order_nor_scale_nor_the_names_and_signs_of_coordinates_matter():
    updates = attacked("noisy colluders", 4)
    decision = decide(updates)
    rng = np.random.default_rng(5)
    turned = updates[:, rng.permutation(D)] * rng.choice([-1.0, 1.0], D)
    for changed in (updates * 1e-3, updates * 1e4, turned):
        other = decide(changed)
        assert np.array_equal(other.accepted, decision.accepted)
        assert other.reason == decision.reason
        assert other.score == pytest.approx(decision.score, abs=1e-3)
    order = np.random.default_rng(6).permutation(N)
    shuffled = decide(updates[order], trusted=np.flatnonzero(order < K))
    assert np.array_equal(shuffled.accepted, decision.accepted[order])
    assert shuffled.score == pytest.approx(decision.score[order], abs=1e-6)


@pytest.mark.parametrize("name", REASONS)
def test_scores_lie_in_the_unit_interval_and_respect_the_verdict(name):
    decision = decide(attacked(name))
    assert decision.score.min() >= 0.0
    assert decision.score.max() <= 1.0
    assert decision.threshold is not None
    assert np.array_equal(decision.score > decision.threshold, ~decision.accepted)


def test_the_aggregate_is_the_mean_of_the_accepted():
    decision = decide(attacked("sign-flip"))
    assert decision.weight is not None
    assert decision.weight == pytest.approx(decision.accepted / decision.accepted.sum())


def test_without_a_known_benign_upload_nothing_is_accepted(judge_stored):
    decision = judge_stored(filters.get("anchored-views"), honest())
    assert not decision.accepted.any()
    assert set(decision.reason) == {"no-reference"}
    assert in_words(decision)[0].startswith("nothing to compare with")


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_known_benign_clients_are_enough_for_a_plain_attack(k, judge_stored):
    decision = judge_stored(filters.get("anchored-views"), attacked("scaling"), range(k))
    assert np.flatnonzero(~decision.accepted).tolist() == ATTACKERS.tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_round_too_small_to_compare_is_accepted_but_for_copies(n, judge_stored):
    decision = judge_stored(filters.get("anchored-views"), honest()[:n], [0])
    assert decision.accepted.all()


def test_hostile_sizes_do_no_harm():
    updates = honest().astype(np.float32)
    updates[-1] *= np.float32(1e30)
    updates[-2] = 0.0
    updates[-3] = np.nan
    decision = decide(updates)
    assert np.flatnonzero(~decision.accepted).tolist() == [N - 3, N - 2, N - 1]
    assert decision.reason[N - 3] == "non-finite"


def test_settings_out_of_range_are_refused():
    with pytest.raises(UsageError, match="alpha"):
        filters.get("anchored-views(alpha=0)")


@pytest.mark.parametrize("name", ["sign-flip", "scaling", "noise"])
def test_a_poisoned_known_benign_client_is_reported_and_does_not_shield_its_kind(name):
    decision = decide(attacked(name), trusted=[*range(K), N - 1])
    assert decision.reason[N - 1] == "suspect-anchor"
    assert np.flatnonzero(~decision.accepted).tolist() == ATTACKERS.tolist()
    assert decision.score[N - 1] > 0.5


def test_honest_known_benign_clients_are_not_suspected():
    for name in REASONS:
        assert "suspect-anchor" not in decide(attacked(name, 1)).reason


def test_copying_a_known_benign_upload_does_not_bring_it_into_disrepute():
    updates = honest()
    updates[-12:] = updates[0]
    decision = decide(updates)
    assert decision.reason[0] == "trusted"
    assert np.flatnonzero(~decision.accepted).tolist() == ATTACKERS.tolist()


def test_an_anchor_that_has_what_all_share_is_not_tried_for_reversal(monkeypatch: pytest.MonkeyPatch):
    """Nor is any anchor tried for being in a group without a sure member, or for this round alone."""
    tried = []

    def detect(_: object, others: np.ndarray, alpha: float, among: np.ndarray, searches: Searches) -> Findings:
        tried.append((int(np.flatnonzero((np.arange(8) < 3) & ~others)[0]), searches, alpha, bool(among.all())))
        return Findings.none(8)

    monkeypatch.setattr(detector, "detect", detect)
    known = Findings.none(8)
    known.common[:] = [0.5, -0.5, np.nan, *[1.0] * 5]
    scene = scene_of(honest()[:8], np.arange(8) < 3)
    assert detector.suspect_anchor(scene, np.arange(8) < 3, 0.03, known) is None
    assert [(anchor, searches.sides, searches.groups) for anchor, searches, _, _ in tried] == [
        (0, False, False),
        (1, True, False),
        (2, True, False),
    ]
    assert all(alpha == pytest.approx(0.01) and everybody for _, _, alpha, everybody in tried)
    assert not any(searches.today_alone for _, searches, _, _ in tried)


@pytest.mark.parametrize("seed", [0, 1])
def test_of_hundreds_of_clients_no_axis_that_few_known_benign_do_not_part_is_held_against_the_honest(seed: int):
    """Six axes along which honest clients differ by far more than what they share, and five known-benign."""
    n, k, rng = 200, 5, np.random.default_rng(seed)
    step, axes = 0.2 * rng.standard_normal(3000), rng.standard_normal((6, 3000))
    updates = step + rng.standard_normal((n, 6)) @ axes + rng.standard_normal((n, 3000))
    updates[-50:] *= -1.0
    method = filters.get("anchored-views")
    for _ in range(2):
        decision = method.decide(updates + 0.5 * rng.standard_normal(updates.shape), trusted=range(k))
        assert np.flatnonzero(~decision.accepted).tolist() == list(range(n - 50, n))
