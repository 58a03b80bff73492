"""Whole simulations on the bundled digits: real training, real attacks, recorded and replayed."""

import json

import numpy as np
import pytest

from encagg_cli import filters
from encagg_cli.errors import OutputExists, UsageError
from encagg_cli.federation.loop import Federation
from encagg_cli.federation.setup import Setup
from encagg_cli.federation.simulate import simulate
from encagg_cli.federation.training import one_thread
from encagg_cli.filters.passes import sketch_for
from encagg_cli.rounds.reader import Run
from encagg_cli.verdicts.replay import judge_round

ATTACKED = {"attacks": ("lie(z=3.0)",), "ratio": 0.6, "schedule": "always", "partition": "iid"}


def test_honest_training_learns_and_an_attack_undoes_it_and_a_filter_undoes_that():
    honest = simulate(Setup(partition="iid", rounds=6))
    attacked = simulate(Setup(rounds=6, **ATTACKED))
    filtered = simulate(
        Setup(rounds=6, method="multi-krum(f=8)", **{**ATTACKED, "ratio": 0.4, "attacks": ("scaling",)})
    )
    assert honest.initial_accuracy < 0.3
    assert honest.final_accuracy > 0.85
    assert attacked.final_accuracy < honest.final_accuracy - 0.1
    assert filtered.final_accuracy > 0.8
    assert all(report.caught == report.poisoned == 8 for report in filtered.rounds)


@pytest.mark.parametrize("algorithm", ["fedavg", "fedsgd"])
def test_the_same_setup_gives_the_same_bits(algorithm):
    setup = Setup(algorithm=algorithm, rounds=3, attacks=("lie(noise=0.5)", "label-flip"), ratio=0.5, method="encagg")
    first, second = simulate(setup), simulate(setup)
    np.testing.assert_array_equal(first.final_model, second.final_model)
    assert first.rounds == second.rounds


def test_another_seed_is_another_federation():
    assert simulate(Setup(rounds=1)).final_accuracy != simulate(Setup(rounds=1, seed=1)).final_accuracy


def test_the_mean_of_one_fedsgd_round_is_one_gradient_step():
    setup = Setup(algorithm="fedsgd", rounds=1, learning_rate=0.25)
    federation = Federation(setup)
    uploads = federation.uploads(0, federation.initial)
    expected = federation.initial - 0.25 * uploads.updates.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(simulate(setup).final_model, expected, atol=1e-6)


def test_label_flippers_upload_training_on_flipped_labels_and_others_stay_honest():
    setup = Setup(attacks=("label-flip",), ratio=0.5, schedule="always")
    federation, honest = Federation(setup), Federation(Setup())
    poisoned, clean = (each.uploads(0, each.initial) for each in (federation, honest))
    marked = poisoned.poisoned == 1
    assert marked.sum() == 10
    np.testing.assert_array_equal(poisoned.updates[~marked], clean.updates[~marked])
    row = int(np.flatnonzero(marked)[0])
    with one_thread():
        flipped = federation.clients.update(row, 0, federation.initial, lambda labels: 9 - labels)
    np.testing.assert_array_equal(poisoned.updates[row], flipped)
    assert not np.array_equal(flipped, clean.updates[row])


def test_in_fedsgd_attackers_that_watch_the_model_are_told_the_learning_rate(tmp_path):
    setup = Setup(algorithm="fedsgd", rounds=3, attacks=("free-rider(mode=last-step)",), schedule="always")
    simulate(setup, run=tmp_path / "run")
    with Run.open(tmp_path / "run") as run:
        before, after = run.round(1), run.round(2)
        rows = before.rows(range(20)).mean(axis=0, dtype=np.float64)
        ridden = after.rows(np.flatnonzero(after.poisoned == 1))
        np.testing.assert_allclose(ridden, np.tile(rows, (6, 1)), atol=1e-6)
        assert set(after.attack) == {"", "free-rider(learning_rate=0.5,mode=last-step)"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["encagg", "cosine-to-known-benign"])
def test_a_replay_of_the_recorded_run_gives_the_verdicts_of_the_loop(tmp_path, method, dtype):
    setup = Setup(rounds=4, attacks=("lie", "sign-flip"), ratio=0.5, method=method, dtype=dtype, seed=3)
    result = simulate(setup, run=tmp_path / "run")
    replayed = filters.get(method)
    with Run.open(tmp_path / "run") as run:
        assert run.rounds == (0, 1, 2, 3)
        for report, stored in zip(result.rounds, run, strict=True):
            trusted = frozenset(c for c, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag)
            assert trusted == {"client-00", "client-01", "client-02", "client-03"}
            verdicts = judge_round(sketch_for(stored, [replayed]), stored, {method: replayed}, trusted)
            decision = verdicts.decisions[method].in_order(stored.client_ids)
            poisoned = stored.poisoned == 1
            assert int(poisoned.sum()) == report.poisoned
            assert int((~decision.accepted).sum()) == report.rejected
            assert int((~decision.accepted & poisoned).sum()) == report.caught
            assert {name for name in stored.attack if name} == set(report.attacks)


def test_the_recorded_models_are_the_ones_that_the_filtered_aggregates_lead_to(tmp_path):
    setup = Setup(rounds=4, attacks=("lie",), ratio=0.5, method="multi-krum(f=5)", seed=3)
    result = simulate(setup, run=tmp_path / "run")
    with Run.open(tmp_path / "run") as run:
        model = run.round(0).global_model()
        for stored in run:
            # not bit for bit: sums in another order round otherwise, now and then
            np.testing.assert_allclose(model, stored.global_model(), rtol=0, atol=1e-7)
            assert stored.update_kind == "delta"
            assert stored.num_examples.sum() == 1437
            rows = stored.rows(range(20)).astype(np.float64)
            decision = filters.get("multi-krum(f=5)").decide(rows, clients=stored.client_ids)
            model = (stored.global_model() + (decision.weight @ rows).astype(np.float32)).astype(np.float32)
        np.testing.assert_allclose(result.final_model, model, atol=1e-7)
        roles = {parameter.name: parameter.role for parameter in run.parameters}
    assert roles == {"1.weight": "", "1.bias": "", "3.weight": "output", "3.bias": "output"}


def test_settings_and_outcome_lie_beside_the_rounds(tmp_path):
    result = simulate(Setup(rounds=2, attacks=("lie",)), run=tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "simulation.json").read_text())
    assert stored == json.loads(json.dumps(result.as_json()))
    assert stored["settings"]["attacks"] == ["lie"]
    assert stored["settings"]["ratio"] == 0.3
    assert stored["settings"]["learning_rate"] == 0.3
    assert len(stored["rounds"]) == 2


def test_a_run_that_exists_is_kept_unless_forced(tmp_path):
    run = tmp_path / "run"
    simulate(Setup(rounds=3), run=run)
    before = (run / "round-000000.h5").read_bytes()
    with pytest.raises(OutputExists, match="exists"):
        simulate(Setup(rounds=1, seed=1), run=run)
    assert (run / "round-000000.h5").read_bytes() == before
    simulate(Setup(rounds=1, seed=1), run=run, force=True)
    with Run.open(run) as replaced:
        assert replaced.rounds == (0,)


def test_a_refused_setup_leaves_nothing_behind(tmp_path):
    with pytest.raises(UsageError):
        simulate(Setup(attacks=("nonesuch",)), run=tmp_path / "run")
    with pytest.raises(UsageError, match="known-benign"):
        simulate(Setup(trusted=0, method="encagg"), run=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_non_finite_uploads_are_kept_out_of_the_mean(tmp_path):
    setup = Setup(rounds=2, attacks=("scaling(factor=1e45)",), ratio=0.3, schedule="always")
    result = simulate(setup, run=tmp_path / "run")
    assert not result.diverged
    assert [report.rejected for report in result.rounds] == [6, 6]
    assert result.final_accuracy > 0.2


def test_a_training_that_diverges_ends_and_says_so():
    setup = Setup(rounds=8, attacks=("scaling(factor=1e30)",), ratio=0.3, schedule="always")
    result = simulate(setup)
    assert result.diverged
    assert len(result.rounds) < 8


def test_nobody_accepted_leaves_the_model_as_it_was():
    setup = Setup(rounds=1, method="cosine-to-known-benign(threshold=0.9999)")
    result = simulate(setup)
    assert result.rounds[0].rejected == 20
    np.testing.assert_array_equal(result.final_model, Federation(setup).initial)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clients": 0}, "clients must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"seed": -1}, "seed"),
        ({"trusted": 30}, "30 of 20"),
        ({"partition": "random"}, "no partition"),
        ({"dtype": "int8"}, "int8"),
        ({"algorithm": "fedprox"}, "no algorithm"),
        ({"device": "abacus"}, "no device"),
    ],
)
def test_setups_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Setup(**options)
