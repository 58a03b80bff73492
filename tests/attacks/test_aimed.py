"""Attacks that aim at a filter: what they settle on, against a dense simulation of that filter."""

import numpy as np
import pytest

from encagg_cli import attacks, filters
from encagg_cli.attacks import craft_matrix
from encagg_cli.attacks.aimed import largest_accepted, most_harm
from encagg_cli.attacks.mixture import Mixture, mean_of
from encagg_cli.attacks.rehearsal import ImaginedRound, Outcome, needs_of_target, rehearse, rehearse_mixture
from encagg_cli.errors import UsageError
from encagg_cli.sketch import sketch_round
from encagg_cli.sketch.compute import BLOCK_COLUMNS

HONEST, ATTACKERS = 10, 3
KRUM = "multi-krum(f=3)"


@pytest.fixture
def scene(make_scene):
    return make_scene(honest=HONEST, attackers=ATTACKERS, trusted=4)


def decide(target, g, crafted):
    rows = np.vstack([g, crafted])
    decision = filters.get(target).decide(rows, trusted=range(4), poisoned={str(r): r >= HONEST for r in range(13)})
    weight = decision.weight
    return decision.accepted[HONEST:], float(np.linalg.norm(weight @ rows - g.mean(axis=0)))


def test_the_harm_to_a_coordinate_wise_rule_is_that_of_its_own_aggregate(scene):
    crafted = np.full((ATTACKERS, 40), -50.0)
    seen = rehearse("median", scene, "all", lambda columns: crafted)
    rows = np.vstack([scene.source.updates[:HONEST], crafted]).astype(np.float64)
    expected = np.linalg.norm(np.median(rows, axis=0) - rows[:HONEST].mean(axis=0))
    assert seen.harm == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", [KRUM, "cosine-to-known-benign", "encagg"])
def test_a_rehearsal_sees_what_the_filter_does(scene, target):
    g = scene.source.updates[:HONEST].astype(np.float64)
    crafted = np.tile((g.mean(axis=0) - 0.8 * g.std(axis=0)).astype(np.float32), (ATTACKERS, 1))
    seen = rehearse(target, scene, "all", lambda columns: crafted[:, columns.start : columns.stop].astype(np.float64))
    accepted, harm = decide(target, scene.source.updates[:HONEST], crafted)
    np.testing.assert_array_equal(seen.accepted, accepted)
    assert seen.harm == pytest.approx(harm, rel=1e-4)


@pytest.mark.parametrize("knowledge", ["all", "own"])
@pytest.mark.parametrize("target", [KRUM, "cosine-to-known-benign", "encagg", "flame(on=updates)", "k-means"])
def test_a_rehearsal_without_columns_sees_the_same(make_scene, target, knowledge):
    scene = make_scene(honest=HONEST, attackers=ATTACKERS, trusted=4, dormant=6, parameters=300)
    needs = needs_of_target(target)
    assert needs is not None
    honest = sketch_round(scene.source, needs)
    b = len(scene.known_clients(knowledge))
    rng = np.random.default_rng(1)
    for mixture in (
        mean_of(scene, knowledge, -0.5),
        mean_of(scene, knowledge, 0.97),
        Mixture(rng.dirichlet(np.ones(b), ATTACKERS), 0.3 * np.eye(ATTACKERS)),
    ):
        by_columns = rehearse(target, scene, knowledge, mixture.columns)
        without = rehearse_mixture(target, scene, knowledge, mixture, honest)
        np.testing.assert_array_equal(without.accepted, by_columns.accepted)
        assert without.harm == pytest.approx(by_columns.harm, rel=1e-4, abs=1e-5)


def test_a_target_that_counts_values_or_has_no_weights_must_see_columns():
    assert needs_of_target("signguard") is None
    assert needs_of_target("median") is None
    assert needs_of_target("bulyan(f=1)") is None  # its aggregate is made column by column


def test_an_imagined_round_reads_the_same_in_any_pieces(make_scene):
    scene = make_scene(honest=4, attackers=2, parameters=BLOCK_COLUMNS + 5000)
    attack = attacks.get("lie(noise=1.0)")
    imagined = ImaginedRound(scene, "all", lambda columns: attack.columns(columns, 1.5))
    whole = np.empty((6, scene.n_parameters), dtype=np.float32)
    imagined.read_columns(0, scene.n_parameters, whole)
    np.testing.assert_array_equal(whole[:4], scene.source.updates[:4])
    np.testing.assert_array_equal(whole[4:], craft_matrix(attack, scene))
    for start, stop in ((10, 90), (BLOCK_COLUMNS - 3, BLOCK_COLUMNS + 7), (BLOCK_COLUMNS + 100, scene.n_parameters)):
        piece = np.empty((6, stop - start), dtype=np.float32)
        imagined.read_columns(start, stop, piece)
        np.testing.assert_array_equal(piece, whole[:, start:stop])
    np.testing.assert_allclose(imagined.norms, np.linalg.norm(whole.astype(np.float64), axis=1), rtol=1e-12)


@pytest.mark.parametrize("name", ["agr-tailored", "lie-optimised", "ipm-optimised"])
def test_the_strength_found_harms_more_than_a_scan_of_others(scene, name):
    attack = attacks.get(f"{name}(target={KRUM})")
    g = scene.source.updates[:HONEST]
    crafted = craft_matrix(attack, scene)
    accepted, harm = decide(KRUM, g, crafted)
    assert accepted.any()
    mean, deviation = g.mean(axis=0, dtype=np.float64), g.std(axis=0, dtype=np.float64)
    for strength in np.geomspace(0.05, 50, 60):
        other = {
            "agr-tailored": mean * (1 - strength),
            "lie-optimised": mean - strength * deviation,
            "ipm-optimised": -strength * mean,
        }[name]
        passes, other_harm = decide(KRUM, g, np.tile(other.astype(np.float32), (ATTACKERS, 1)))
        assert not passes.any() or other_harm <= 1.15 * harm  # the search is as fine as 2^(1/8)


def test_covert_poisoning_stops_where_the_filter_would_object(scene):
    g = scene.source.updates[:HONEST]
    crafted = craft_matrix(attacks.get(f"cmp(target={KRUM})"), scene)
    assert decide(KRUM, g, crafted)[0].all()
    mean = g.mean(axis=0, dtype=np.float64)
    t = float((mean - crafted[0]) @ mean / (mean @ mean)) / 6.0
    assert 0 < t < 1
    farther = np.tile((mean * (1 - 1.02 * t * 6.0)).astype(np.float32), (ATTACKERS, 1))
    assert not decide(KRUM, g, farther)[0].all()


def test_covert_poisoning_reaches_a_target_that_nobody_objects_to(scene):
    g = scene.source.updates[:HONEST]
    crafted = craft_matrix(attacks.get("cmp(target=multi-krum(f=0))"), scene)
    np.testing.assert_allclose(crafted[0], -5.0 * g.mean(axis=0, dtype=np.float64), rtol=1e-5)


def test_a_filter_that_is_told_the_truth_is_rehearsed_with_it(scene):
    told = craft_matrix(attacks.get("agr-tailored(target=multi-krum(f=oracle))"), scene)
    np.testing.assert_array_equal(told, craft_matrix(attacks.get(f"agr-tailored(target={KRUM})"), scene))


def test_own_knowledge_rehearses_on_the_attackers_own_updates(make_scene):
    attack = attacks.get("agr-tailored(target=multi-krum(f=2),knowledge=own)")
    scene = make_scene(attackers=6)
    elsewhere = make_scene(attackers=6)
    elsewhere.source.updates[:8] += 3.0  # what others upload cannot matter
    np.testing.assert_array_equal(craft_matrix(attack, scene), craft_matrix(attack, elsewhere))


@pytest.mark.parametrize("name", ["agr-tailored", "adaptive", "cmp"])
def test_a_filter_with_known_benign_clients_cannot_be_rehearsed_blindly(name):
    with pytest.raises(UsageError, match="cannot rehearse encagg"):
        attacks.get(f"{name}(knowledge=own)")


def test_an_unknown_target_is_refused_when_the_attack_is_made():
    with pytest.raises(UsageError, match="no method 'nonesuch'"):
        attacks.get("agr-tailored(target=nonesuch)")


def test_most_harm_looks_only_where_something_passes():
    def outcome(strength):
        return Outcome(np.array([strength <= 0.3]), strength)

    assert 0.3 / 2**0.125 <= most_harm(outcome, 8.0) <= 0.3


def test_most_harm_without_any_passage_takes_the_harm_that_there_is():
    assert most_harm(lambda s: Outcome(np.array([False]), s), 8.0) == 8.0


def test_largest_accepted_is_zero_where_nothing_is_accepted():
    assert largest_accepted(lambda s: Outcome(np.array([True, False]), s), 1.0) == 0.0
