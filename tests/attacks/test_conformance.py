"""What holds for every attack in the registry."""

import dataclasses

import numpy as np
import pytest

from encagg_cli import attacks
from encagg_cli.attacks import AttackNeed, Scene, canonical, craft, craft_matrix
from encagg_cli.attacks.aimed import Aimed
from encagg_cli.attacks.scene import column_blocks
from encagg_cli.errors import UsageError
from encagg_cli.sketch import ArraySource
from encagg_cli.sketch.compute import BLOCK_COLUMNS

NAMES = attacks.available()
COLLUDING_WITH_NOISE = [
    name
    for name in NAMES
    if "noise" in {f.name for f in dataclasses.fields(attacks.kind_of(name))} and attacks.kind_of(name).colluding
]


def ready(text, parameters):
    """An attack that has seen three global models, where it looks at them."""
    attack = attacks.get(text)
    if AttackNeed.GLOBAL_MODEL in attack.requires():
        models = np.random.default_rng(7).standard_normal((3, parameters)).astype(np.float32)
        for number, model in enumerate(models):
            attack.observe(number, model)
    return attack


def scene_for(make_scene, **options):
    parameters = options.setdefault("parameters", 40)
    attackers = options.setdefault("attackers", 3)
    return make_scene(alternatives=np.random.default_rng(8).standard_normal((attackers, parameters)), **options)


@pytest.mark.parametrize("name", NAMES)
def test_uploads_are_finite_float32_one_a_poisoning_client(make_scene, name):
    crafted = craft_matrix(ready(name, 40), scene_for(make_scene))
    assert crafted.shape == (3, 40)
    assert crafted.dtype == np.float32
    assert np.isfinite(crafted).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(make_scene, name):
    first, second = (craft_matrix(ready(name, 40), scene_for(make_scene, seed=5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_honest_updates_are_left_as_they_are(make_scene, name):
    scene = scene_for(make_scene)
    before = scene.source.updates.copy()
    craft_matrix(ready(name, 40), scene)
    np.testing.assert_array_equal(scene.source.updates, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_in_which_clients_are_stored_does_not_matter(make_scene, name):
    scene = scene_for(make_scene, trusted=4)
    order = np.random.default_rng(2).permutation(len(scene.source.client_ids))
    shuffled = dataclasses.replace(
        scene,
        source=ArraySource(
            scene.source.updates[order],
            tuple(scene.source.client_ids[row] for row in order),
            scene.source.trusted[order],
        ),
    )
    np.testing.assert_array_equal(craft_matrix(ready(name, 40), scene), craft_matrix(ready(name, 40), shuffled))


@pytest.mark.parametrize("name", NAMES)
def test_a_lone_attacker_is_served(make_scene, name):
    scene = scene_for(make_scene, attackers=1, dormant=2)
    assert craft_matrix(ready(name, 40), scene).shape == (1, 40)


@pytest.mark.parametrize("name", NAMES)
def test_updates_with_nan_are_of_no_use_to_attackers(make_scene, name):
    scene = scene_for(make_scene)
    scene.source.updates[3] = np.nan
    assert np.isfinite(craft_matrix(ready(name, 40), scene)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_large_round_is_crafted_in_blocks_with_the_same_result(name):
    """Columns are crafted block by block; a round that is padded with zeros to a second block must not differ."""
    narrow, zeros = 50, BLOCK_COLUMNS
    rng = np.random.default_rng(4)
    updates = (1.0 + rng.standard_normal((9, narrow))).astype(np.float32)

    def scene_of(matrix):
        ids = tuple(f"c{row}" for row in range(9))
        alternatives = ArraySource(matrix[6:] * 2, ids[6:], np.zeros(3, dtype=bool))
        return Scene(
            source=ArraySource(matrix, ids, np.arange(9) < 3),
            poisoning=ids[6:],
            malicious=ids[6:],
            honest_clients=ids[:6],
            trusted=frozenset(ids[:3]),
            alternatives=alternatives,
        )

    text = f"{name}(target=multi-krum(f=2))" if issubclass(attacks.kind_of(name), Aimed) else name
    wide = np.hstack([updates, np.zeros((9, zeros), dtype=np.float32)])
    attack = ready(text, narrow + zeros)
    blocks = list(craft(attack, scene_of(wide)))
    assert [block.shape[1] for block in blocks] == [stop - start for start, stop in column_blocks(narrow + zeros)]
    assert len(blocks) == 2
    if name in {"min-max", "min-sum", "lie", "ipm", "sign-flip", "scaling", "ua-fedrec", "byz-mean", "adaptive"}:
        small = craft_matrix(ready(text, narrow), scene_of(updates))
        np.testing.assert_allclose(blocks[0][:, :narrow], small, rtol=1e-5, atol=1e-6)
        assert not blocks[0][:, narrow:].any()
        assert not blocks[1].any()


@pytest.mark.parametrize("name", COLLUDING_WITH_NOISE)
def test_noise_makes_colluders_differ(make_scene, name):
    extra = ",mode=last-step" if name == "free-rider" else ""
    scene = scene_for(make_scene, parameters=400)
    noisy = craft_matrix(ready(f"{name}(noise=0.5{extra})", 400), scene)
    assert not np.array_equal(noisy[0], noisy[1])
    quieter = craft_matrix(ready(f"{name}(noise=0.001{extra})", 400), scene)
    assert np.linalg.norm(noisy[0] - noisy[1]) > 20 * np.linalg.norm(quieter[0] - quieter[1]) or name in {
        "lie-optimised",  # aimed attacks rehearse with their noise, and may choose another strength
        "ipm-optimised",
        "agr-tailored",
        "adaptive",
        "cmp",
        "byz-mean",  # its two halves differ anyway
        "fedghost-like",
    }


def test_noise_is_measured_in_honest_deviations(make_scene):
    scene = make_scene(parameters=20_000)
    quiet, noisy = (craft_matrix(attacks.get(f"lie(noise={size})"), scene) for size in (0.0, 0.7))
    share = (noisy - quiet) / scene.source.updates[:8].std(axis=0)
    assert share.std() == pytest.approx(0.7, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_canonical_text_is_read_back(name):
    attack = attacks.get(name)
    assert canonical(attack) == name
    assert canonical(attacks.get(canonical(attack))) == name
    assert attack.summary
    assert attack.source
    assert attack.grade in {"A", "B", "C"}


def test_settings_with_commas_of_their_own_are_read_back():
    text = "agr-tailored(target=multi-krum(f=8,relaxed=true),direction=sd)"
    attack = attacks.get(text)
    assert attack.target == "multi-krum(f=8,relaxed=true)"
    assert canonical(attacks.get(canonical(attack))) == canonical(attack)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonesuch", "there is no attack"),
        ("lie(z=much)", "lie.z must be a number or formula"),
        ("lie(y=1)", "no setting 'y'"),
        ("ipm(epsilon=0)", "above 0"),
        ("min-max(direction=up)", "direction"),
        ("lie(noise=-1)", "at least 0"),
        ("lie(knowledge=some)", "knowledge"),
        ("lie(z=1.5", "cannot read .* as an attack"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        attacks.get(text)


@pytest.mark.parametrize("name", ["lie", "min-max", "fang-krum", "byz-mean", "fedimp-like", "adaptive"])
def test_one_honest_update_is_not_enough_for_a_spread(make_scene, name):
    from encagg_cli.errors import UnusableInput

    with pytest.raises(UnusableInput, match=r"round 4: .* needs 2 honest uploads"):
        craft_matrix(attacks.get(name), make_scene(honest=1, trusted=1, number=4))
