"""Attacks on captured honest rounds: labelled, reproducible, and nothing else touched."""

import hashlib
import json

import numpy as np
import pytest

from encagg_cli import attacks
from encagg_cli.attacks.schedule import get_schedule
from encagg_cli.errors import OutputExists, UnusableInput, UsageError
from encagg_cli.federation import captured
from encagg_cli.federation.captured import inject
from encagg_cli.federation.setup import Setup
from encagg_cli.federation.simulate import simulate
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.writer import RoundWriter


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    run = tmp_path_factory.mktemp("honest") / "run"
    simulate(Setup(rounds=4), run=run)
    return run


def poison(run, output, *texts, ratio=0.3, schedule="bernoulli", seed=0, **options):
    with Run.open(run) as stored:
        return inject(
            stored,
            output,
            attacks=[attacks.get(text) for text in texts],
            ratio=ratio,
            schedule=get_schedule(schedule),
            seed=seed,
            **options,
        )


def contents(run):
    with Run.open(run) as stored:
        return [
            (r.number, r.client_ids, r.rows(range(len(r.client_ids))), r.poisoned.tolist(), r.attack) for r in stored
        ]


def files_of(run):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.iterdir()}


def write_run(
    folder,
    updates,
    *,
    stored_type="float32",
    compression=None,
    poisoned=None,
    trusted=(),
    global_model=None,
    rounds=(0,),
):
    """A run made by hand: the same matrix of (clients, parameters) in every round."""
    from encagg_cli.rounds.layout import Parameter

    for number in rounds:
        parameters = [Parameter("update", (updates.shape[1],), 0)]
        with RoundWriter(
            folder,
            number,
            session="s",
            parameters=parameters,
            stored_type=stored_type,
            compression=compression,
            global_model=global_model,
        ) as writer:
            for row, update in enumerate(updates):
                writer.add(f"c{row}", update, trusted=row in trusted, poisoned=poisoned)
    return folder


def test_honest_rows_are_bit_identical_and_every_upload_is_labelled(honest, tmp_path):
    before = files_of(honest)
    result = poison(honest, tmp_path / "p", "lie", ratio=0.5)
    assert files_of(honest) == before
    changed = 0
    for original, made in zip(contents(honest), contents(tmp_path / "p"), strict=True):
        assert original[:2] == made[:2]
        for row, label in enumerate(made[3]):
            assert label in (0, 1)
            assert (made[4][row] == "lie") == bool(label)
            same = np.array_equal(original[2][row].view(np.uint32), made[2][row].view(np.uint32))
            assert same != bool(label)
            changed += label
    assert changed == sum(poisoned.poisoned for poisoned in result.rounds) > 8


def test_crafted_rows_are_the_attacks_own(honest, tmp_path):
    poison(honest, tmp_path / "p", "ipm(epsilon=1.0)", schedule="always")
    for original, made in zip(contents(honest), contents(tmp_path / "p"), strict=True):
        crafted = np.array(made[3]) == 1
        expected = -original[2][~crafted].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(made[2][crafted], np.tile(expected, (6, 1)), rtol=1e-5, atol=1e-8)


def test_models_sample_counts_and_known_benign_clients_come_along(honest, tmp_path):
    poison(honest, tmp_path / "p", "lie")
    with Run.open(honest) as original, Run.open(tmp_path / "p") as made:
        for before, after in zip(original, made, strict=True):
            np.testing.assert_array_equal(before.global_model(), after.global_model())
            np.testing.assert_array_equal(before.num_examples, after.num_examples)
            np.testing.assert_array_equal(before.trusted, after.trusted)
            assert before.parameters == after.parameters
            assert not (after.trusted & (after.poisoned == 1)).any()


def test_the_same_seed_gives_the_same_run_and_another_one_another(honest, tmp_path):
    names = ("lie(noise=1.0)", "gaussian", "fang-trimmed-mean")
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        poison(honest, tmp_path / name, *names, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    for one, two in zip(a, b, strict=True):
        assert one[3:] == two[3:]
        np.testing.assert_array_equal(one[2], two[2])
    assert [r[3] for r in a] != [r[3] for r in c]


def test_settings_are_stored_beside_the_rounds(honest, tmp_path):
    poison(honest, tmp_path / "p", "lie(z=2.0)", ratio=(0.2, 0.4), schedule="always", seed=5)
    stored = json.loads((tmp_path / "p" / "attack.json").read_text())
    settings = stored["settings"]
    assert settings["attacks"] == ["lie(z=2.0)"]
    assert settings["ratios"] == [0.2, 0.4]
    assert (settings["schedule"], settings["seed"]) == ("always", 5)
    with Run.open(honest) as run:
        assert settings["digests"] == {str(r.number): r.digest for r in run}
    assert {r["poisoned"] for r in stored["rounds"]} <= {4, 8}


def test_a_large_rounds_crafted_uploads_go_through_a_file_with_the_same_result(honest, tmp_path, monkeypatch):
    poison(honest, tmp_path / "memory", "lie", "sign-flip")
    monkeypatch.setattr(captured, "_IN_MEMORY_BYTES", 0)
    poison(honest, tmp_path / "file", "lie", "sign-flip")
    for one, two in zip(contents(tmp_path / "memory"), contents(tmp_path / "file"), strict=True):
        np.testing.assert_array_equal(one[2], two[2])


def test_sixteen_bit_rounds_stay_sixteen_bit(tmp_path):
    updates = np.random.default_rng(0).standard_normal((8, 30)).astype(np.float32)
    run = write_run(tmp_path / "run", updates, stored_type="bfloat16", trusted=(0, 1))
    poison(run, tmp_path / "p", "sign-flip", schedule="always")
    before, after = contents(run)[0], contents(tmp_path / "p")[0]
    for row, label in enumerate(after[3]):
        np.testing.assert_array_equal(after[2][row], -before[2][row] if label else before[2][row])
    with Run.open(tmp_path / "p") as made:
        assert made.round(0).stored_type == "bfloat16"


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_copy_is_compressed_where_the_original_is(tmp_path, compression):
    updates = np.random.default_rng(0).standard_normal((8, 3000)).astype(np.float32)
    run = write_run(tmp_path / "run", updates, compression=compression, trusted=(0, 1))
    poison(run, tmp_path / "p", "sign-flip", schedule="always")
    with Run.open(tmp_path / "p") as made:
        assert [shard.is_compressed for shard in made.round(0).shards] == [compression is not None]
    (before,), (after,) = contents(run), contents(tmp_path / "p")
    for row, label in enumerate(after[3]):
        np.testing.assert_array_equal(after[2][row], -before[2][row] if label else before[2][row])


def test_a_non_finite_upload_is_kept_and_does_not_spoil_the_attack(tmp_path):
    updates = np.random.default_rng(0).standard_normal((10, 30)).astype(np.float32)
    updates[1] = np.nan
    run = write_run(tmp_path / "run", updates, trusted=(0, 1, 2))
    poison(run, tmp_path / "p", "lie", "min-max", schedule="always")
    (_, _, rows, labels, _) = contents(tmp_path / "p")[0]
    assert np.isnan(rows[1]).all()
    assert np.isfinite(rows[np.array(labels) == 1]).all()


def test_rounds_with_poison_are_left_out_and_a_run_without_honest_ones_refused(honest, tmp_path):
    poison(honest, tmp_path / "p", "lie", schedule="always(free=1)")
    result = poison(tmp_path / "p", tmp_path / "q", "ipm", schedule="always")
    assert result.left_out == (0, 2, 3)
    assert [r.number for r in result.rounds] == [1]
    with pytest.raises(UnusableInput, match="no honest round"):
        poison(tmp_path / "q", tmp_path / "r", "lie")
    assert not (tmp_path / "r").exists()


def test_label_flip_takes_stored_alternatives(honest, tmp_path):
    with pytest.raises(UsageError, match="changed labels"):
        poison(honest, tmp_path / "p", "label-flip")
    with Run.open(honest) as run:
        parameters = run.n_parameters
    harmful = np.arange(20, dtype=np.float32)[:, None] + np.zeros((20, parameters), dtype=np.float32)
    other = tmp_path / "alternatives"
    for number in range(4):
        from encagg_cli.rounds.layout import Parameter

        layout = [Parameter("update", (parameters,), 0)]
        with RoundWriter(other, number, session="s", parameters=layout) as writer:
            for row, update in enumerate(harmful):
                writer.add(f"client-{row:02d}", update)
    with Run.open(other) as alternatives:
        poison(honest, tmp_path / "p", "label-flip", alternatives=alternatives, schedule="always")
    for _, clients, rows, labels, _ in contents(tmp_path / "p"):
        for client, row, label in zip(clients, rows, labels, strict=True):
            if label:
                assert set(row) == {float(client[-2:])}
    (other / "round-000002.h5").unlink()
    with Run.open(other) as alternatives, pytest.raises(UnusableInput, match="round 2"):
        poison(honest, tmp_path / "q", "label-flip", alternatives=alternatives, schedule="always")
    assert not (tmp_path / "q").exists()


def test_attacks_on_the_global_model_need_it_stored(tmp_path):
    updates = np.random.default_rng(0).standard_normal((8, 30)).astype(np.float32)
    run = write_run(tmp_path / "run", updates)
    with pytest.raises(UnusableInput, match=r"round 0: no global model is stored, and xfed-like needs one"):
        poison(run, tmp_path / "p", "xfed-like")
    with_model = write_run(tmp_path / "run2", updates, global_model=np.zeros(30, dtype=np.float32), rounds=(0, 1))
    assert len(poison(with_model, tmp_path / "p", "xfed-like", schedule="always").rounds) == 2


def test_attacks_that_watch_steps_of_gradients_must_be_told_the_learning_rate(tmp_path):
    run = tmp_path / "run"
    simulate(Setup(algorithm="fedsgd", rounds=3, clients=8), run=run)
    with pytest.raises(UsageError, match="free-rider must know the server's learning rate"):
        poison(run, tmp_path / "p", "free-rider(mode=last-step)", schedule="always")
    poison(run, tmp_path / "p", "free-rider(mode=last-step,learning_rate=0.5)", schedule="always")
    honest, ridden = contents(run), contents(tmp_path / "p")
    mean = honest[1][2].mean(axis=0, dtype=np.float64)  # of the round before: what the step was made of
    for row, label in zip(ridden[2][2], ridden[2][3], strict=True):
        if label:
            np.testing.assert_allclose(row, mean, atol=1e-6)
    assert sum(ridden[2][3]) == 2


def test_an_existing_output_is_kept_unless_forced(honest, tmp_path):
    poison(honest, tmp_path / "p", "lie")
    (tmp_path / "p" / "notes.txt").write_text("mine")
    before = files_of(tmp_path / "p")
    with pytest.raises(OutputExists):
        poison(honest, tmp_path / "p", "ipm")
    assert files_of(tmp_path / "p") == before
    poison(honest, tmp_path / "p", "ipm", force=True, rounds=(0, 1))
    assert [r[0] for r in contents(tmp_path / "p")] == [0, 1]
    assert (tmp_path / "p" / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_no_output(honest, tmp_path):
    with pytest.raises(UnusableInput, match="undefined"):
        poison(honest, tmp_path / "p", "lie(z=formula)", ratio=0.6, schedule="always")
    assert not list(tmp_path.iterdir())


def test_unknown_truth_is_taken_for_honest(tmp_path):
    updates = np.random.default_rng(0).standard_normal((8, 30)).astype(np.float32)
    run = write_run(tmp_path / "run", updates, poisoned=None)
    poison(run, tmp_path / "p", "lie", schedule="always")
    assert set(contents(tmp_path / "p")[0][3]) == {0, 1}


def test_known_benign_clients_may_be_named(tmp_path):
    updates = np.random.default_rng(0).standard_normal((8, 30)).astype(np.float32)
    run = write_run(tmp_path / "run", updates)
    poison(run, tmp_path / "p", "lie", schedule="always", ratio=0.5, trusted=["c0", "c1", "c2", "c3"])
    assert contents(tmp_path / "p")[0][3] == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(UsageError, match="c9"):
        poison(run, tmp_path / "q", "lie", trusted=["c9"])
