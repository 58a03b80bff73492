"""Every attack against its definition, written out densely."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.decomposition import PCA

from encagg_cli import attacks
from encagg_cli.attacks import craft_matrix
from encagg_cli.attacks.lie import published_z
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.rounds.layout import Parameter

HONEST, ATTACKERS = 8, 3


def honest_of(scene):
    return scene.source.updates[:HONEST].astype(np.float64)


def own_of(scene):
    return scene.source.updates[HONEST:].astype(np.float64)


def close(crafted, expected):
    np.testing.assert_allclose(crafted, expected, rtol=2e-6, atol=1e-6)


# The same formulas as in ByzFL (0.0.11), which test_byzfl.py checks where that package is installed.


def test_lie_is_the_mean_less_z_deviations(make_scene):
    scene = make_scene()
    g = honest_of(scene)
    expected = g.mean(axis=0) - 1.5 * np.sqrt(((g - g.mean(axis=0)) ** 2).mean(axis=0))
    close(craft_matrix(attacks.get("lie"), scene), np.tile(expected, (ATTACKERS, 1)))


def test_a_negative_z_goes_the_other_way(make_scene):
    scene = make_scene()
    g = honest_of(scene)
    close(craft_matrix(attacks.get("lie(z=-0.5)"), scene)[0], g.mean(axis=0) + 0.5 * g.std(axis=0))


@pytest.mark.parametrize(
    ("n", "f", "z"),
    [(20, 2, 0.0), (20, 4, 0.157), (20, 6, 0.366), (20, 8, 0.674), (50, 5, 0.084), (50, 24, 1.426), (100, 20, 0.286)],
)
def test_lie_formula_gives_the_published_z(n, f, z):
    assert published_z(n, f) == pytest.approx(z, abs=6e-4)


@pytest.mark.parametrize(("n", "f"), [(20, 12), (50, 30)])
def test_lie_formula_is_refused_where_it_is_undefined(n, f):
    with pytest.raises(UnusableInput, match="undefined"):
        published_z(n, f)


def test_lie_formula_counts_this_rounds_attackers(make_scene):
    scene = make_scene()
    g = honest_of(scene)
    z = norm.ppf((11 - 3 - (11 // 2 + 1 - 3)) / (11 - 3))
    close(craft_matrix(attacks.get("lie(z=formula)"), scene)[0], g.mean(axis=0) - z * g.std(axis=0))


def test_own_knowledge_takes_the_attackers_honest_updates(make_scene):
    scene = make_scene()
    g = own_of(scene)
    close(craft_matrix(attacks.get("lie(knowledge=own)"), scene)[0], g.mean(axis=0) - 1.5 * g.std(axis=0))


def test_own_knowledge_includes_attackers_that_are_honest_in_this_round(make_scene):
    scene = make_scene(dormant=2)
    g = scene.source.updates[HONEST - 2 :].astype(np.float64)
    close(craft_matrix(attacks.get("ipm(epsilon=1.0,knowledge=own)"), scene)[0], -g.mean(axis=0))


def test_ipm_reverses_the_mean(make_scene):
    scene = make_scene()
    expected = -2.0 * honest_of(scene).mean(axis=0)
    close(craft_matrix(attacks.get("ipm(epsilon=2.0)"), scene), np.tile(expected, (ATTACKERS, 1)))


def test_sign_flip_and_scaling_work_on_each_ones_own_update(make_scene):
    scene = make_scene()
    close(craft_matrix(attacks.get("sign-flip(scale=5.0)"), scene), -5.0 * own_of(scene))
    close(craft_matrix(attacks.get("scaling"), scene), 10.0 * own_of(scene))
    close(craft_matrix(attacks.get("scaling(factor=clients)"), scene), 11.0 * own_of(scene))


def test_ua_fedrec_goes_against_the_signs_of_the_attackers_own_mean(make_scene):
    scene = make_scene()
    g = own_of(scene)
    expected = g.mean(axis=0) - 3.0 * np.sign(g.mean(axis=0)) * g.std(axis=0)
    close(craft_matrix(attacks.get("ua-fedrec"), scene)[0], expected)


def test_fang_trimmed_mean_lies_just_outside_the_honest_range(make_scene):
    scene = make_scene(parameters=500)
    g = honest_of(scene)
    low, high, up = g.min(axis=0), g.max(axis=0), g.mean(axis=0) > 0
    for row in craft_matrix(attacks.get("fang-trimmed-mean"), scene).astype(np.float64):
        tolerance = 1e-6 * np.abs(g).max()
        lower = np.where(low > 0, low / 2, low * 2)
        upper = np.where(high > 0, high * 2, high / 2)
        assert (row[up] <= low[up] + tolerance).all()
        assert (row[up] >= lower[up] - tolerance).all()
        assert (row[~up] >= high[~up] - tolerance).all()
        assert (row[~up] <= upper[~up] + tolerance).all()


def test_fang_trimmed_mean_with_partial_knowledge_is_three_to_four_deviations_off(make_scene):
    scene = make_scene(parameters=500)
    g = own_of(scene)
    crafted = craft_matrix(attacks.get("fang-trimmed-mean(knowledge=own)"), scene).astype(np.float64)
    steps = (g.mean(axis=0) - crafted) * np.sign(g.mean(axis=0)) / g.std(axis=0)
    assert steps.min() >= 3.0 - 1e-3
    assert steps.max() <= 4.0 + 1e-3
    assert steps.std() > 0.2  # drawn, by coordinate and attacker
    assert not np.array_equal(crafted[0], crafted[1])


def krum_choice(rows, f):
    n = len(rows)
    squared = ((rows[:, None] - rows[None, :]) ** 2).sum(axis=2)
    return int(np.argmin([np.sort(np.delete(squared[i], i))[: max(1, n - f - 2)].sum() for i in range(n)]))


@pytest.mark.parametrize("data", range(4))
def test_fang_krum_takes_the_first_halved_step_that_krum_selects(make_scene, data):
    scene = make_scene(data=data)
    g = honest_of(scene)
    n, f, d = HONEST + ATTACKERS, ATTACKERS, g.shape[1]
    distances = np.sqrt(((g[:, None] - g[None, :]) ** 2).sum(axis=2))
    nearest = min(np.sort(np.delete(distances[i], i))[: n - f - 2].sum() for i in range(HONEST))
    step = nearest / ((n - 2 * f - 1) * np.sqrt(d)) + np.linalg.norm(g, axis=1).max() / np.sqrt(d)
    crafted = -step * np.sign(g.mean(axis=0))
    while krum_choice(np.vstack([g, np.tile(crafted, (f, 1))]), f) < HONEST:
        step /= 2
        crafted = -step * np.sign(g.mean(axis=0))
    close(craft_matrix(attacks.get("fang-krum"), scene), np.tile(crafted, (f, 1)))


def test_fang_krum_with_partial_knowledge_tries_one_copy_then_more(make_scene):
    scene = make_scene(attackers=6, data=5)
    g = scene.source.updates[HONEST:].astype(np.float64)
    b, d = len(g), g.shape[1]
    distances = np.sqrt(((g[:, None] - g[None, :]) ** 2).sum(axis=2))
    nearest = min(np.sort(np.delete(distances[i], i))[: b - 2].sum() for i in range(b))

    def search():
        for copies in range(1, 7):
            step = nearest / (max(1, b - copies - 1) * np.sqrt(d)) + np.linalg.norm(g, axis=1).max() / np.sqrt(d)
            while step > 1e-5:
                crafted = -step * np.sign(g.mean(axis=0))
                if krum_choice(np.vstack([g, np.tile(crafted, (copies, 1))]), copies) >= b:
                    return crafted
                step /= 2
        return crafted

    close(craft_matrix(attacks.get("fang-krum(knowledge=own)"), scene)[0], search())


def test_byz_mean_makes_the_mean_of_all_uploads_lies_vector(make_scene):
    scene = make_scene(attackers=5)
    g = honest_of(scene)
    crafted = craft_matrix(attacks.get("byz-mean(z=0.7)"), scene).astype(np.float64)
    v = g.mean(axis=0) - 0.7 * g.std(axis=0)
    close(crafted[:2], np.tile(v, (2, 1)))
    np.testing.assert_allclose(np.vstack([g, crafted]).mean(axis=0), v, atol=1e-5)


def test_mimic_copies_one_honest_client_bit_for_bit_and_stays_with_it(make_scene):
    attack = attacks.get("mimic")
    copied = []
    for number in range(3):
        scene = make_scene(number=number, data=number)
        crafted = craft_matrix(attack, scene)
        matches = np.flatnonzero((scene.source.updates[:HONEST] == crafted[0]).all(axis=1))
        assert len(matches) == 1
        assert (crafted == crafted[0]).all()
        copied.append(int(matches[0]))
    assert len(set(copied)) == 1


def test_mimic_along_the_variance_copies_an_extreme_of_the_widest_direction(make_scene):
    rng = np.random.default_rng(3)
    wide = rng.standard_normal(30)
    wide /= np.linalg.norm(wide)
    along = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 12.0, -11.0, 3.0, 0.0, 0.0, 0.0])
    updates = 0.01 * rng.standard_normal((11, 30)) + along[:, None] * wide
    attack = attacks.get("mimic(pick=variance)")
    for number in range(4):
        scene = make_scene(updates=updates, number=number)
        crafted = craft_matrix(attack, scene)
    assert any(np.array_equal(crafted[0], scene.source.updates[row]) for row in (5, 6))


def test_gaussian_noise_has_the_stated_size_and_is_each_ones_own(make_scene):
    scene = make_scene(parameters=5000)
    replaced = craft_matrix(attacks.get("gaussian(sigma=0.3)"), scene)
    added = craft_matrix(attacks.get("gaussian(mode=add,sigma=0.3)"), scene)
    assert replaced.std() == pytest.approx(0.3, rel=0.03)
    assert abs(np.corrcoef(replaced)[0, 1]) < 0.06
    np.testing.assert_allclose(added - own_of(scene), replaced, atol=1e-5)


def test_fitted_gaussian_noise_has_the_attackers_own_norm(make_scene):
    scene = make_scene(parameters=2000)
    crafted = craft_matrix(attacks.get("gaussian(mode=fitted)"), scene)
    np.testing.assert_allclose(np.linalg.norm(crafted, axis=1), np.linalg.norm(own_of(scene), axis=1), rtol=1e-5)
    assert np.corrcoef(crafted[0], honest_of(scene).mean(axis=0))[0, 1] > 0.3


def test_free_riders_send_zero_or_the_last_step(make_scene):
    scene = make_scene()
    assert not craft_matrix(attacks.get("free-rider"), scene).any()
    rider = attacks.get("free-rider(mode=last-step)")
    models = np.random.default_rng(1).standard_normal((3, 40)).astype(np.float32)
    assert not craft_matrix(rider, scene).any()
    for number, model in enumerate(models):
        rider.observe(number, model)
    close(craft_matrix(rider, scene), np.tile(models[2] - models[1], (ATTACKERS, 1)))


def test_a_free_riders_noise_is_measured_in_the_last_step(make_scene):
    scene = make_scene(parameters=4000)
    rider = attacks.get("free-rider(noise=0.5)")
    rider.observe(0, np.zeros(4000, dtype=np.float32))
    rider.observe(1, np.full(4000, 0.2, dtype=np.float32))
    assert craft_matrix(rider, scene).std() == pytest.approx(0.1, rel=0.05)


def test_xfed_reverses_own_updates_to_the_size_of_recent_global_changes(make_scene):
    scene = make_scene()
    attack = attacks.get("xfed-like(k=2.0)")
    own = own_of(scene)
    close(craft_matrix(attack, scene), -own)
    model = np.zeros(40, dtype=np.float32)
    sizes = [3.0, 4.0, 8.0]
    attack.observe(0, model)
    for number, size in enumerate(sizes, start=1):
        model = model.copy()
        model[number] += size
        attack.observe(number, model)
    target = 4.0 + 2.0 * 1.0
    close(craft_matrix(attack, scene), -target * own / np.linalg.norm(own, axis=1, keepdims=True))


def test_fedimp_touches_only_the_most_important_coordinates(make_scene):
    scene = make_scene(parameters=200)
    g = honest_of(scene)
    importance = (g**2).mean(axis=0)
    top = np.argsort(importance)[-20:]
    expected = g.mean(axis=0)
    expected[top] -= 3.0 * g.std(axis=0)[top]
    close(craft_matrix(attacks.get("fedimp-like"), scene)[0], expected)


def test_fedghost_predicts_a_linear_trajectory(make_scene):
    from encagg_cli.attacks.fedghost_like import predict

    rng = np.random.default_rng(0)
    basis = rng.standard_normal((2, 30))
    steps = [(0.9**t * basis[0] + 0.5**t * basis[1]).astype(np.float32) for t in range(6)]
    np.testing.assert_allclose(predict(steps[:5]), steps[5], atol=1e-3)


def test_fedghost_sends_nothing_before_it_has_seen_a_step_then_multiples_of_the_prediction(make_scene):
    scene = make_scene(attackers=5, parameters=30)
    attack = attacks.get("fedghost-like(gamma=0.5)")
    assert not craft_matrix(attack, scene).any()
    attack.observe(0, np.zeros(30, dtype=np.float32))
    attack.observe(1, np.ones(30, dtype=np.float32))
    crafted = craft_matrix(attack, scene)
    close(crafted[:4], np.full((4, 30), 0.5))
    close(crafted[4], np.full(30, -3.5))


def test_fedghost_grows_bolder_when_the_model_follows_and_shyer_when_not(make_scene):
    scene = make_scene(attackers=1, parameters=30, number=1)
    for direction, grew in ((-1.0, True), (1.0, False)):
        attack = attacks.get("fedghost-like(gamma=2.0,sacrificial=0.0)")
        attack.observe(0, np.zeros(30, dtype=np.float32))
        attack.observe(1, np.ones(30, dtype=np.float32))
        before = craft_matrix(attack, scene)  # -1 times the prediction
        close(before[0], -np.ones(30))
        attack.observe(2, np.full(30, 1.0 + direction, dtype=np.float32))
        scale = 1.0 - craft_matrix(attack, make_scene(attackers=1, parameters=30, number=2))[0, 0] / direction
        assert scale == pytest.approx(3.0 if grew else 1.0, rel=1e-5)


def test_label_flip_uploads_what_was_trained_on_changed_labels(make_scene):
    alternatives = np.random.default_rng(9).standard_normal((ATTACKERS, 40))
    scene = make_scene(alternatives=alternatives)
    np.testing.assert_array_equal(craft_matrix(attacks.get("label-flip"), scene), alternatives.astype(np.float32))


def test_label_flip_refuses_updates_whose_tensors_lie_in_another_order(make_scene):
    weight, bias = Parameter("weight", (9, 4), 0), Parameter("bias", (4,), 36)
    other_order = [Parameter("bias", (4,), 0), Parameter("weight", (9, 4), 4)]
    scene = make_scene(alternatives=np.random.default_rng(9).standard_normal((ATTACKERS, 40)))
    for layout, refused in (([weight, bias], False), (None, False), (other_order, True)):
        alike = replace(
            scene,
            source=replace(scene.source, layout=[weight, bias]),
            alternatives=replace(scene.alternatives, layout=layout),
        )
        if refused:
            with pytest.raises(UnusableInput, match="another order"):
                craft_matrix(attacks.get("label-flip"), alike)
        else:
            craft_matrix(attacks.get("label-flip"), alike)


def test_label_flip_changes_labels_as_told():
    labels = np.array([0, 1, 5, 9])
    assert attacks.get("label-flip").relabel(labels, 10).tolist() == [9, 8, 4, 0]
    assert attacks.get("label-flip(mapping=next)").relabel(labels, 10).tolist() == [1, 2, 6, 0]
    pair = attacks.get("label-flip(mapping=pair,from_class=5,to_class=3)")
    assert pair.relabel(labels, 10).tolist() == [0, 1, 3, 9]
    with pytest.raises(UsageError, match="class 5"):
        pair.relabel(labels, 4)


def test_label_flip_without_trained_updates_says_where_to_get_them(make_scene):
    with pytest.raises(UnusableInput, match="changed labels"):
        craft_matrix(attacks.get("label-flip"), make_scene())


@pytest.mark.parametrize("reference", ["own", "mean"])
def test_adaptive_keeps_its_place_in_the_plane_and_reverses_the_mean_outside_of_it(make_scene, reference):
    scene = make_scene(honest=12, attackers=4, parameters=60, trusted=4)
    crafted = craft_matrix(attacks.get(f"adaptive(reference={reference})"), scene).astype(np.float64)
    everyone = scene.source.updates.astype(np.float64)
    known, own = everyone[:12], everyone[12:]
    axes = PCA(2).fit(everyone).components_
    mean = known.mean(axis=0)
    np.testing.assert_allclose(crafted @ axes.T, np.tile(mean @ axes.T, (4, 1)), atol=1e-4)
    start = own if reference == "own" else np.tile(mean, (4, 1))
    outside = mean - axes.T @ (axes @ mean)
    moved = (crafted - start) - (crafted - start) @ axes.T @ axes
    factor = moved @ outside / (outside @ outside)
    assert (factor < 0).all()
    np.testing.assert_allclose(moved, factor[:, None] * outside, atol=1e-4)
