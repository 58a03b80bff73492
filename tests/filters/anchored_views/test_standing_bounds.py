"""Who is rejected for standing out, or for hiding: how much is asked, and whom this round clears."""

from dataclasses import replace

import numpy as np
import pytest

from encagg_cli.filters.anchored_views import reversal
from encagg_cli.filters.anchored_views.cloud import Cloud
from encagg_cli.filters.anchored_views.evidence import Evidence
from encagg_cli.filters.anchored_views.reversal import reversed_group
from encagg_cli.filters.anchored_views.ridge import shared_with
from encagg_cli.filters.anchored_views.sharing import INNOCENT_TODAY
from encagg_cli.filters.anchored_views.sides import Sides
from encagg_cli.filters.anchored_views.standing import NO_VIEWS, Outlook
from tests.filters.anchored_views.test_cloud import ATTACKERS, N, hidden, honest_updates
from tests.filters.anchored_views.test_standing import ANCHORS, NOBODY, cosines_of


def rejected(
    updates: np.ndarray, *, alpha: float = 0.02, later: bool = False, k: int = 5, outlook: Outlook = NO_VIEWS
) -> np.ndarray:
    evidence = Evidence.of(cosines_of(updates), clouds=[Cloud.of(updates @ updates.T)])
    return reversed_group(evidence, np.arange(N) < k, alpha, outlook=outlook, later=later).group


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other search finds anybody."""
    monkeypatch.setattr(Sides, "flipped", lambda *_: NOBODY.copy())
    monkeypatch.setattr(Sides, "opposed", lambda *_: (NOBODY, -np.inf))


@pytest.mark.usefixtures("nothing_else")
def test_it_finds_who_no_other_search_is_certain_of():
    updates = hidden(honest_updates(2), ATTACKERS)
    assert rejected(updates).tolist() == ATTACKERS.tolist()
    assert not rejected(honest_updates(2)).any()


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize(
    ("strength", "how", "yes"),
    [
        (5.9, {}, False),
        (6.1, {}, True),
        (8.2, {"alpha": 0.002}, False),
        (8.4, {"alpha": 0.002}, True),
        (7.6, {"k": 2}, False),
        (7.8, {"k": 2}, True),
        (4.9, {"k": 8}, False),
        (5.1, {"k": 8}, True),
        (4.9, {"k": 12}, False),
        (6.9, {"later": True}, False),
        (7.1, {"later": True}, True),
    ],
)
def test_a_group_must_stand_out_more_the_less_may_be_lost_the_fewer_are_known_benign_and_after_others(
    strength: float, how: dict[str, float], yes: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reversal, "standing_out", lambda *_: ((ATTACKERS, strength), (NOBODY, -np.inf)))
    assert rejected(hidden(honest_updates(2), ATTACKERS), **how).tolist() == (ATTACKERS & yes).tolist()


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize(
    ("cut", "yes"),
    [
        (None, True),
        (ATTACKERS, True),
        (ATTACKERS & (np.arange(N) % 2 == 0), False),
        (np.arange(N) >= N - 30, True),
        (np.arange(N) % 2 == 0, True),
    ],
)
def test_a_group_of_which_a_view_by_itself_tells_a_part_is_left_to_the_view(
    hides: bool, cut: np.ndarray | None, yes: bool, monkeypatch: pytest.MonkeyPatch
):
    found = (NOBODY, -np.inf), (ATTACKERS, 99.0)
    monkeypatch.setattr(reversal, "standing_out", lambda *_: found if hides else found[::-1])
    updates = hidden(honest_updates(2), ATTACKERS)
    assert rejected(updates, outlook=Outlook(cut=cut)).tolist() == (ATTACKERS & yes).tolist()


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("hides", [False, True])
def test_whom_this_round_clears_is_let_go(hides: bool, monkeypatch: pytest.MonkeyPatch):
    """One of the attackers has stopped, whatever earlier rounds say."""
    found = (NOBODY, -np.inf), (ATTACKERS, 99.0)
    monkeypatch.setattr(reversal, "standing_out", lambda *_: found if hides else found[::-1])
    stopped = np.arange(N) == N - 1
    updates = hidden(honest_updates(2), ATTACKERS & ~stopped)
    assert rejected(updates).tolist() == (ATTACKERS & ~stopped).tolist()


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize(
    ("strength", "how", "yes"),
    [
        (7.2, {}, False),
        (7.4, {}, True),
        (7.8, {"alpha": 0.002}, False),
        (8.0, {"alpha": 0.002}, True),
        (8.2, {"k": 2}, False),
        (8.4, {"k": 2}, True),
        (6.8, {"k": 8}, True),
        (8.2, {"later": True}, False),
        (8.4, {"later": True}, True),
    ],
)
def test_a_group_must_hide_more_the_less_may_be_lost_the_fewer_are_known_benign_and_after_others(
    strength: float, how: dict[str, float], yes: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reversal, "standing_out", lambda *_: ((NOBODY, -np.inf), (ATTACKERS, strength)))
    assert rejected(hidden(honest_updates(2), ATTACKERS), **how).tolist() == (ATTACKERS & yes).tolist()


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize(("kept", "cleared"), [(0.0, False), (1.0, True)])
def test_what_attackers_share_today_does_not_clear_those_who_are_still_in_one_place(
    kept: float, cleared: bool, monkeypatch: pytest.MonkeyPatch
):
    """They have what the others share, as they had not before, and nothing of what honest clients differ in, or all."""
    monkeypatch.setattr(reversal, "standing_out", lambda *_: ((ATTACKERS, 99.0), (NOBODY, -np.inf)))
    honest = honest_updates(2)
    own = hidden(honest, ATTACKERS, kept=kept)
    updates = np.where(ATTACKERS[:, None], own - own[ATTACKERS].mean(axis=0) + honest.mean(axis=0), honest)
    share = shared_with(cosines_of(updates), ~ATTACKERS)[ATTACKERS]
    assert share.min() > INNOCENT_TODAY
    of = reversal.Sharing.of
    monkeypatch.setattr(reversal.Sharing, "of", lambda *how: replace(of(*how), mean=0.0))
    assert rejected(updates).tolist() == (ATTACKERS & (not cleared)).tolist()


@pytest.mark.parametrize("innocents", [1, 5, 14])
@pytest.mark.parametrize("collapsed", [False, True])
def test_those_whom_this_round_would_clear_are_looked_at_without_the_others_of_their_group(
    innocents: int, collapsed: bool
):
    """One alone is in one place whatever it sent; where nothing is known of places, shares alone clear."""
    attackers = np.arange(N) >= 15
    updates = hidden(honest_updates(2), attackers) if collapsed else honest_updates(2)
    innocent = (np.arange(N) >= N - innocents) | (np.arange(N) == 9)
    cleared = attackers & innocent
    evidence = Evidence.of(cosines_of(updates), clouds=[Cloud.of(updates @ updates.T)])
    expected = cleared & (innocents == 1 or not collapsed)
    assert reversal._cleared(evidence, attackers, innocent).tolist() == expected.tolist()
    assert reversal._cleared(replace(evidence, clouds=()), attackers, innocent).tolist() == cleared.tolist()


@pytest.mark.parametrize("collapsed", [False, True])
def test_whoever_earlier_rounds_tell_is_cleared_likewise(collapsed: bool, monkeypatch: pytest.MonkeyPatch):
    """By all rounds together, each client for itself or the group: these share today, having opposed the rest twice."""
    honest, reversed_ = honest_updates(2), [hidden(honest_updates(seed), ATTACKERS) for seed in (3, 4)]
    own = hidden(honest, ATTACKERS, kept=0.0 if collapsed else 1.0)
    today = np.where(ATTACKERS[:, None], own - own[ATTACKERS].mean(axis=0) + honest.mean(axis=0), honest)
    rounds = [today, *reversed_]
    clouds = [Cloud.of(updates @ updates.T) for updates in rounds]
    evidence = Evidence.of(cosines_of(today), [cosines_of(updates) for updates in reversed_], clouds=clouds)
    assert shared_with(evidence.cosines[0], ~ATTACKERS)[ATTACKERS].min() > INNOCENT_TODAY
    expected = (ATTACKERS & collapsed).tolist()
    assert reversal._flipped_lately(ATTACKERS.copy(), evidence, np.ones(3)).tolist() == expected
    monkeypatch.setattr(Sides, "opposed", lambda *_: (ATTACKERS, 99.0))
    sides = Sides(evidence.losses[0], ANCHORS)
    assert reversal._opposed(sides, evidence.cosines, 4.0, evidence)[0].tolist() == expected


@pytest.mark.parametrize(("certain", "goes"), [([39], True), ([38, 39], True), ([10, 39], True), ([9, 10, 39], False)])
def test_with_half_of_those_who_are_certain_goes_the_group_that_stands_out(
    certain: list[int], goes: bool, monkeypatch: pytest.MonkeyPatch
):
    sure = np.isin(np.arange(N), certain)
    monkeypatch.setattr(Sides, "flipped", lambda *_: sure.copy())
    monkeypatch.setattr(Sides, "opposed", lambda *_: (NOBODY, -np.inf))
    monkeypatch.setattr(reversal, "standing_out", lambda *_: ((ATTACKERS, 99.0), (NOBODY, -np.inf)))
    updates = hidden(honest_updates(2), ATTACKERS | sure)
    assert rejected(updates).tolist() == ((ATTACKERS & goes) | sure).tolist()
