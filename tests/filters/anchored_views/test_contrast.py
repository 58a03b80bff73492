"""Groups that stand out in what they have of what the others share."""

import numpy as np
import pytest

from encagg_cli.filters.anchored_views import contrast, reversal
from encagg_cli.filters.anchored_views.contrast import contrasted
from encagg_cli.filters.anchored_views.parting import parting_loss, partings
from encagg_cli.filters.anchored_views.ridge import alike
from encagg_cli.filters.anchored_views.sides import Sides, loss_of
from tests.filters.anchored_views.test_reversal import D, K, N, cosines_of, group_of, honest_updates

ANCHORS, ATTACKERS = np.arange(N) < K, np.arange(N) >= 20


def without_the_shared_step(seed: int, times: float = 1.3) -> np.ndarray:
    """Attackers upload their own update, less what all share, and a little more: they are not quite reversed."""
    updates = honest_updates(seed, shared=0.8, differences=1.0, batch=1.5)
    step = np.random.default_rng(seed).standard_normal(D)  # as honest_updates draws it
    step *= 0.8 * np.sqrt(D) * 0.3 / np.linalg.norm(step)
    return np.where(ATTACKERS[:, None], updates - times * step, updates)


def found(cosines: np.ndarray, anchors: np.ndarray = ANCHORS) -> tuple[np.ndarray, float]:
    return contrasted(cosines, Sides(loss_of(cosines), anchors), parting_loss(cosines))


def strength(cosines: np.ndarray, far: np.ndarray) -> float:
    """By the definition: ridge regressions of 1 on the near uploads, solved anew for each that is left out."""
    products, near = alike(cosines), np.flatnonzero(~far)
    ridge = np.median(np.linalg.eigvalsh(products[np.ix_(near, near)]))
    share = np.empty(len(far))
    for client in range(len(far)):
        others = near[near != client]
        kernel = products[np.ix_(others, others)] + ridge * np.eye(len(others))
        share[client] = products[client, others] @ np.linalg.solve(kernel, np.ones(len(others)))
    spread = np.sqrt((share[far].std() ** 2 + share[~far].std() ** 2) / 2 + 0.01)
    signs = np.where(far, -1.0, 1.0)
    loss = -len(far) / 2 * np.log(signs @ loss_of(cosines) @ signs)
    gain = parting_loss(cosines).gains(signs[None])[0]
    return float(loss + 0.3 * gain + 8.0 * (share[~far].mean() - share[far].mean()) / spread)


@pytest.mark.parametrize("seed", range(6))
def test_the_strongest_of_what_both_searches_found_is_held_against_the_strongest_rival(seed: int):
    cosines = cosines_of(without_the_shared_step(seed))
    sides, quotient = Sides(loss_of(cosines), ANCHORS), parting_loss(cosines)

    def strongest(choices: list[np.ndarray], fewest_near: int) -> float:
        return max(strength(cosines, row < 0) for row in choices if 2 <= (row < 0).sum() <= N - fewest_near)

    choices = [row for row in sides.choices[1] if (row < 0).sum() >= 2][:8]
    parted = partings(quotient, np.zeros(N, dtype=bool))[1]
    rivals = [*sides.rivals[:8], *[row for row in parted if abs(row[ANCHORS].sum()) < K][:8]]
    for index, row in enumerate(rivals):
        towards = row[ANCHORS].sum() or row.sum()
        rivals[index] = row if towards >= 0 else -row
    group, nats = found(cosines)
    assert not (group & ANCHORS).any()
    assert nats == pytest.approx(
        strongest([*choices, *partings(quotient, ANCHORS)[1][:8]], 6) - strongest(rivals, 4), abs=1e-6
    )


def test_it_finds_who_lacks_what_all_share_where_neither_search_is_certain(monkeypatch: pytest.MonkeyPatch):
    rounds = [without_the_shared_step(seed) for seed in range(10)]
    groups = np.array([group_of(updates) for updates in rounds])
    monkeypatch.setattr(reversal, "_CONTRASTED", np.inf)
    without = np.array([group_of(updates) for updates in rounds])
    assert groups[:, ATTACKERS].mean() > without[:, ATTACKERS].mean() + 0.25
    assert not groups[:, ~ATTACKERS].any()


def test_four_that_are_alike_are_too_few_to_hold_against_all_others():
    """Two known-benign clients and two friends of theirs: whoever is compared with them has little of what they share.

    A group that leaves six near may stand out, but not all others.
    """
    random = np.random.default_rng(0)
    updates = random.standard_normal((12, 400)) + 0.3 * random.standard_normal(400)
    updates[:4] += random.standard_normal(400)
    cosines = cosines_of(updates)
    group, _ = found(cosines, np.arange(12) < 2)
    assert group.sum() <= 6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "_FEWEST_NEAR", 4)
        group, nats = found(cosines, np.arange(12) < 2)
    assert np.flatnonzero(group).tolist() == list(range(4, 12))
    assert nats > 0


@pytest.mark.parametrize(
    ("share", "nats", "found"),
    [(0.0, 12.9, False), (0.0, 13.1, True), (0.35, 19.4, False), (0.35, 19.6, True), (0.9, 99.0, False)],
)
def test_a_group_must_be_stronger_where_it_has_no_more_than_far_less_of_what_is_shared(
    share: float, nats: float, found: bool, monkeypatch: pytest.MonkeyPatch
):
    random = np.random.default_rng(0)
    step = random.standard_normal(300)
    updates = np.where(ATTACKERS, share, 1.0)[:, None] * step + 0.3 * random.standard_normal((N, 300))
    monkeypatch.setattr(reversal, "contrasted", lambda *_: (ATTACKERS, nats))
    monkeypatch.setattr(reversal, "parted", lambda *_, **__: np.zeros(N, dtype=bool))
    monkeypatch.setattr(Sides, "flipped", lambda *_: np.zeros(N, dtype=bool))
    monkeypatch.setattr(Sides, "opposed", lambda *_: (np.zeros(N, dtype=bool), -np.inf))
    assert group_of(updates).tolist() == (ATTACKERS & found).tolist()


def test_rivals_may_have_fewer_near_than_groups_must(monkeypatch: pytest.MonkeyPatch):
    """The strongest rival leaves four near; were it none, the group would be held against a weaker one."""
    random = np.random.default_rng(0)
    updates = random.standard_normal((12, 400)) + 0.3 * random.standard_normal(400)
    updates[:4] += random.standard_normal(400)
    updates[8:] -= 0.5 * random.standard_normal(400)
    cosines, anchors = cosines_of(updates), np.isin(np.arange(12), [0, 1, 5])
    as_it_is = found(cosines, anchors)[1]
    monkeypatch.setattr(contrast, "_FEWEST_NEAR_OF_RIVALS", 6)
    assert found(cosines, anchors)[1] > as_it_is


def test_the_order_of_the_clients_does_not_matter():
    cosines, order = cosines_of(without_the_shared_step(3)), np.random.default_rng(0).permutation(N)
    (group, nats), (turned, again) = found(cosines), found(cosines[np.ix_(order, order)], ANCHORS[order])
    assert np.array_equal(group[order], turned)
    assert again == pytest.approx(nats, abs=1e-6)


def test_there_is_no_group_where_nobody_may_be_in_one():
    cosines = cosines_of(honest_updates(0))
    for anchors in (np.ones(N, dtype=bool), np.zeros(N, dtype=bool), np.arange(N) > 0):
        group, nats = found(cosines, anchors)
        assert not group.any()
        assert nats == -np.inf
