"""Groups that stand out by all that is known of them together."""

from typing import Any

import numpy as np
import pytest

from encagg_cli.filters.anchored_views import standing
from encagg_cli.filters.anchored_views.cloud import Cloud
from encagg_cli.filters.anchored_views.evidence import Evidence
from encagg_cli.filters.anchored_views.parting import parting_loss, partings
from encagg_cli.filters.anchored_views.reversal import _HIDING, _STANDING_OUT
from encagg_cli.filters.anchored_views.ridge import alike
from encagg_cli.filters.anchored_views.sharing import contrast_and_share
from encagg_cli.filters.anchored_views.sides import Sides, loss_of
from encagg_cli.filters.anchored_views.split import gain_of
from encagg_cli.filters.anchored_views.standing import NO_VIEWS, Found, Outlook, standing_out
from encagg_cli.filters.anchored_views.views import View
from tests.filters.anchored_views.test_cloud import ATTACKERS, N, hidden, honest_updates

K = 5
ANCHORS = np.arange(N) < K
NOBODY = np.zeros(N, dtype=bool)


def cosines_of(updates: np.ndarray) -> np.ndarray:
    gram = updates @ updates.T
    size = np.sqrt(np.diag(gram))
    return gram / np.outer(size, size)


def both(
    *rounds: np.ndarray,
    anchors: np.ndarray = ANCHORS,
    outlook: Outlook = NO_VIEWS,
    there: tuple[np.ndarray, ...] = (),
    updates_as_they_are: tuple[np.ndarray, ...] | None = None,
) -> tuple[Found, Found]:
    """Who stands out and who hides, by rounds of updates (n, d), of which some clients may not have been `there`.

    Their cosines tell sides, and are those of `updates_as_they_are`, too, unless these are given.
    """
    everybody = np.ones(len(anchors), dtype=bool)
    there = there or (everybody,) * len(rounds)
    cosines, clouds = [], []
    for updates, present in zip(rounds, there, strict=True):
        cosines.append(np.where(np.outer(present, present), cosines_of(updates), np.nan))
        place = np.where(present, np.cumsum(present) - 1, -1)
        those = updates[present] if present.any() else updates
        clouds.append(Cloud.of(those @ those.T).among(place))
    evidence = Evidence.of(cosines[0], cosines[1:], updates_as_they_are, clouds)
    sides = [Sides(evidence.losses[0], anchors), Sides(evidence.together(anchors)[0], anchors)]
    quotients = [evidence.quotients[0], evidence.parting(anchors)]
    return standing_out(evidence, sides, quotients, outlook, anchors)


def found(*rounds: np.ndarray, **how: Any) -> Found:
    return both(*rounds, **how)[0]


def view_of(values: np.ndarray, low: str = "low", high: str = "high") -> View:
    return View("a view", values, low, high)


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6])
def test_attackers_stand_out_and_honest_groups_do_not(share: float):
    """Who hides in the principal plane, and reverses what all share."""
    attackers = np.arange(N) >= N - round(share * N)
    rounds = [honest_updates(seed) for seed in range(4)]
    groups, strengths = zip(*(found(hidden(updates, attackers)) for updates in rounds), strict=True)
    assert np.mean([(group == attackers).mean() for group in groups]) > 0.95
    assert min(strengths) > _STANDING_OUT > max(found(updates)[1] for updates in rounds)


def test_the_strength_is_what_it_says():
    updates = hidden(honest_updates(0), ATTACKERS)
    values = np.random.default_rng(0).standard_normal(N) + 3.0 * ATTACKERS
    outlook = Outlook([view_of(values), view_of(5.0 * ATTACKERS - values, high="")], required=8.0)
    cosines = cosines_of(updates)
    as_they_are = cosines_of(updates * np.random.default_rng(1).lognormal(size=updates.shape[1]))
    group, strength = found(updates, outlook=outlook, updates_as_they_are=(as_they_are,))
    assert np.array_equal(group, ATTACKERS)
    quotient = parting_loss(cosines)
    rivals = [row for row in partings(quotient, NOBODY)[1] if abs(row[ANCHORS].sum()) < K]
    parting = quotient.gains(np.where(group, -1.0, 1.0)[None])[0] - quotient.gains(np.array(rivals)).max()
    collapse = Cloud.of(updates @ updates.T).collapse(group[None])[0]
    apart = gain_of(values, group) / 8.0
    assert 0 < apart < 4
    sides = Sides(loss_of(cosines), ANCHORS).clearer_than_rivals(group[None])[0]
    told = min(max(parting, sides), 20.0)
    others = 2.0 * contrast_and_share(alike(cosines), group)[0] + 0.7 * collapse + 3.0 * apart + 0.2 * told
    assert strength == pytest.approx(others + 15.0 * farther(cosines, as_they_are, group))
    _, by_law = found(updates, outlook=outlook)  # where the signs are not told
    lawful = 2.0 / np.pi * np.arcsin(np.minimum(cosines, 1.0))
    assert by_law == pytest.approx(others + 15.0 * farther(lawful, cosines, group))


def farther(one: np.ndarray, other: np.ndarray, group: np.ndarray) -> float:
    """By how much the squared distance of the centres is larger by one than by the other cosines of clients."""
    distances = []
    for cosines in (one, other):
        pairs = ~np.eye(len(group), dtype=bool)
        within = [cosines[np.outer(side, side) & pairs].mean() for side in (group, ~group)]
        distances.append(sum(within) - 2.0 * cosines[np.outer(group, ~group)].mean())
    return distances[0] - distances[1]


def test_what_is_no_view_and_no_search_is_a_mean_over_the_rounds_that_tell(monkeypatch: pytest.MonkeyPatch):
    """One knows everybody, one half of the clients, one too few to tell, and one nobody."""
    monkeypatch.setattr(standing, "_TOLD", 0.0)
    rounds = tuple(hidden(honest_updates(seed), ATTACKERS) for seed in range(4))
    there = np.arange(N) >= 0, np.arange(N) % 2 == 0, (np.arange(N) < 3) | (np.arange(N) > 40), NOBODY
    (group, strength), (hidden_, hiding) = both(*rounds, there=there)
    assert (group == ATTACKERS).mean() > 0.9
    assert np.array_equal(hidden_, group)
    contrasts, shares, collapses, by_signs = [], [], [], []
    for updates, present in zip(rounds[:2], there, strict=False):
        of = updates[present]
        contrast, share = contrast_and_share(alike(cosines_of(of)), group[present])
        contrasts.append(contrast)
        shares.append(share)
        collapses.append(Cloud.of(of @ of.T).collapse(group[present][None])[0])
        lawful = 2.0 / np.pi * np.arcsin(np.minimum(cosines_of(of), 1.0))
        by_signs.append(farther(lawful, cosines_of(of), group[present]))
    means = [np.mean(each) for each in (contrasts, collapses, by_signs)]
    assert strength == pytest.approx(np.array([2.0, 0.7, 15.0]) @ means)
    assert np.mean(shares) < -0.1
    assert hiding == pytest.approx(1.5 * np.mean(contrasts) + np.mean(collapses) + 0.8)
    monkeypatch.setattr(standing, "_NEXT_TO_NOTHING", -1.0)
    (_, (hidden_, hiding)) = both(*rounds, there=there)
    assert np.array_equal(hidden_, group)
    assert hiding == pytest.approx(1.5 * np.mean(contrasts) + np.mean(collapses) - 8.0 * np.mean(shares))


def test_rounds_together_tell_what_one_leaves_open():
    """Attackers who keep some of what all share, and of what they differ in."""
    rounds = []
    for honest in (honest_updates(seed) for seed in range(4)):
        attacked = hidden(honest, ATTACKERS, kept=0.4)
        rounds.append(np.where(ATTACKERS[:, None], attacked + 1.3 * honest.mean(axis=0), attacked))
    assert max(found(updates)[1] for updates in rounds) < _STANDING_OUT
    group, strength = found(*rounds)
    assert np.array_equal(group, ATTACKERS)
    assert strength > _STANDING_OUT


def test_a_group_that_only_a_view_has_seen_is_weighed(monkeypatch: pytest.MonkeyPatch):
    nothing = np.zeros((0, N))
    monkeypatch.setattr(Sides, "choices", (np.zeros(0), nothing))
    monkeypatch.setattr(standing, "partings", lambda *_: (np.zeros(0), nothing))
    updates = hidden(honest_updates(1), ATTACKERS)
    assert found(updates) == (pytest.approx(NOBODY), -np.inf)
    values = np.random.default_rng(0).standard_normal(N) + 4.0 * ATTACKERS
    group, strength = found(updates, outlook=Outlook([view_of(values)], required=8.0))
    assert np.array_equal(group, ATTACKERS)
    assert strength > _STANDING_OUT


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("place", "weighed"), [(5, True), (6, False)])
def test_the_best_six_of_each_search_for_sides_are_weighed(
    which: int, place: int, weighed: bool, monkeypatch: pytest.MonkeyPatch
):
    """Of today's, and of that of all rounds together."""
    monkeypatch.setattr(standing, "partings", lambda *_: (np.zeros(0), np.zeros((0, N))))
    updates = hidden(honest_updates(1), ATTACKERS)
    cosines = cosines_of(updates)
    sides = Sides(loss_of(cosines), ANCHORS), Sides(loss_of(cosines), ANCHORS)
    signs = np.ones((7, N))
    signs[place, ATTACKERS] = -1.0
    for at, each in enumerate(sides):
        vars(each)["choices"] = np.zeros(7), signs if at == which else np.ones((7, N))
    evidence = Evidence.of(cosines, clouds=[Cloud.of(updates @ updates.T)])
    (group, strength), _ = standing_out(evidence, sides, [parting_loss(cosines)], NO_VIEWS, ANCHORS)
    assert np.array_equal(group, ATTACKERS & weighed)
    assert np.isfinite(strength) == weighed


def test_a_view_tells_of_the_sides_that_have_a_word():
    values = np.random.default_rng(0).standard_normal(N) + 6.0 * ATTACKERS
    for low, high, told in (("", "high", True), ("low", "high", True), ("low", "", False)):
        outlook = Outlook([view_of(values, low, high)], required=5.0)
        assert any(np.array_equal(group, ATTACKERS) for group in outlook.groups(ANCHORS)) == told
        assert outlook.apart(ATTACKERS) == (pytest.approx(min(gain_of(values, ATTACKERS) / 5.0, 4.0)) if told else 0.0)
    faint = Outlook([view_of(values)], required=gain_of(values, ATTACKERS) / 0.29)
    assert not faint.groups(ANCHORS)
    assert 0.28 < faint.apart(ATTACKERS) < 0.3


@pytest.mark.parametrize(("parting", "sides", "less"), [(-2.0, -2.0, 3.0), (-0.5, -2.0, 0.0), (-2.0, -0.5, 0.0)])
def test_what_is_told_worse_than_what_parts_the_known_benign_must_stand_out_more(
    parting: float, sides: float, less: float, monkeypatch: pytest.MonkeyPatch
):
    """As where clients have next to nothing but two classes."""
    updates = hidden(honest_updates(0), ATTACKERS)
    quotient = parting_loss(cosines_of(updates))
    own = quotient.gains(np.where(ATTACKERS, -1.0, 1.0)[None])[0]
    monkeypatch.setattr(standing, "gain_of_rivals", lambda *_: own - parting)
    monkeypatch.setattr(
        Sides, "clearer_than_rivals", lambda _, groups: np.where((groups == ATTACKERS).all(1), sides, -9)
    )
    monkeypatch.setattr(standing, "_TOLD", 0.0)
    (group, strength), (hiding, _) = both(updates)
    monkeypatch.setattr(standing, "_BEATEN", 0.0)
    assert np.array_equal(group, ATTACKERS)
    assert found(updates)[1] - strength == pytest.approx(less)
    assert np.array_equal(hiding, ATTACKERS)


@pytest.mark.parametrize(("today", "together", "told"), [(9.0, -9.0, -9.0), (-9.0, 9.0, 9.0)])
def test_it_is_all_rounds_together_that_tell_sides_better_or_worse(
    today: float, together: float, told: float, monkeypatch: pytest.MonkeyPatch
):
    updates = hidden(honest_updates(0), ATTACKERS)
    cosines = cosines_of(updates)
    monkeypatch.setattr(standing, "gain_of_rivals", lambda *_: 1e9)
    monkeypatch.setattr(standing, "_BEATEN", 0.0)
    sides = Sides(loss_of(cosines), ANCHORS), Sides(loss_of(cosines), ANCHORS)
    for each, clearer in zip(sides, (today, together), strict=True):
        vars(each)["clearer_than_rivals"] = lambda groups, clearer=clearer: np.full(len(groups), clearer)
    evidence = Evidence.of(cosines, clouds=[Cloud.of(updates @ updates.T)])
    strengths = []
    for weight in (0.2, 0.0):
        monkeypatch.setattr(standing, "_TOLD", weight)
        strengths.append(standing_out(evidence, sides, [parting_loss(cosines)], NO_VIEWS, ANCHORS)[0][1])
    assert strengths[0] - strengths[1] == pytest.approx(0.2 * told)


def test_how_much_clearer_than_rivals_sides_are():
    loss = loss_of(cosines_of(hidden(honest_updates(0), ATTACKERS)))
    sides, signs = Sides(loss, ANCHORS), np.where(ATTACKERS, -1.0, 1.0)
    rivals = [row @ loss @ row for row in sides.rivals]
    expected = N / 2 * np.log(min(rivals) / (signs @ loss @ signs))
    assert sides.clearer_than_rivals(ATTACKERS[None]) == pytest.approx([expected])
    alone = Sides(loss, np.arange(N) == 0)  # one known-benign client cannot be parted: beside all on one side, then
    expected = N / 2 * np.log(loss.sum() / (signs @ loss @ signs))
    assert alone.clearer_than_rivals(ATTACKERS[None]) == pytest.approx([expected])


def test_the_order_of_the_clients_does_not_matter():
    rounds = [hidden(honest_updates(seed), ATTACKERS) for seed in (3, 4)]
    order = np.random.default_rng(0).permutation(N)
    values = np.random.default_rng(0).standard_normal(N) + 3.0 * ATTACKERS
    group, strength = found(*rounds, outlook=Outlook([view_of(values)], 8.0))
    turned, again = found(
        *(updates[order] for updates in rounds), anchors=ANCHORS[order], outlook=Outlook([view_of(values[order])], 8.0)
    )
    assert np.array_equal(group[order], turned)
    assert again == pytest.approx(strength, abs=1e-6)


def test_nobody_stands_out_where_nobody_may():
    updates = honest_updates(0)
    for anchors in (~NOBODY, np.arange(N) > 0):
        assert found(updates, anchors=anchors) == (pytest.approx(NOBODY), -np.inf)
    few = np.arange(7) < 2
    group, _ = found(updates[:7], anchors=few)
    assert not group.any()  # two would leave five near


@pytest.mark.parametrize(("of_columns", "nearer"), [(0.1, -0.1), (0.2, -0.2)])
def test_who_is_much_nearer_by_signs_than_by_the_updates_hides_less(of_columns: float, nearer: float):
    """The updates lie apart in a few large coordinates, by which signs are the same."""
    updates = hidden(honest_updates(0), ATTACKERS)
    cosines = cosines_of(updates)
    apart = cosines - of_columns * np.outer(ATTACKERS - 0.5, 0.5 - ATTACKERS)
    evidence = Evidence.of(cosines, updates=(apart,), clouds=[Cloud.of(updates @ updates.T)])
    _, (group, hiding) = standing_out(
        evidence, [Sides(loss_of(cosines), ANCHORS)], [parting_loss(cosines)], NO_VIEWS, ANCHORS
    )
    assert np.array_equal(group, ATTACKERS)
    assert farther(cosines, apart, group) == pytest.approx(nearer)
    contrast, share = contrast_and_share(alike(cosines), group)
    collapse = Cloud.of(updates @ updates.T).collapse(group[None])[0]
    assert hiding == pytest.approx(1.5 * contrast + collapse - 8.0 * max(share, -0.1) + 30.0 * min(nearer + 0.12, 0.0))


def test_attackers_hide_and_honest_groups_do_not():
    for seed in range(4):
        updates = honest_updates(seed)
        assert both(updates)[1][1] < _HIDING
        group, strength = both(hidden(updates, ATTACKERS))[1]
        assert np.array_equal(group, ATTACKERS)
        assert strength > _HIDING
