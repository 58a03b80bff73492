"""Where ByzFL is installed: the same attacks by another hand (`pip install byzfl`; skipped visibly without it)."""

import numpy as np
import pytest

from encagg_cli import attacks, filters
from encagg_cli.attacks import craft_matrix

byzfl = pytest.importorskip("byzfl", reason="ByzFL is not installed", exc_type=ImportError)


def test_ipm_and_byzfls_sign_flipping(make_scene):
    scene = make_scene()
    honest = scene.source.updates[:8].astype(np.float64)
    np.testing.assert_allclose(
        craft_matrix(attacks.get("ipm(epsilon=2.0)"), scene)[0],
        byzfl.InnerProductManipulation(2.0)(honest),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        craft_matrix(attacks.get("ipm(epsilon=1.0)"), scene)[0], byzfl.SignFlipping()(honest), rtol=1e-6, atol=1e-6
    )


def test_lie_up_to_byzfls_sign_and_its_deviation_over_one_less(make_scene):
    scene = make_scene()
    honest = scene.source.updates[:8].astype(np.float64)
    z = -1.5 * np.sqrt(8 / 7)  # theirs adds, and divides by b - 1
    np.testing.assert_allclose(
        craft_matrix(attacks.get("lie", z=z), scene)[0], byzfl.ALittleIsEnough(1.5)(honest), rtol=1e-5, atol=1e-6
    )


def test_mimic_copies_an_honest_vector(make_scene):
    scene = make_scene()
    honest = scene.source.updates[:8]
    crafted = craft_matrix(attacks.get("mimic"), scene)[0]
    place = int(np.flatnonzero((honest == crafted).all(axis=1))[0])
    np.testing.assert_array_equal(crafted, byzfl.Mimic(place)(honest))


@pytest.mark.parametrize(
    ("name", "search"),
    [
        ("ipm-optimised", byzfl.Optimal_InnerProductManipulation),
        ("lie-optimised", byzfl.Optimal_ALittleIsEnough),
    ],
)
@pytest.mark.parametrize("data", range(3))
def test_our_search_harms_a_filter_at_least_as_much_as_byzfls(make_scene, name, search, data):
    scene = make_scene(honest=10, attackers=3, data=data)
    honest = scene.source.updates[:10].astype(np.float64)

    def multi_krum(rows):  # theirs counts neighbours differently, so both searches are given ours
        return filters.get("multi-krum(f=3)").decide(np.asarray(rows)).weight @ rows

    def harm(vector):
        return np.linalg.norm(multi_krum(np.vstack([honest, np.tile(vector, (3, 1))])) - honest.mean(axis=0))

    theirs = search(multi_krum, pre_agg_list=[], f=3, evals=20)(honest)
    ours = craft_matrix(attacks.get(f"{name}(target=multi-krum(f=3))"), scene)[0]
    assert harm(ours) >= 0.95 * harm(theirs)
