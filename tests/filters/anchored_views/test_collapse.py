"""Groups that have nothing of what honest clients differ in most."""

import numpy as np
import pytest
from scipy.linalg import eigh

from encagg_cli import filters
from encagg_cli.filters.anchored_views import collapse, reversal
from encagg_cli.filters.anchored_views.cloud import Cloud, drawn_in
from encagg_cli.filters.anchored_views.collapse import Collapse, _Round, _Search
from encagg_cli.filters.anchored_views.contrast import contrast_of
from encagg_cli.filters.anchored_views.evidence import Evidence
from encagg_cli.filters.anchored_views.reversal import reversed_group
from encagg_cli.filters.anchored_views.ridge import alike
from encagg_cli.filters.anchored_views.sides import Sides
from encagg_cli.sketch import principal_coordinates

N, D, K = 50, 600, 5
ANCHORS, ATTACKERS = np.arange(N) < K, np.arange(N) >= 30
NOBODY = np.zeros(N, dtype=bool)
NO_STARTS = np.zeros((0, N), dtype=bool)


def honest_updates(seed: int, clients: int = N) -> np.ndarray:
    """A shared step, differences along eight axes, the first ones larger, and what a batch adds."""
    random = np.random.default_rng(seed)
    step = random.standard_normal(D)
    axes = np.linalg.qr(random.standard_normal((D, 8)))[0].T
    places = random.standard_normal((clients, 8)) * np.sqrt(D) * np.linspace(2.5, 1.0, 8)
    return step + places @ axes + 1.5 * random.standard_normal((clients, D))


def hidden(updates: np.ndarray, attackers: np.ndarray, times: float = 2.0, kept: float = 0.0) -> np.ndarray:
    """Attackers go to the mean within the principal plane, and reverse it outside (EnCAgg, eqs. 56-57).

    But for a share that they have `kept` of what they are within it.
    """
    mean = updates.mean(axis=0)
    plane = np.linalg.svd(updates - mean, full_matrices=False)[2][:2]
    inside = (1.0 - kept) * (mean - updates) @ plane.T @ plane
    outside = mean - plane.T @ (plane @ mean)
    return np.where(attackers[:, None], updates + inside - times * outside, updates)


def cosines_of(updates: np.ndarray) -> np.ndarray:
    gram = updates @ updates.T
    size = np.sqrt(np.diag(gram))
    return gram / np.outer(size, size)


def collapse_of(*rounds: np.ndarray, anchors: np.ndarray = ANCHORS, starts: np.ndarray = NO_STARTS) -> Collapse:
    starts = starts if starts.shape[1] == len(anchors) else np.zeros((0, len(anchors)), dtype=bool)
    clouds = [Cloud.of(updates @ updates.T) for updates in rounds]
    return Collapse.of(clouds, [cosines_of(updates) for updates in rounds], starts, anchors)


def found(
    updates: np.ndarray, anchors: np.ndarray = ANCHORS, starts: np.ndarray = NO_STARTS
) -> tuple[np.ndarray, float]:
    """In one round."""
    collapse = collapse_of(updates, anchors=anchors, starts=starts)
    assert (collapse.together.any(), collapse.strength_together) == (False, -np.inf)
    return collapse.group, collapse.strength


def test_a_plane_is_that_of_the_largest_quotients_of_variances():
    random = np.random.default_rng(0)
    points, far, ridge = random.standard_normal((40, 7)) * np.arange(1, 8), np.arange(40) >= 22, 0.3
    centred = points - points[~far].mean(axis=0)
    near, group = centred[~far].T @ centred[~far] / 22, centred[far].T @ centred[far] / 18
    quotients, directions = eigh(near + ridge * np.eye(7), group + ridge * np.eye(7))
    plane = directions[:, -2:]
    along = centred @ plane
    distances = (along**2 / (along[~far] ** 2).mean(axis=0)).sum(axis=1)
    basis = np.linalg.qr(plane)[0]
    held = np.trace(basis.T @ near @ basis) / np.linalg.eigvalsh(near)[-2:].sum()
    depth, measured = Cloud(points, ridge).planes(far[None])
    assert depth[0] == pytest.approx(np.log(quotients[-2:]).mean() + 6.0 * held)
    assert measured[0] == pytest.approx(distances)


def test_three_points_that_are_one_have_collapsed_to_the_ridge():
    """By hand: those near have a variance of 1 along both axes, the others of 0, and a plane holds all there is."""
    points = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    depth, distances = Cloud(points, 0.1).planes(np.arange(7)[None] >= 4)
    assert depth[0] == pytest.approx(np.log(1.1 / 0.1) + 6.0)
    assert distances[0] == pytest.approx([2.0] * 4 + [0.0] * 3)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_step_takes_those_nearest_to_the_centre_of_the_plane(steps: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(collapse, "_STEPS", steps)
    random = np.random.default_rng(1)
    cloud, starts = Cloud(random.standard_normal((N, 6)), 0.1), random.random((2, N)) < 0.4
    search = _Search([_Round(cloud, np.eye(N))], ANCHORS)
    groups = search.collapsing(starts, np.array([12, 20]), ANCHORS)
    for group, start, size in zip(groups, starts, (12, 20), strict=True):
        expected = start
        for _ in range(steps):
            distances = cloud.planes(expected[None])[1][0]
            nearest = sorted(range(K, N), key=distances.__getitem__)[:size]
            expected = np.isin(np.arange(N), nearest)
        assert np.array_equal(group, expected)


def test_chance_is_that_of_rounds_with_as_much_spread():
    random = np.random.default_rng(2)
    points = random.standard_normal((N, 10)) * np.linspace(3.0, 1.0, 10)
    sizes = np.array([30, 15, 30])
    expected = [
        np.mean(
            [
                Cloud(random.standard_normal((N, 10)) * points.std(axis=0), 0.1).planes(np.arange(N)[None] < size)[0][0]
                for _ in range(200)
            ]
        )
        for size in sizes
    ]
    measured = Cloud(points, 0.1).by_chance(sizes)
    assert measured == pytest.approx(expected, abs=0.4)
    assert measured[0] == measured[2] < measured[1]  # smaller groups collapse further


@pytest.mark.parametrize("share", [0.2, 0.3, 0.45, 0.6])
def test_who_hides_in_the_principal_plane_is_found_and_honest_rounds_have_nobody(share: float):
    attackers = np.arange(N) >= N - round(share * N)
    rounds = [honest_updates(seed) for seed in range(6)]
    starts = np.roll(attackers, -1)[None]  # whom other searches found: not quite the attackers
    groups, strengths = zip(*(found(hidden(updates, attackers), starts=starts) for updates in rounds), strict=True)
    assert np.mean([(group == attackers).mean() for group in groups]) > 0.95
    assert min(strengths) > 3.4 > max(found(updates, starts=starts)[1] for updates in rounds)


def test_the_strength_is_what_it_says(monkeypatch: pytest.MonkeyPatch):
    updates = hidden(honest_updates(0), ATTACKERS)
    products, coordinates = alike(cosines_of(updates)), drawn_in(principal_coordinates(updates @ updates.T, N))
    cloud = Cloud(coordinates[:, :16], 0.1 * float(np.median(coordinates.var(axis=0))))

    def strength(far: np.ndarray) -> float:
        depth = cloud.planes(far[None])[0][0] - cloud.by_chance(far.sum()[None])[0]
        return float(depth + contrast_of(products, far))

    group, beyond_rivals = found(updates)
    monkeypatch.setattr(collapse, "_RIVAL", 0.0)
    alone, by_itself = found(updates)
    assert np.array_equal(group, alone)
    assert by_itself == pytest.approx(strength(group))
    monkeypatch.setattr(collapse, "_RIVAL", 1.0)
    rival = by_itself - found(updates)[1]
    assert beyond_rivals == pytest.approx(by_itself - 0.5 * rival)
    assert 0 < rival < by_itself


def test_uploads_far_off_are_drawn_in_to_half_as_far_again_as_most():
    points = np.array([[3.0, 4.0], [-3.0, 4.0], [0.0, -5.0], [60.0, -80.0], [-2.0, 0.0]])  # around the median
    expected = np.array([[3.0, 4.0], [-3.0, 4.0], [0.0, -5.0], [4.5, -6.0], [-2.0, 0.0]])
    assert drawn_in(points + np.array([7.0, -1.0])) == pytest.approx(expected)
    assert drawn_in(np.ones((5, 2))) == pytest.approx(np.zeros((5, 2)))
    assert drawn_in(np.zeros((5, 0))).shape == (5, 0)


def test_beside_a_few_large_uploads_nobody_has_collapsed():
    """Flipped labels make some late in training: but for them, nobody differs much along their axes."""
    rounds = [honest_updates(seed) for seed in range(6)]
    for updates in rounds:
        updates[-5:] += 5.0 * (updates[-5:] - updates.mean(axis=0))
    assert max(found(updates)[1] for updates in rounds) < 2.0


def test_it_takes_no_more_than_twenty_clients():
    anchors, attackers = np.arange(20) < 4, np.arange(20) >= 12
    for updates in (honest_updates(seed, 20) for seed in range(4)):
        group, strength = found(hidden(updates, attackers), anchors, attackers[None])
        assert (group == attackers).mean() >= 0.95
        assert strength > 3.4 > found(updates, anchors, attackers[None])[1]


def test_neither_order_nor_scale_of_the_clients_matters():
    rounds = [hidden(honest_updates(seed), ATTACKERS) for seed in (3, 4)]
    order = np.random.default_rng(0).permutation(N)
    as_they_are = collapse_of(*rounds)
    turned = collapse_of(*(1e-9 * updates[order] for updates in rounds), anchors=ANCHORS[order])
    assert np.array_equal(as_they_are.group[order], turned.group)
    assert np.array_equal(as_they_are.together[order], turned.together)
    strengths = [(each.strength, each.strength_together) for each in (as_they_are, turned)]
    assert strengths[1] == pytest.approx(strengths[0], abs=1e-6)


def test_rounds_together_tell_what_one_leaves_open():
    """Attackers who keep a part of what they differ in: who they are stands out in no round, and in all together."""
    starts = np.roll(ATTACKERS, -3)[None]
    for first in (0, 10):
        honest = [honest_updates(seed) for seed in range(first, first + 4)]
        attacked = collapse_of(*(hidden(updates, ATTACKERS, kept=0.2) for updates in honest), starts=starts)
        assert attacked.strength < 3.4
        assert attacked.strength_together > 1.7 > 1.5 > collapse_of(*honest, starts=starts).strength_together
        assert (attacked.together == ATTACKERS).mean() > 0.8


@pytest.mark.parametrize(("known_benign", "told"), [(2, False), (3, True)])
def test_rounds_together_are_not_asked_with_two_known_benign(known_benign: int, told: bool):
    rounds = [hidden(honest_updates(seed), ATTACKERS) for seed in range(2)]
    collapse = collapse_of(*rounds, anchors=np.arange(N) < known_benign)
    assert np.isfinite(collapse.strength)
    assert np.isfinite(collapse.strength_together) == told


def test_the_strength_together_is_the_mean_of_the_rounds_that_tell(monkeypatch: pytest.MonkeyPatch):
    """One knows everybody, one half of the clients, one too few to tell."""
    rounds = [hidden(honest_updates(seed), ATTACKERS) for seed in range(3)]
    there = [np.arange(N) >= 0, np.arange(N) % 2 == 0, np.arange(N) < 15]
    places = [np.where(present, np.cumsum(present) - 1, -1) for present in there]
    clouds = [
        Cloud.of(updates[present] @ updates[present].T).among(index)
        for updates, present, index in zip(rounds, there, places, strict=True)
    ]
    cosines = [
        np.where(np.outer(present, present), cosines_of(updates), np.nan)
        for updates, present in zip(rounds, there, strict=True)
    ]
    monkeypatch.setattr(collapse, "_RIVAL_TOGETHER", 0.0)
    measured = Collapse.of(clouds, cosines, np.roll(ATTACKERS, -1)[None], ANCHORS)
    strengths = []
    for updates, present in zip(rounds[:2], there, strict=False):
        far, cloud = measured.together[present], Cloud.of(updates[present] @ updates[present].T)
        depth = cloud.planes(far[None])[0][0] - cloud.by_chance(far.sum()[None])[0]
        strengths.append(depth + contrast_of(alike(cosines_of(updates[present])), far))
    assert measured.strength_together == pytest.approx(np.mean(strengths))
    assert (measured.together == ATTACKERS).mean() > 0.9


def test_nobody_has_collapsed_where_it_could_not_be_told():
    updates = honest_updates(0)
    nobody = np.zeros(N, dtype=bool)
    for anchors in (nobody, ~nobody, np.arange(N) > 0):
        assert found(updates, anchors) == (pytest.approx(nobody), -np.inf)
    assert found(np.ones((N, D))) == (pytest.approx(nobody), -np.inf)
    assert found(updates[:17], ANCHORS[:17])[1] == -np.inf  # five axes
    assert found(updates[:18], ANCHORS[:18])[1] > -np.inf


def test_where_no_group_has_known_benign_members_the_group_is_its_own_rival(monkeypatch: pytest.MonkeyPatch):
    updates = hidden(honest_updates(0), ATTACKERS)
    updates[0] *= 30.0  # far from the centre of any plane
    anchors = np.arange(N) == 0
    beyond_rivals = found(updates, anchors)[1]
    monkeypatch.setattr(collapse, "_RIVAL", 0.0)
    assert 0 < beyond_rivals == pytest.approx(0.5 * found(updates, anchors)[1])


def test_updates_of_few_parameters_do_no_harm():
    """Of most axes, nothing is left: the median variance is none."""
    updates = hidden(honest_updates(0), ATTACKERS) @ np.linalg.qr(np.random.default_rng(1).standard_normal((D, 9)))[0]
    group, strength = found(updates)
    assert np.isfinite(strength)
    assert not (group & ANCHORS).any()


def test_the_filter_looks_at_the_principal_axes_of_the_updates(monkeypatch: pytest.MonkeyPatch):
    rounds, seen = [honest_updates(seed).astype(np.float32) for seed in range(2)], []

    def collapse_(clouds: list[Cloud], *_: object) -> Collapse:
        seen.append(clouds)
        return Collapse(NOBODY, -np.inf, NOBODY, -np.inf)

    monkeypatch.setattr(Collapse, "of", collapse_)
    method = filters.get("anchored-views")
    for updates in rounds:
        method.decide(updates, trusted=range(K))
    centred = rounds[1] - rounds[1].mean(axis=0, dtype=np.float64)
    axes, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    order = sorted(range(N), key=str)  # the clients have their rows for names
    expected = drawn_in(axes * lengths)[order, :16]
    assert [len(clouds) for clouds in seen] == [1, 2]
    for cloud, of in ((seen[1][0], expected), (seen[0][0], seen[1][1].points)):
        points = cloud.points * np.sign((cloud.points * of).sum(axis=0))
        assert points == pytest.approx(of, abs=1e-3 * np.abs(of).max())


def rejected(updates: np.ndarray, *, alpha: float = 0.02, later: bool = False) -> np.ndarray:
    evidence = Evidence.of(cosines_of(updates), clouds=[Cloud.of(updates @ updates.T)])
    return reversed_group(evidence, ANCHORS, alpha, later=later).group


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other search finds anybody."""
    nobody = np.zeros(N, dtype=bool)
    monkeypatch.setattr(reversal, "parted", lambda *_, **__: nobody)
    monkeypatch.setattr(reversal, "contrasted", lambda *_: (nobody, -np.inf))
    monkeypatch.setattr(Sides, "flipped", lambda *_: nobody.copy())
    monkeypatch.setattr(Sides, "opposed", lambda *_: (nobody, -np.inf))


@pytest.mark.usefixtures("nothing_else")
def test_it_finds_who_no_other_search_is_certain_of_unless_somebody_was_rejected_before():
    updates = hidden(honest_updates(4), ATTACKERS)
    assert rejected(updates).tolist() == ATTACKERS.tolist()
    assert not rejected(updates, later=True).any()


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize(("strength", "alpha", "yes"), [(-0.1, 0.02, False), (0.1, 0.02, True), (0.1, 0.002, False)])
@pytest.mark.parametrize("today", [True, False])
def test_a_group_must_be_stronger_the_less_may_be_lost(
    today: bool, strength: float, alpha: float, yes: bool, monkeypatch: pytest.MonkeyPatch
):
    clear = (ATTACKERS, 3.4 + strength, NOBODY, -np.inf) if today else (NOBODY, -np.inf, ATTACKERS, 1.7 + strength)
    monkeypatch.setattr(Collapse, "of", lambda *_: Collapse(*clear))
    assert rejected(hidden(honest_updates(4), ATTACKERS), alpha=alpha).any() == yes


@pytest.mark.usefixtures("nothing_else")
def test_who_shares_what_all_share_may_lie_where_it_will(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Collapse, "of", lambda *_: Collapse(ATTACKERS, 99.0, ATTACKERS, 99.0))
    assert not rejected(honest_updates(4)).any()
