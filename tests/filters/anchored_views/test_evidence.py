"""What several rounds tell together, and how much each of them counts."""

from dataclasses import replace

import numpy as np
import pytest

from encagg_cli import filters
from encagg_cli.filters.anchored_views.evidence import Evidence, weight_of_signs
from encagg_cli.filters.anchored_views.parting import parting_loss, partings
from encagg_cli.filters.anchored_views.reversal import reversed_group
from encagg_cli.filters.anchored_views.scene import Past, Scene
from encagg_cli.filters.anchored_views.sides import Sides, loss_of
from encagg_cli.sketch import ArraySource, GramNeed, sketch_round
from encagg_cli.sketch.signs import SignCosines, SignCosinesNeed

N, K, D = 30, 4, 400
ANCHORS = np.arange(N) < K
ATTACKERS = np.arange(N) >= 22


def cosines_of(seed: int, *, shared: float = 0.3, flipped: bool = True) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = shared * random.standard_normal(D) + 2.0 * random.standard_normal((N, 3)) @ random.standard_normal((3, D))
    rows += random.standard_normal((N, D))
    rows[ATTACKERS] *= -1.0 if flipped else 1.0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_a_round_by_itself_counts_as_it_is():
    cosines = cosines_of(1)
    evidence = Evidence.of(cosines)
    loss, weights = evidence.together(ANCHORS)
    assert np.allclose(loss, loss_of(cosines))
    assert weights.shape == (1,)
    assert np.allclose(evidence.parting(ANCHORS).loss, parting_loss(cosines).loss)


def test_rounds_count_by_what_they_say_of_the_best_choice_of_all():
    rounds = [cosines_of(2), cosines_of(3, shared=0.0), cosines_of(4)]
    evidence = Evidence.of(rounds[0], rounds[1:])
    loss, weights = evidence.together(ANCHORS)
    sides = np.where(ATTACKERS, -1.0, 1.0)
    assert weights == pytest.approx([1.0 / (sides @ loss_of(cosines) @ sides) for cosines in rounds])
    assert weights[1] < min(weights[0], weights[2]) / 2
    share = weights / weights.sum()
    assert np.allclose(loss, sum(w * loss_of(cosines) for w, cosines in zip(share, rounds, strict=True)))


def test_partings_count_by_what_the_rounds_say_of_the_best_of_all():
    rounds = [cosines_of(2), cosines_of(3, shared=0.0), cosines_of(4)]
    quotients = [parting_loss(cosines) for cosines in rounds]
    together = Evidence.of(rounds[0], rounds[1:]).parting(ANCHORS)
    best = partings(together, ANCHORS)[1][0]
    weights = np.array([(best @ each.baseline @ best) / (best @ each.loss @ best) for each in quotients])
    assert np.allclose(together.loss, np.tensordot(weights / weights.mean(), [each.loss for each in quotients], 1))
    assert weights[1] < min(weights[0], weights[2])


def test_where_next_to_all_are_known_benign_rounds_count_alike():
    rounds = [cosines_of(2), cosines_of(3)]
    together = Evidence.of(rounds[0], rounds[1:]).parting(np.arange(N) > 0)
    assert np.allclose(together.loss, sum(parting_loss(cosines).loss for cosines in rounds))


def test_clients_that_were_not_there_are_left_out():
    past = cosines_of(5)
    past[10] = past[:, 10] = np.nan
    evidence = Evidence.of(cosines_of(6), [past])
    assert not evidence.losses[1][10].any()
    assert np.isfinite(evidence.parting(ANCHORS).loss).all()
    assert np.isfinite(evidence.together(ANCHORS)[0]).all()
    assert reversed_group(evidence, ANCHORS, 0.02, later=False).group.tolist() == ATTACKERS.tolist()


def there_alone(cosines: np.ndarray, present: np.ndarray) -> np.ndarray:
    return np.where(present & present[:, None], cosines, np.nan)


def test_rounds_count_by_how_many_of_the_clients_were_there():
    half = there_alone(cosines_of(3), np.arange(N) % 2 == 0)
    evidence = Evidence.of(cosines_of(2), [half])
    _, weights = evidence.together(ANCHORS)
    sides = np.where(ATTACKERS, -1.0, 1.0)
    today, earlier = (1.0 / (sides @ loss @ sides) for loss in evidence.losses)
    assert weights == pytest.approx([today, 0.5 * earlier])


@pytest.mark.parametrize("present", [0, 1, 5])
def test_rounds_in_which_hardly_anybody_was_there_water_nothing_down(present: int):
    rounds = [cosines_of(2), cosines_of(3)]
    others = [there_alone(cosines_of(seed), np.arange(N) < present) for seed in range(4, 9)]
    loss, weights = Evidence.of(rounds[0], [*rounds[1:], *others]).together(ANCHORS)
    assert np.allclose(loss, Evidence.of(rounds[0], rounds[1:]).together(ANCHORS)[0])
    assert not weights[2:].any()


def test_what_was_clear_early_is_still_known_when_nothing_is_shared_any_more():
    right = []
    for seed in range(0, 40, 10):
        late = cosines_of(seed, shared=0.0)
        rounds = [*(cosines_of(seed + t) for t in (1, 2, 3)), *(cosines_of(seed + t, shared=0.0) for t in (4, 5, 6))]
        for past in ((), rounds):
            group = reversed_group(Evidence.of(late, past), ANCHORS, 0.02, later=False).group
            right.append((group == ATTACKERS).mean())
    alone, remembered = np.mean(right[::2]), np.mean(right[1::2])
    assert alone < 0.8
    assert remembered > 0.85


def test_who_stopped_is_cleared_and_who_begins_is_accused_where_something_is_shared():
    flips, honest = (
        [cosines_of(seed, shared=1.0) for seed in range(4)],
        [cosines_of(seed, shared=1.0, flipped=False) for seed in range(4)],
    )
    stopped = Evidence.of(honest[0], flips[1:])
    begun = Evidence.of(flips[0], honest[1:])
    assert not reversed_group(stopped, ANCHORS, 0.02, later=False).group.any()
    assert reversed_group(begun, ANCHORS, 0.02, later=False).group.tolist() == ATTACKERS.tolist()


def test_groups_that_are_not_reversed_are_sought_only_when_asked_for():
    """Attackers who have something of their own in common, and nothing of what the others share: no reversal."""
    random = np.random.default_rng(0)
    step, where = 0.6 * random.standard_normal((2, D))
    rows = step + random.standard_normal((N, D))
    rows[ATTACKERS] += where - step
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    evidence = Evidence.of(rows @ rows.T)
    assert reversed_group(evidence, ANCHORS, 0.02, later=False).group.tolist() == ATTACKERS.tolist()
    assert not reversed_group(evidence, ANCHORS, 0.02, later=False, groups=False).group.any()


@pytest.mark.parametrize("past", [False, True])
def test_nobody_is_accused_against_what_the_rounds_say_of_each(past: bool, monkeypatch: pytest.MonkeyPatch):
    """Whatever explains the signs best: by this round, or by the earlier ones, where this one says nothing."""
    clear = [cosines_of(seed, shared=1.0, flipped=False) for seed in range(3)]
    today = cosines_of(3, shared=0.0, flipped=False) if past else clear[0]
    evidence = Evidence.of(today, clear[1:] if past else ())
    answers = iter([ATTACKERS & (not past), ATTACKERS.copy()])  # of this round alone, and of all together
    monkeypatch.setattr(Sides, "flipped", lambda *_: next(answers))
    assert not reversed_group(evidence, ANCHORS, 0.02, later=False, groups=False).group.any()


def updates_of(seed: int, *, concentrated: bool) -> np.ndarray:
    """What all share, and what clients differ in: along many axes, of few coordinates or of all."""
    random = np.random.default_rng(seed)
    share = 0.1 if concentrated else 1.0
    axes = random.standard_normal((15, D)) * (random.random(D) < share) / np.sqrt(share)
    rows = 0.3 * random.standard_normal(D) + random.standard_normal((N, 15)) @ axes + random.standard_normal((N, D))
    return np.where(ATTACKERS[:, None], -rows, rows)


def both(updates: np.ndarray) -> tuple[SignCosines, np.ndarray]:
    source = ArraySource(updates.astype(np.float32), [f"{row:02d}" for row in range(N)], ANCHORS)
    sketch = sketch_round(source, [GramNeed(), SignCosinesNeed()])
    return sketch[SignCosinesNeed()], sketch.gram.cosines


@pytest.mark.parametrize("axes", [0, 1, 6])
@pytest.mark.parametrize("size", [60, 400, 4000])
def test_signs_of_gaussian_updates_tell_nothing_more(size: int, axes: int):
    for seed in range(3):
        random = np.random.default_rng(seed)
        differences = random.standard_normal((N, axes)) @ random.standard_normal((axes, size))
        assert not weight_of_signs(*both(differences + random.standard_normal((N, size))))


def test_signs_of_equal_updates_tell_nothing_more():
    for updates in (np.zeros((N, D)), np.ones((N, D))):
        assert not weight_of_signs(*both(updates))


def test_signs_tell_sides_where_clients_differ_in_few_coordinates():
    """And are not looked at where clients differ in all coordinates alike."""
    right = []
    for seed in range(6):
        assert not weight_of_signs(*both(updates_of(seed, concentrated=False)))
        signs, cosines = both(updates_of(seed, concentrated=True))
        assert weight_of_signs(signs, cosines) == 1.0
        evidence = [Evidence.of(each) for each in (signs.cosines, cosines)]
        groups = [reversed_group(each, ANCHORS, 0.02, later=False).group for each in evidence]
        right.append([float((group == ATTACKERS).mean()) for group in groups])
    by_signs, by_updates = np.mean(right, axis=0)
    assert by_signs > 0.95
    assert by_signs > by_updates + 0.1


def test_signs_of_few_coordinates_are_too_coarse_to_look_at():
    """Signs that tell far more than Gaussian ones would: the same updates, as many coordinates as fit ten a client."""
    updates = updates_of(0, concentrated=True)
    assert weight_of_signs(*both(updates[:, : 10 * N + 30])) == 1.0
    signs, cosines = both(updates[:, : 10 * N - 30])
    assert not weight_of_signs(signs, cosines)
    assert weight_of_signs(replace(signs, counts=2.0 * signs.counts), cosines) == 1.0


def repeating(seed: int, times: int) -> np.ndarray:
    """As of a regression: what clients differ in stands in small coordinates, each there so many times."""
    random = np.random.default_rng(seed)
    classes = 0.2 * random.standard_normal((N, 8)) * np.linspace(1.0, 3.0, 8)
    repeated = np.repeat(classes, times, axis=1) + 0.01 * random.standard_normal((N, 8 * times))
    return np.hstack([repeated, 0.3 * random.standard_normal(600) + random.standard_normal((N, 600))])


def test_signs_count_by_half_where_coordinates_repeat_one_another():
    for seed in range(4):
        assert weight_of_signs(*both(repeating(seed, 100))) == 0.5
        assert weight_of_signs(*both(repeating(seed, 1))) != 0.5
        assert weight_of_signs(*both(1e-6 * repeating(seed, 100))) == 0.5


def test_where_they_count_by_half_sides_are_told_by_both():
    signs, cosines = both(repeating(0, 100))
    sketch = ArraySource(repeating(0, 100).astype(np.float32), [f"{row:02d}" for row in range(N)], ANCHORS)
    scene = Scene(sketch_round(sketch, [GramNeed()]).gram, signs)
    assert scene.look(np.arange(N))
    assert scene.telling == pytest.approx(0.5 * (signs.cosines + cosines))
    assert scene.evidence(np.arange(N)).cosines[0] == pytest.approx(scene.telling)


@pytest.mark.parametrize("seed", range(3))
def test_the_filter_looks_at_signs_where_they_tell_more(seed: int):
    decision = filters.get("anchored-views").decide(updates_of(seed, concentrated=True), trusted=range(K))
    assert (~decision.accepted).tolist() == ATTACKERS.tolist()
    assert "view nearest signs" in decision.trace
    other = filters.get("anchored-views").decide(updates_of(seed, concentrated=False), trusted=range(K))
    assert "view nearest signs" not in other.trace


def test_the_evidence_of_a_round_has_its_updates_beside_what_tells_its_sides():
    """And those of the round before, among whom is asked for."""
    (signs, cosines), (signs_before, cosines_before) = (both(updates_of(seed, concentrated=True)) for seed in (1, 2))
    source = ArraySource(
        updates_of(1, concentrated=True).astype(np.float32), [f"{row:02d}" for row in range(N)], ANCHORS
    )
    past = Past(rounds=[signs_before.cosines], updates=[cosines_before])
    scene = Scene(sketch_round(source, [GramNeed()]).gram, signs, past)
    alive = np.arange(0, N, 2)
    evidence = scene.evidence(alive)
    for kept, expected in (
        (evidence.cosines, (signs.cosines, signs_before.cosines)),
        (evidence.updates, (cosines, cosines_before)),
    ):
        assert np.allclose(kept, [each[np.ix_(alive, alive)] for each in expected])
