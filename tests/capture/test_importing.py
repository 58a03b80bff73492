"""What a spool holds is what the run holds afterwards: every number, every label, each round once."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch

from encagg_cli import Run
from encagg_cli.capture.importing import SpoolImporter
from encagg_cli.capture.selection import Selection
from encagg_cli.capture.session_folder import CaptureSettings
from encagg_cli.capture.spool import look_at_round, round_folders
from encagg_cli.errors import OutputExists, UnusableInput, UsageError
from encagg_cli.rounds.encoding import decode, encode, stored_dtype
from encagg_cli.rounds.prune import plan_prune, prune


def run_import(tmp_path: Path, options: dict[str, Any] | None = None, **settings: Any) -> tuple[list[str], list[str]]:
    """Import tmp_path/spool into tmp_path/run; the outcome of each round, and what was told."""
    told: list[str] = []
    spool = tmp_path / "spool"
    with SpoolImporter(
        tmp_path / "run", spool, CaptureSettings(**settings), tell=told.append, **(options or {})
    ) as importer:
        outcomes = [importer.import_round(look_at_round(n, folders)) for n, folders in round_folders(spool).items()]
    return outcomes, told


def folder(tmp_path: Path, number: int = 1) -> Path:
    path = tmp_path / "spool" / f"round-{number:04d}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def rows(tmp_path: Path, number: int = 1) -> dict[str, np.ndarray]:
    stored = Run.open(tmp_path / "run").round(number)
    return dict(zip(stored.client_ids, stored.rows(range(len(stored.client_ids))), strict=True))


def save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Named tensors in the format that the path asks for."""
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    elif path.suffix == ".safetensors":
        save_numpy({name: np.array(values, order="C") for name, values in tensors.items()}, path)
    else:
        torch.save({name: torch.from_numpy(np.array(values)) for name, values in tensors.items()}, path)


MODEL = {
    "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bn.running_mean": np.full(2, 1000, dtype=np.float32),
    "bn.num_batches_tracked": np.array(7),
    "fc.weight": np.ones((2, 2), dtype=np.float32),
    "fc.bias": np.zeros(2, dtype=np.float32),
}


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_vectors_are_stored_exactly_as_their_type_allows(tmp_path, dtype):
    random = np.random.default_rng(0)
    updates = {f"client-{index}": random.normal(size=50) for index in range(4)}
    for client, update in updates.items():
        np.save(folder(tmp_path) / f"{client}.npy", update)
    assert run_import(tmp_path, dtype=dtype)[0] == ["imported"]
    for client, update in updates.items():
        stored = np.empty(50, dtype=stored_dtype(dtype))
        encode(update, dtype, stored)
        expected = np.empty(50, dtype=np.float32)
        decode(stored, dtype, expected)
        np.testing.assert_array_equal(rows(tmp_path)[client], expected)


@settings(max_examples=20, deadline=None)
@given(
    suffixes=st.lists(st.sampled_from([".npz", ".safetensors", ".pt"]), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["<f2", "<f4", "<f8"]),
)
def test_every_format_gives_the_same_row(tmp_path_factory, suffixes, seed, kind):
    tmp_path = tmp_path_factory.mktemp("spool")
    random = np.random.default_rng(seed)
    tensors = {"b": random.normal(size=(2, 3)).astype(kind), "a": random.normal(size=4).astype(kind)}
    for index, suffix in enumerate(suffixes):
        save(folder(tmp_path) / f"{index}{suffix}", tensors)
    np.save(folder(tmp_path) / "bare.npy", np.concatenate([tensors["a"], tensors["b"].ravel()]))
    run_import(tmp_path)
    expected = np.concatenate([tensors["a"], tensors["b"].ravel()]).astype(np.float32)
    stored = rows(tmp_path)
    assert len(stored) == len(suffixes) + 1
    for row in stored.values():
        np.testing.assert_array_equal(row, expected)


def test_bfloat16_files_survive_storing_as_bfloat16(tmp_path):
    values = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_torch({"w": values}, folder(tmp_path) / "a.safetensors")
    torch.save({"w": values}, folder(tmp_path) / "b.pt")
    run_import(tmp_path, dtype="bfloat16")
    for row in rows(tmp_path).values():
        np.testing.assert_array_equal(row, values.float().numpy())


def test_values_that_are_not_finite_are_stored_as_they_are(tmp_path):
    np.save(folder(tmp_path) / "bad.npy", np.array([np.nan, np.inf, -np.inf, 1e300]))
    np.save(folder(tmp_path) / "good.npy", np.ones(4))
    with pytest.warns(UserWarning, match="out of the range of float32"):
        run_import(tmp_path)
    np.testing.assert_array_equal(rows(tmp_path)["bad"], [np.nan, np.inf, -np.inf, np.inf])
    np.testing.assert_array_equal(rows(tmp_path)["good"], np.ones(4))


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_weights_less_the_global_model_are_taken_in_float64(tmp_path, suffix):
    """Where float32 would lose everything: a small step from a large weight, kept in float64 files."""
    base = {"fc.weight": np.array([1e8, -1e8, 3.0]), "fc.bias": np.array([0.1])}
    step = {"fc.weight": np.array([1e-3, 2e-3, 5e-9]), "fc.bias": np.array([1e-17])}
    save(folder(tmp_path) / f"_global{suffix}", base)
    save(folder(tmp_path) / f"a{suffix}", {name: base[name] + step[name] for name in base})
    run_import(tmp_path, {"weights": True})
    exact = {name: ((base[name] + step[name]) - base[name]).astype(np.float32) for name in base}
    by_file = ["fc.bias", "fc.weight"] if suffix == ".safetensors" else ["fc.weight", "fc.bias"]
    np.testing.assert_array_equal(rows(tmp_path)["a"], np.concatenate([exact[name] for name in by_file]))
    assert exact["fc.weight"][0] != 0
    model = Run.open(tmp_path / "run").round(1).global_model()
    np.testing.assert_array_equal(model, np.concatenate([base[name] for name in by_file]).astype(np.float32))


def test_weights_are_rounded_once(tmp_path):
    random = np.random.default_rng(1)
    base, weights = random.normal(size=1000), random.normal(size=1000)
    np.save(folder(tmp_path) / "_global.npy", base)
    np.save(folder(tmp_path) / "a.npy", weights)
    run_import(tmp_path, {"weights": True}, dtype="bfloat16")
    expected = torch.from_numpy(weights - base).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(rows(tmp_path)["a"], expected)


def test_weights_need_the_global_model_with_all_tensors(tmp_path):
    save(folder(tmp_path) / "a.npz", MODEL)
    with pytest.raises(UnusableInput, match="round 1 has no round-0001/_global file"):
        run_import(tmp_path, {"weights": True})
    save(folder(tmp_path) / "_global.npz", {"conv.weight": MODEL["conv.weight"]})
    with pytest.raises(UnusableInput, match=r"a\.npz: tensor 'fc.weight' is not in _global\.npz"):
        run_import(tmp_path, {"weights": True})
    save(folder(tmp_path) / "_global.npz", {**MODEL, "fc.weight": np.ones(4)})
    with pytest.raises(UnusableInput, match=r"a\.npz: tensor 'fc.weight' has the shape \(2, 2\), where .* has \(4,\)"):
        run_import(tmp_path, {"weights": True})
    with pytest.raises(UsageError, match="not a gradient"):
        run_import(tmp_path, {"weights": True}, update_kind="gradient")


def test_whole_models_without_weights_are_noticed(tmp_path):
    random = np.random.default_rng(0)
    base = random.normal(size=100)
    np.save(folder(tmp_path) / "_global.npy", base)
    np.save(folder(tmp_path) / "a.npy", base + 0.01 * random.normal(size=100))
    assert any("--weights" in message for message in run_import(tmp_path)[1])
    np.save(folder(tmp_path) / "a.npy", 0.01 * random.normal(size=100))
    assert not any("--weights" in message for message in run_import(tmp_path, force=True)[1])


# --- names, order, output layer --------------------------------------------------------------------------------------


def names(tmp_path: Path) -> list[str]:
    return [parameter.name for parameter in Run.open(tmp_path / "run").parameters]


def output(tmp_path: Path) -> list[str]:
    return [parameter.name for parameter in Run.open(tmp_path / "run").parameters if parameter.role == "output"]


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_tensors_follow_the_order_of_the_global_model(tmp_path, suffix):
    save(folder(tmp_path) / f"_global{suffix}", MODEL)
    save(folder(tmp_path) / "a.safetensors", {name: values for name, values in MODEL.items() if "bn" not in name})
    told = run_import(tmp_path)[1]
    assert names(tmp_path) == ["conv.weight", "fc.weight", "fc.bias"]
    assert output(tmp_path) == ["fc.weight", "fc.bias"]
    assert any(f"in the order of _global{suffix}" in message for message in told)


def test_a_safetensors_file_has_no_order_so_names_decide(tmp_path):
    layers = {f"{index}.weight": np.full(2, index, dtype=np.float32) for index in (10, 2, 0)}
    layers["0.bias"] = np.zeros(1, dtype=np.float64)  # its writer puts the larger type first
    save(folder(tmp_path) / "_global.safetensors", layers)
    save(folder(tmp_path) / "a.npz", layers)
    told = run_import(tmp_path)[1]
    assert names(tmp_path) == ["0.bias", "0.weight", "2.weight", "10.weight"]
    assert output(tmp_path) == ["10.weight"]
    assert any("the last by name" in message for message in told)


def test_the_output_layer_may_be_named(tmp_path):
    save(folder(tmp_path) / "a.npz", MODEL)
    told = run_import(tmp_path, output_layer="conv")[1]
    assert output(tmp_path) == ["conv.weight"]
    assert not any("output layer" in message for message in told)


def test_later_rounds_keep_the_order_of_the_first(tmp_path):
    save(folder(tmp_path, 1) / "_global.npz", {"z": np.ones(1), "a": np.zeros(2)})
    save(folder(tmp_path, 1) / "c.npz", {"a": np.zeros(2), "z": np.ones(1)})
    run_import(tmp_path)
    save(folder(tmp_path, 2) / "c.npz", {"a": np.array([2.0, 3.0]), "z": np.array([1.0])})
    run_import(tmp_path)
    assert names(tmp_path) == ["z", "a"]
    np.testing.assert_array_equal(rows(tmp_path, 2)["c"], [1, 2, 3])


def test_state_that_is_not_trained_is_left_out_and_named(tmp_path):
    save(folder(tmp_path) / "a.npz", MODEL)
    told = run_import(tmp_path)[1]
    assert names(tmp_path) == ["conv.weight", "fc.bias", "fc.weight"]
    assert [message for message in told if "left out" in message] == [
        "left out, as state that is not trained: bn.running_mean, bn.num_batches_tracked "
        "(--include '*' takes every tensor)"
    ]


def test_include_brings_it_back(tmp_path):
    save(folder(tmp_path) / "a.npz", MODEL)
    run_import(tmp_path, {"selection": Selection(include=("*",), exclude=("fc.*",))})
    assert names(tmp_path) == ["bn.num_batches_tracked", "bn.running_mean", "conv.weight"]
    np.testing.assert_array_equal(rows(tmp_path)["a"], [7, 1000, 1000, 0, 1, 2, 3, 4, 5])


def test_a_selection_of_nothing_says_what_there_is(tmp_path):
    save(folder(tmp_path) / "a.npz", MODEL)
    with pytest.raises(UnusableInput) as raised:
        run_import(tmp_path, {"selection": Selection(include=("head.*",))})
    assert "fc.weight" in raised.value.hint


def test_a_bare_array_is_the_update_even_of_integers(tmp_path):
    np.save(folder(tmp_path) / "a.npy", np.array([[1, -1], [0, 1]], dtype=np.int8))
    run_import(tmp_path)
    assert names(tmp_path) == ["update"]
    np.testing.assert_array_equal(rows(tmp_path)["a"], [1, -1, 0, 1])


# --- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"w": np.zeros(3)}, r"round 1, client 'b': there is no tensor 'v'"),
        ({"w": np.zeros(4), "v": np.zeros(2)}, r"round 1, client 'b': tensor 'w' has the shape \(4,\), where \(3,\)"),
        ({"w": np.zeros(3), "v": np.zeros(2), "u": np.zeros(1)}, r"round 1, client 'b': tensor 'u' was not expected"),
        ({"w": np.zeros(3, dtype=int), "v": np.zeros(2)}, r"round 1, client 'b': there is no tensor 'w'"),
    ],
)
def test_clients_that_disagree_on_names_or_shapes_leave_nothing(tmp_path, other, problem):
    save(folder(tmp_path) / "a.npz", {"w": np.zeros(3), "v": np.zeros(2)})
    save(folder(tmp_path) / "b.npz", other)
    with pytest.raises(UnusableInput, match=problem):
        run_import(tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir() if "round" in path.name] == []


def test_a_bad_first_round_does_not_decide_for_the_next(tmp_path):
    save(folder(tmp_path, 1) / "a.npz", {"w": np.zeros(99)})
    save(folder(tmp_path, 1) / "b.npz", {"w": np.zeros(3)})
    save(folder(tmp_path, 2) / "b.npz", {"w": np.arange(3.0)})
    spool = tmp_path / "spool"
    with SpoolImporter(tmp_path / "run", spool, CaptureSettings()) as importer:
        with pytest.raises(UnusableInput, match="client 'b'"):
            importer.import_round(look_at_round(1, [spool / "round-0001"]))
        assert importer.import_round(look_at_round(2, [spool / "round-0002"])) == "imported"
    np.testing.assert_array_equal(rows(tmp_path, 2)["b"], [0, 1, 2])


def test_a_round_of_another_model_than_the_runs_is_refused(tmp_path):
    np.save(folder(tmp_path, 1) / "a.npy", np.zeros(3))
    np.save(folder(tmp_path, 2) / "a.npy", np.zeros(4))
    with pytest.raises(UnusableInput, match="round 2, client 'a': 4 values, where 3 were expected"):
        run_import(tmp_path)
    assert Run.open(tmp_path / "run").rounds == (1,)


def test_a_damaged_client_stops_its_round_only(tmp_path):
    np.save(folder(tmp_path, 1) / "a.npy", np.zeros(3))
    np.save(folder(tmp_path, 2) / "a.npy", np.zeros(3))
    (folder(tmp_path, 2) / "b.npy").write_bytes(b"rubbish")
    with pytest.raises(UnusableInput, match=r"round-0002/b\.npy"):
        run_import(tmp_path)
    assert Run.open(tmp_path / "run").rounds == (1,)
    assert not list((tmp_path / "run").glob("*.partial"))


# --- facts -----------------------------------------------------------------------------------------------------------


def test_labels_trust_and_examples_are_stored(tmp_path):
    for client in "abc":
        save_numpy({"w": np.zeros(2)}, folder(tmp_path) / f"{client}.safetensors", metadata={"num_examples": "12"})
    np.savez(folder(tmp_path) / "d.npz", w=np.zeros(2))
    (tmp_path / "spool" / "labels.csv").write_text("round,client_id,poisoned,attack\n1,a,1,lie\n1,b,0,\n2,c,1,lie\n")
    (tmp_path / "spool" / "trusted.txt").write_text("b\nzz\n")
    run_import(tmp_path, trusted=("c",))
    stored = Run.open(tmp_path / "run").round(1)
    assert stored.client_ids == ("a", "b", "c", "d")
    assert stored.poisoned.tolist() == [1, 0, -1, -1]
    assert stored.attack == ("lie", "", "", "")
    assert stored.trusted.tolist() == [False, True, True, False]
    assert stored.num_examples.tolist() == [12, 12, 12, -1]
    assert stored.update_kind == "delta"


def test_an_absurd_number_of_examples_is_refused(tmp_path):
    save_numpy({"w": np.zeros(2)}, folder(tmp_path) / "a.safetensors", metadata={"num_examples": "many"})
    with pytest.raises(UnusableInput, match=r"a\.safetensors: num_examples is 'many'"):
        run_import(tmp_path)


def test_the_root_gradient_and_the_kind_are_stored(tmp_path):
    np.save(folder(tmp_path) / "a.npy", np.zeros(3))
    np.save(folder(tmp_path) / "_root.npy", np.arange(3.0))
    run_import(tmp_path, update_kind="gradient")
    stored = Run.open(tmp_path / "run").round(1)
    assert stored.update_kind == "gradient"
    np.testing.assert_array_equal(stored.root_gradient(), [0, 1, 2])
    assert not stored.has_global_model


def test_pseudonyms_hide_the_ids_and_keep_what_is_said_of_them(tmp_path):
    np.save(folder(tmp_path) / "hospital-1.npy", np.zeros(3))
    (tmp_path / "spool" / "labels.csv").write_text("round,client_id,poisoned\n1,hospital-1,1\n")
    run_import(tmp_path, trusted=("hospital-1",), pseudonyms="a key of some length")
    stored = Run.open(tmp_path / "run").round(1)
    assert "hospital" not in stored.client_ids[0]
    assert stored.trusted.tolist() == [True]
    assert stored.poisoned.tolist() == [1]
    assert b"hospital" not in (tmp_path / "run" / "round-000001.h5").read_bytes()
    assert run_import(tmp_path, trusted=("hospital-1",), pseudonyms="a key of some length")[0] == ["known"]


def test_trusted_clients_that_never_appear_are_known(tmp_path):
    np.save(folder(tmp_path) / "a.npy", np.zeros(3))
    (tmp_path / "spool" / "trusted.txt").write_text("a\nb\n")
    settings_ = CaptureSettings(trusted=("c",))
    with SpoolImporter(tmp_path / "run", tmp_path / "spool", settings_) as importer:
        importer.import_round(look_at_round(1, [folder(tmp_path)]))
        assert importer.never_seen() == ["b", "c"]


# --- once ------------------------------------------------------------------------------------------------------------


def test_a_round_is_imported_once_however_often_it_is_asked_for(tmp_path):
    for number in (1, 2):
        np.save(folder(tmp_path, number) / "a.npy", np.full(3, number))
    assert run_import(tmp_path)[0] == ["imported", "imported"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("round*")}
    assert run_import(tmp_path)[0] == ["known", "known"]
    np.save(folder(tmp_path, 3) / "a.npy", np.full(3, 3))
    assert run_import(tmp_path)[0] == ["known", "known", "imported"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_known_files_are_not_read_again(tmp_path, monkeypatch):
    np.save(folder(tmp_path) / "a.npy", np.zeros(3))
    run_import(tmp_path)
    monkeypatch.setattr("encagg_cli.capture.imported.open_tensors", lambda path: pytest.fail("it was read"))
    assert run_import(tmp_path)[0] == ["known"]


def test_a_round_that_was_pruned_stays_away_unless_forced_or_changed(tmp_path):
    for number in (1, 2, 3):
        np.save(folder(tmp_path, number) / "a.npy", np.full(3, number))
    run_import(tmp_path)
    prune(tmp_path / "run", plan_prune(tmp_path / "run", 1))

    np.save(folder(tmp_path, 2) / "b.npy", np.zeros(3))  # a late client makes it another round
    assert run_import(tmp_path)[0] == ["removed", "imported", "known"]
    assert Run.open(tmp_path / "run").rounds == (2, 3)
    assert run_import(tmp_path, force=True)[0] == ["imported", "known", "known"]
    assert Run.open(tmp_path / "run").rounds == (1, 2, 3)


def test_what_was_pruned_takes_no_room_in_the_estimate(tmp_path):
    for number in (1, 2):
        np.save(folder(tmp_path, number) / "a.npy", np.full(3, number))
    run_import(tmp_path)
    prune(tmp_path / "run", plan_prune(tmp_path / "run", 0))
    found = [look_at_round(n, folders) for n, folders in round_folders(tmp_path / "spool").items()]

    with SpoolImporter(tmp_path / "run", tmp_path / "spool", CaptureSettings()) as importer:
        assert importer.estimate(found) == 0
    with SpoolImporter(tmp_path / "run", tmp_path / "spool", CaptureSettings(force=True)) as importer:
        assert importer.estimate(found) > 0


@pytest.mark.parametrize("damage", ["", "{", '{"round": 1}\n', '{"round": "x", "files": 1}\n', "\x00\xff"])
def test_without_the_index_contents_are_compared(tmp_path, damage):
    save(folder(tmp_path) / "_global.npz", MODEL)
    save(folder(tmp_path) / "a.pt", {name: values * 2 for name, values in MODEL.items()})
    run_import(tmp_path, {"weights": True}, dtype="bfloat16")
    (tmp_path / "run" / ".spool.jsonl").write_text(damage, encoding="latin-1")
    assert run_import(tmp_path, {"weights": True}, dtype="bfloat16")[0] == ["known"]


def test_the_same_content_written_anew_is_known(tmp_path):
    np.save(folder(tmp_path) / "a.npy", np.zeros(3))
    run_import(tmp_path)
    os.utime(folder(tmp_path) / "a.npy", ns=(1, 1))
    assert run_import(tmp_path)[0] == ["known"]


def change_value(tmp_path: Path) -> dict[str, Any]:
    np.save(folder(tmp_path) / "a.npy", np.array([0, 0, 1e-30]))
    return {}


def change_client(tmp_path: Path) -> dict[str, Any]:
    np.save(folder(tmp_path) / "b.npy", np.zeros(3))
    return {}


def change_label(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "spool" / "labels.csv").write_text("round,client_id,poisoned\n1,a,1\n")
    return {}


def change_global(tmp_path: Path) -> dict[str, Any]:
    np.save(folder(tmp_path) / "_global.npy", np.full(3, 2.0))
    return {}


def change_shape(tmp_path: Path) -> dict[str, Any]:
    np.save(folder(tmp_path) / "a.npy", np.zeros(4))
    return {}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (change_value, "holds other updates"),
        (change_client, "has other clients"),
        (change_label, "client a has another label"),
        (change_global, "has another global model"),
        (change_shape, "cannot be compared"),
        (lambda tmp_path: {"dtype": "float16"}, "stored there as deltas in float32"),
        (lambda tmp_path: {"update_kind": "gradient"}, "stored there as deltas"),
        (lambda tmp_path: {"trusted": ("a",)}, "client a is not trusted there"),
    ],
)
def test_a_round_that_changed_is_refused_unless_forced(tmp_path, change, problem):
    np.save(folder(tmp_path) / "a.npy", np.zeros(3))
    np.save(folder(tmp_path) / "_global.npy", np.full(3, 100.0))
    run_import(tmp_path)
    changed = change(tmp_path)
    with pytest.raises(OutputExists, match=f"round 1 is in .*run already, and .*{problem}"):
        run_import(tmp_path, **changed)
    np.testing.assert_array_equal(rows(tmp_path)["a"], np.zeros(3))
    if change is not change_shape:
        assert run_import(tmp_path, force=True, **changed)[0] == ["imported"]
        assert run_import(tmp_path, **changed)[0] == ["known"]


def test_only_every_nth_round_is_read(tmp_path):
    for number in range(1, 7):
        np.save(folder(tmp_path, number) / "a.npy", np.zeros(3))
    (folder(tmp_path, 5) / "a.npy").write_bytes(b"not even looked at")
    assert run_import(tmp_path, every=3)[0].count("imported") == 2
    assert Run.open(tmp_path / "run").rounds == (3, 6)


def test_a_round_that_changes_while_it_is_read_is_not_stored(tmp_path):
    np.save(folder(tmp_path) / "a.npy", np.zeros(3))
    found = look_at_round(1, [folder(tmp_path)])
    np.save(folder(tmp_path) / "b.npy", np.zeros(3))
    with (
        SpoolImporter(tmp_path / "run", tmp_path / "spool", CaptureSettings()) as importer,
        pytest.raises(UnusableInput, match="round 1 of the spool changed while it was read"),
    ):
        importer.import_round(found)
    assert not list((tmp_path / "run").glob("round*"))


def test_unknown_files_are_told_once(tmp_path):
    for number in (1, 2):
        np.save(folder(tmp_path, number) / "a.npy", np.zeros(3))
        (folder(tmp_path, number) / "a.json").write_text("{}")
    told = run_import(tmp_path)[1]
    assert [message for message in told if "ignored" in message] == [
        "ignored round-0001/a.json: it is not a kind of tensor file that is known"
    ]


def test_the_size_is_estimated_before_it_is_taken(tmp_path):
    for number in (1, 2, 3):
        for client in "abcd":
            np.save(folder(tmp_path, number) / f"{client}.npy", np.zeros(100_000))
    spool = tmp_path / "spool"
    with SpoolImporter(tmp_path / "run", spool, CaptureSettings(dtype="float16")) as importer:
        found = [look_at_round(n, folders) for n, folders in round_folders(spool).items()]
        estimate = importer.estimate(found)
        for round_ in found:
            importer.import_round(round_)
        assert importer.estimate(found) == 0
    taken = sum(path.stat().st_size for path in (tmp_path / "run").glob("round*"))
    assert 0.9 < taken / estimate < 1.1
