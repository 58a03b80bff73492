"""Each view, against the same figure computed from the updates themselves."""

import numpy as np
import pytest

from encagg_cli.filters.anchored_views.views import View, nearest_known_benign, own_past, views_of, views_of_signs
from encagg_cli.sketch import ArraySource, GramNeed, RoundSketch, sketch_round
from encagg_cli.sketch.signs import SignCosinesNeed

N = 9
ALIVE = np.array([0, 1, 2, 4, 5, 6, 8])
TRUSTED = np.isin(np.arange(N), [1, 4, 6])


@pytest.fixture(scope="module")
def updates() -> np.ndarray:
    return (np.random.default_rng(7).standard_normal((N, 40)) + 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def views(updates: np.ndarray) -> dict[str, np.ndarray]:
    return {view.name: view.values for view in all_views(updates, ALIVE, TRUSTED)}


def all_views(updates: np.ndarray, alive: np.ndarray, trusted: np.ndarray) -> list[View]:
    sketch = sketch_of(updates, trusted)
    nearest = nearest_known_benign(sketch.gram, alive, trusted)
    assert nearest is not None
    of_signs = views_of_signs(sketch[SignCosinesNeed()][alive])
    return [*views_of(sketch.gram, alive), *of_signs, nearest]


def sketch_of(updates: np.ndarray, trusted: np.ndarray) -> RoundSketch:
    source = ArraySource(updates.astype(np.float32), tuple(f"{i:02d}" for i in range(len(updates))), trusted)
    return sketch_round(source, [GramNeed(), SignCosinesNeed()])


def distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows[None], axis=2)


def test_the_unexplained_part_is_what_a_regression_on_the_others_leaves(updates, views):
    rows = updates[ALIVE].astype(np.float64)
    for at in range(len(ALIVE)):
        left = unexplained(rows, at)
        assert views["unexplained share"][at] == pytest.approx(0.5 * np.log(left), abs=1e-5)
        part = np.log(np.linalg.norm(rows[at])) + 0.5 * np.log(left)
        assert views["unexplained part"][at] == pytest.approx(part, abs=1e-5)
        of_signs = 0.5 * np.log(unexplained(np.sign(rows), at) + 1 / rows.shape[1])
        assert views["sign unexplained share"][at] == pytest.approx(of_signs, abs=1e-5)


def unexplained(rows: np.ndarray, at: int) -> float:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    ridge = 0.1 * float(np.median(np.linalg.eigvalsh(units @ units.T)))
    others = np.delete(units, at, axis=0)
    weights = np.linalg.solve(others @ others.T + ridge * np.eye(len(others)), others @ units[at])
    return float(np.sum((units[at] - weights @ others) ** 2) + ridge * (weights @ weights + 1.0))


def test_likeness_is_the_root_mean_square_cosine(updates, views):
    rows = updates[ALIVE] / np.linalg.norm(updates[ALIVE], axis=1, keepdims=True)
    cosines = rows @ rows.T - np.eye(len(rows))
    assert views["likeness"] == pytest.approx(np.log(np.sqrt((cosines**2).mean(axis=1))), abs=1e-4)


def test_nearest_signs_are_those_of_one_other_client(updates, views):
    signs = np.sign(updates[ALIVE])
    opposed = [min((signs[at] != row).mean() for row in np.delete(signs, at, axis=0)) for at in range(len(ALIVE))]
    one = 1 / updates.shape[1]
    assert views["nearest signs"] == pytest.approx(np.log(2 * (np.array(opposed) + one)), abs=1e-6)


def test_equal_signs_of_few_coordinates_are_no_nearer_than_chance_brings_them():
    def nearest(size: int) -> np.ndarray:
        signs = np.ones((8, size), dtype=np.float32)
        for at in range(2, 8):
            signs[at, : size // 8 * at] = -1.0
        sketch = sketch_of(signs, np.arange(8) < 2)
        return next(v.values for v in views_of_signs(sketch[SignCosinesNeed()]) if v.name == "nearest signs")

    few, many = nearest(16), nearest(16_000)
    assert few[2:] - few[:2].mean() == pytest.approx(np.log(3.0), abs=1e-6)  # two coordinates turned and one, over one
    assert (many[2:] - many[:2].mean() > 7.0).all()


def test_neighbour_distance_is_to_the_three_nearest(updates, views):
    nearest = np.sort(distances(updates[ALIVE]), axis=1)[:, 1:4].mean(axis=1)
    assert views["neighbour distance"] == pytest.approx(np.log(nearest), abs=1e-5)


def test_nearest_known_benign_is_another_than_oneself(updates, views):
    for at, client in enumerate(ALIVE):
        expected = min(np.linalg.norm(updates[client] - updates[a]) for a in (1, 4, 6) if a != client)
        assert views["nearest known-benign"][at] == pytest.approx(np.log(expected), abs=1e-5)


def test_whoever_is_farther_from_the_known_benign_than_from_most_does_not_shadow_them():
    """The known-benign are the odd ones: twelve others lie closer together than any of them to anybody."""
    random = np.random.default_rng(3)
    rows = random.standard_normal((15, 60))
    rows[:3] *= 2.0
    trusted = np.arange(15) < 3
    view = nearest_known_benign(sketch_of(rows, trusted).gram, np.arange(15), trusted)
    assert view is not None
    assert view.eligible is not None
    assert not view.eligible[3:].any()
    rows[[7, 9]] = rows[[0, 1]] + 0.3 * random.standard_normal((2, 60))
    view = nearest_known_benign(sketch_of(rows, trusted).gram, np.arange(15), trusted)
    assert view is not None
    assert view.eligible is not None
    assert np.flatnonzero(view.eligible[3:]).tolist() == [4, 6]


def test_principal_axes_are_those_of_the_updates_and_of_their_directions(updates, views):
    rows = updates[ALIVE].astype(np.float64)
    _, _, axes = np.linalg.svd(rows - rows.mean(axis=0))
    coordinates = (rows - rows.mean(axis=0)) @ axes[0]
    assert abs(np.corrcoef(views["principal axis"], coordinates)[0, 1]) == pytest.approx(1.0, abs=1e-5)
    left, _, _ = np.linalg.svd(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    assert abs(views["principal direction"] @ left[:, 0]) == pytest.approx(1.0, abs=1e-5)


def test_who_shares_is_neither_unrelated_nor_separate_along_the_principal_axis_of_the_updates(updates):
    views = all_views(updates, ALIVE, TRUSTED)
    spared = {(view.name, word): most for view in views for word, most in view.most_shared.items()}
    unrelated = {(view.name, "unrelated"): 0.1 for view in views if "unrelated" in (view.low, view.high)}
    assert spared == {("principal axis", "separate"): 0.1} | unrelated
    assert len(unrelated) == 4


def test_one_known_benign_client_leaves_out_what_compares_them_with_each_other(updates):
    assert nearest_known_benign(sketch_of(updates, TRUSTED).gram, ALIVE, np.arange(N) == 1) is None


def test_an_absurdly_large_update_and_an_empty_one_leave_every_view_finite(updates):
    hostile = updates.copy()
    hostile[0] *= np.float32(1e30)
    hostile[2] = 0.0
    for view in all_views(hostile, np.arange(N), TRUSTED):
        assert np.isfinite(view.values).all(), view.name


def test_own_past_puts_clients_without_one_in_the_middle_and_spares_the_merely_unsteady():
    continuity = np.array([0.9, 0.8, 0.95, np.nan, 0.5, -0.7, 0.9])
    view = own_past(continuity, np.arange(7) < 3)
    assert view is not None
    known = np.log(1.02 - continuity[~np.isnan(continuity)])
    assert view.values[[0, 1, 2, 4, 5, 6]] == pytest.approx(known)
    assert view.values[3] == pytest.approx(np.median(known))
    assert view.eligible is not None
    assert view.eligible.tolist() == [False] * 5 + [True, False]


def test_own_past_needs_a_past_of_two_known_benign_clients():
    continuity = np.array([0.9, np.nan, np.nan, 0.8, 0.5, -0.7, 0.9, 0.3])
    assert own_past(continuity, np.arange(8) < 3) is None


def test_it_takes_two_to_stand_apart_by_what_clients_choose_themselves():
    updates = np.random.default_rng(0).standard_normal((12, 40))
    updates[5] += 30.0  # it makes the first axis by itself
    trusted = np.arange(12) < 4
    views = all_views(updates, np.arange(12), trusted)
    chosen = {"principal axis", "principal direction", "nearest signs"}
    assert {view.name for view in views if view.fewest > 1} == chosen
    assert {view.name for view in views if view.bar > 1} == chosen | {"nearest known-benign"}
