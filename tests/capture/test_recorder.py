"""The recorder stores what training hands it, and training may go on at once."""

import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from encagg_cli import Recorder, Run
from encagg_cli.capture.trouble import CaptureWarning
from encagg_cli.errors import OutputError, OutputExists, UnusableInput, UsageError

MODEL = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)}


def record_one(recorder: Recorder, number: int, *clients: str, update=MODEL, **facts) -> None:
    with recorder.round(number) as stored:
        for client in clients or ("a",):
            stored.add(client, update, **facts)


def read(path: Path, number: int):
    return Run.open(path).round(number)


def test_a_round_holds_what_was_added(tmp_path: Path):
    update = np.arange(8, dtype=np.float32)
    with Recorder(tmp_path / "run", trusted=["b"]) as recorder, recorder.round(3, global_model=MODEL) as recording:
        for client in "ab":
            recording.add(client, {"fc.weight": update[:6].reshape(2, 3), "fc.bias": update[6:]}, num_examples=5)
            update += 1  # the recorder has its own copy

    stored = read(tmp_path / "run", 3)

    assert stored.client_ids == ("a", "b")
    np.testing.assert_array_equal(stored.rows([0, 1]), [np.arange(8), np.arange(8) + 1])
    np.testing.assert_array_equal(stored.global_model(), [1, 1, 1, 1, 1, 1, 0, 0])
    assert stored.num_examples.tolist() == [5, 5]
    assert stored.trusted.tolist() == [False, True]


def test_copies_are_taken_before_add_returns_however_slow_the_disk_is(tmp_path: Path):
    update = np.zeros(3_000_000, dtype=np.float32)  # 12 MB: two of them may be on their way
    with Recorder(tmp_path / "run") as recorder, recorder.round(1) as recording:
        for client in range(8):
            update[:] = client
            recording.add(f"{client}", update)
        update[:] = np.nan

    rows = read(tmp_path / "run", 1).rows(range(8))
    np.testing.assert_array_equal(rows.min(axis=1), np.arange(8))
    np.testing.assert_array_equal(rows.max(axis=1), np.arange(8))


def test_tensors_are_flattened_in_the_order_of_the_global_model(tmp_path: Path):
    with (
        Recorder(tmp_path / "run") as recorder,
        recorder.round(1, global_model={"z": [1.0], "a": [2.0, 3.0]}) as stored,
    ):
        stored.add("a", {"a": np.array([5.0, 6.0]), "z": np.array([4.0])})

    run = Run.open(tmp_path / "run")
    assert [parameter.name for parameter in run.parameters] == ["z", "a"]
    np.testing.assert_array_equal(run.round(1).rows([0]), [[4, 5, 6]])


def test_without_a_global_model_tensors_are_flattened_by_name(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        record_one(recorder, 1, update={"layer.10": np.ones(1), "layer.9": np.zeros(2), "head": np.ones(1)})

    assert [parameter.name for parameter in Run.open(tmp_path / "run").parameters] == ["head", "layer.9", "layer.10"]


def test_a_resumed_run_keeps_its_order(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder, recorder.round(1, global_model={"z": [1.0], "a": [2.0]}) as stored:
        stored.add("a", {"a": [5.0], "z": [4.0]})
    with Recorder(tmp_path / "run") as recorder, recorder.round(2, global_model={"a": [-7.0], "z": [8.0]}) as stored:
        stored.add("a", {"a": [5.0], "z": [4.0]})

    np.testing.assert_array_equal(read(tmp_path / "run", 2).rows([0]), [[4, 5]])
    np.testing.assert_array_equal(read(tmp_path / "run", 2).global_model(), [8, -7])


@pytest.mark.parametrize(
    ("names", "prefix", "expected"),
    [
        (["conv.weight", "fc.weight", "fc.bias"], None, ["fc.weight", "fc.bias"]),
        (["conv.weight", "fc.weight", "fc.bias"], "conv", ["conv.weight"]),
        (["w1", "b1", "w2", "b2"], None, ["b2"]),
        (["fc.weight"], None, ["fc.weight"]),
    ],
)
def test_the_output_layer_is_the_last_module_or_what_the_user_says(tmp_path: Path, names, prefix, expected):
    model = {name: np.ones(2) for name in names}
    with Recorder(tmp_path / "run", output_layer=prefix) as recorder, recorder.round(1, global_model=model) as stored:
        stored.add("a", {name: np.zeros(2) for name in names})

    assert [p.name for p in Run.open(tmp_path / "run").parameters if p.role == "output"] == expected


def test_an_output_layer_that_does_not_exist_is_refused(tmp_path: Path):
    recorder = Recorder(tmp_path / "run", output_layer="head")
    with recorder, pytest.raises(UsageError, match="no tensor's name begins with 'head'"):
        recorder.round(1, global_model=MODEL)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_torch_tensors_of_any_type_are_taken(tmp_path: Path, dtype):
    values = torch.tensor([[1.0, -2.5], [3.0, 100.0]]).to(dtype)
    update = {"w": torch.nn.Parameter(values) if values.is_floating_point() else values, "b": torch.tensor(7).to(dtype)}
    with Recorder(tmp_path / "run") as recorder:
        record_one(recorder, 1, update=update)

    expected = [7.0, *values.float().flatten().tolist()]
    np.testing.assert_array_equal(read(tmp_path / "run", 1).rows([0]), [expected])


def test_bfloat16_tensors_are_stored_bit_for_bit_as_bfloat16(tmp_path: Path):
    values = torch.randn(1000).to(torch.bfloat16)
    with Recorder(tmp_path / "run", dtype="bfloat16") as recorder:
        record_one(recorder, 1, update={"w": values})

    np.testing.assert_array_equal(read(tmp_path / "run", 1).rows([0])[0], values.float().numpy())


def test_a_client_with_other_shapes_is_named_and_the_round_goes_on(tmp_path: Path):
    model = {"fc.weight": -MODEL["fc.weight"], "fc.bias": MODEL["fc.bias"]}
    with Recorder(tmp_path / "run") as recorder, recorder.round(1, global_model=model) as stored:
        stored.add("a", MODEL)
        with pytest.raises(UnusableInput, match=r"round 1, client 'b': tensor 'fc.bias' has the shape \(3,\)"):
            stored.add("b", {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(3)})
        with pytest.raises(UnusableInput, match=r"round 1, client 'b': there is no tensor 'fc\.bias'"):
            stored.add("b", {"fc.weight": np.ones((2, 3))})
        with pytest.raises(UnusableInput, match="round 1, client 'b': tensor 'extra' was not expected"):
            stored.add("b", {**MODEL, "extra": np.zeros(1)})
        with pytest.raises(UnusableInput, match="round 1, client 'b': 7 values, where 8 were expected"):
            stored.add("b", np.ones(7))
        with pytest.raises(UnusableInput, match="complex"):
            stored.add("b", {**MODEL, "fc.bias": np.zeros(2, dtype=complex)})
        stored.add("b", MODEL)

    assert read(tmp_path / "run", 1).client_ids == ("a", "b")


@pytest.mark.parametrize(
    "bad", [{"x": np.array(["text"])}, "text", ["a", "b"], {"fc.weight": "text"}, {"x": [[1], [2, 3]]}]
)
def test_a_first_upload_that_cannot_be_stored_decides_nothing(tmp_path: Path, bad):
    with Recorder(tmp_path / "run") as recorder, recorder.round(1) as stored:
        with pytest.raises(UnusableInput):
            stored.add("bad", bad)
        stored.add("good", MODEL)

    assert [parameter.name for parameter in Run.open(tmp_path / "run").parameters] == ["fc.bias", "fc.weight"]


@pytest.mark.parametrize("bad", ["text", {"fc.weight": "text"}, {"fc.weight": np.ones((2, 3)), "fc.bias": ["a", "b"]}])
@pytest.mark.parametrize("vector", ["global_model", "root_gradient"])
def test_a_first_model_that_cannot_be_stored_decides_nothing(tmp_path: Path, bad, vector):
    with Recorder(tmp_path / "run") as recorder:
        with pytest.raises(UnusableInput, match=f"round 1, {vector}.* cannot be stored"):
            recorder.round(1, **{vector: bad})
        record_one(recorder, 2)

    assert [parameter.name for parameter in Run.open(tmp_path / "run").parameters] == ["fc.bias", "fc.weight"]


@pytest.mark.parametrize("nothing", [{}, np.zeros(0), {"a": np.zeros((0, 3))}])
def test_an_update_without_values_is_refused(tmp_path: Path, nothing):
    with Recorder(tmp_path / "run") as recorder, recorder.round(1) as stored:
        with pytest.raises(UnusableInput, match="client 'a': the update holds no values"):
            stored.add("a", nothing)
        stored.add("b", MODEL)

    assert read(tmp_path / "run", 1).client_ids == ("b",)


@pytest.mark.parametrize("nothing", [{}, np.zeros(0), {"a": np.zeros((0, 3))}])
def test_a_model_without_values_is_refused_and_decides_nothing(tmp_path: Path, nothing):
    with Recorder(tmp_path / "run") as recorder:
        with pytest.raises(UnusableInput, match="round 1, global_model: the update holds no values"):
            recorder.round(1, global_model=nothing)
        record_one(recorder, 1)

    assert read(tmp_path / "run", 1).client_ids == ("a",)


@pytest.mark.parametrize("client", ["", "nul\0", "x" * 1025, "\ud800"])
def test_an_id_that_cannot_be_stored_is_refused(tmp_path: Path, client):
    with Recorder(tmp_path / "run") as recorder, recorder.round(1) as stored:
        stored.add("a", MODEL)
        with pytest.raises(UnusableInput):
            stored.add(client, MODEL)

    assert read(tmp_path / "run", 1).client_ids == ("a",)


def test_ids_in_any_script_and_with_control_characters_come_back(tmp_path: Path):
    ids = ("клиент-1", "病院 7", "a\nb\x1b[31m", "x" * 1024)
    with Recorder(tmp_path / "run") as recorder:
        record_one(recorder, 1, *ids)

    assert read(tmp_path / "run", 1).client_ids == ids


def test_a_second_upload_of_a_client_is_refused(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder, recorder.round(1) as stored:
        stored.add("a", MODEL)
        with pytest.raises(UnusableInput, match="round 1: client 'a' has uploaded already"):
            stored.add("a", MODEL)

    assert read(tmp_path / "run", 1).client_ids == ("a",)


def test_uploads_may_come_from_several_threads(tmp_path: Path):
    def upload(client: int) -> None:
        for part in range(10):
            stored.add(f"{client}-{part}", np.full(50_000, client * 10 + part, dtype=np.float32))

    with Recorder(tmp_path / "run") as recorder, recorder.round(1) as stored:
        threads = [threading.Thread(target=upload, args=(client,)) for client in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = read(tmp_path / "run", 1)
    assert len(found.client_ids) == 60
    for client, row in zip(found.client_ids, found.rows(range(60)), strict=True):
        first, _, part = client.partition("-")
        assert (row == int(first) * 10 + int(part)).all()


def test_ground_truth_and_trust_are_stored_as_given(tmp_path: Path):
    with Recorder(tmp_path / "run", trusted=["a", "b"]) as recorder, recorder.round(1) as stored:
        stored.add("a", MODEL, trusted=False)
        stored.add("b", MODEL, poisoned=False)
        stored.add("c", MODEL, poisoned=True, attack="lie", trusted=True)

    found = read(tmp_path / "run", 1)
    assert found.trusted.tolist() == [False, True, True]
    assert found.poisoned.tolist() == [-1, 0, 1]
    assert found.attack == ("", "", "lie")


def test_every_nth_round_is_recorded(tmp_path: Path):
    with Recorder(tmp_path / "run", every=3) as recorder:
        for number in range(1, 8):
            recording = recorder.round(number)
            recording.add("a", MODEL)
            recording.close()
            assert recording.is_recorded == (number % 3 == 0)

    assert Run.open(tmp_path / "run").rounds == (3, 6)


def test_pseudonyms_are_the_same_for_the_same_key_and_hide_the_id(tmp_path: Path):
    for name, key in (("one", "secret"), ("two", b"secret"), ("three", "other")):
        with Recorder(tmp_path / name, pseudonyms=key, trusted=["hospital-1"]) as recorder:
            record_one(recorder, 1, "hospital-1", "hospital-2")

    one, two, three = (read(tmp_path / name, 1) for name in ("one", "two", "three"))
    assert one.client_ids == two.client_ids
    assert set(one.client_ids).isdisjoint(three.client_ids)
    assert one.trusted.tolist() == [True, False]
    assert b"hospital" not in (tmp_path / "one" / "round-000001.h5").read_bytes()
    assert b"secret" not in (tmp_path / "one" / "round-000001.h5").read_bytes()


def test_non_finite_updates_are_stored_as_they_are(tmp_path: Path):
    update = np.array([1.0, np.nan, np.inf])
    with Recorder(tmp_path / "run") as recorder:
        record_one(recorder, 1, update=update)

    found = read(tmp_path / "run", 1)
    np.testing.assert_array_equal(found.rows([0])[0], update)
    assert not np.isfinite(found.norms[0])


def test_values_out_of_range_are_stored_as_infinite_with_one_warning_a_round(tmp_path: Path):
    with Recorder(tmp_path / "run", dtype="float16") as recorder, recorder.round(1) as stored:
        with pytest.warns(CaptureWarning, match="client 'a': values out of the range of float16"):
            stored.add("a", np.array([1.0, 1e6]))
        stored.add("b", np.array([1.0, 1e6]))
        stored.add("c", np.array([1.0, 2.0]))

    np.testing.assert_array_equal(np.isfinite(read(tmp_path / "run", 1).norms), [False, False, True])


def test_a_round_without_uploads_is_not_stored_and_it_says_so(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        with pytest.warns(CaptureWarning, match="round 1 received no uploads"):
            recorder.round(1, global_model=MODEL).close()
        record_one(recorder, 2)

    assert Run.open(tmp_path / "run").rounds == (2,)


def test_one_round_is_open_at_a_time(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        first = recorder.round(1)
        with pytest.raises(UsageError, match="round 1 is still open"):
            recorder.round(2)
        first.abort()
        record_one(recorder, 2)


@pytest.mark.parametrize("number", [-1, 2**31, 1.5, True, "1"])
def test_a_round_has_a_number(tmp_path: Path, number):
    with Recorder(tmp_path / "run") as recorder, pytest.raises(UsageError, match="a round's number"):
        recorder.round(number)


@pytest.mark.parametrize(
    "settings",
    [{"dtype": "int8"}, {"update_kind": "weights"}, {"compression": "zip"}, {"every": 0}, {"on_error": "no"}],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, settings):
    with pytest.raises(UsageError):
        Recorder(tmp_path / "run", **settings)


def test_files_are_readable_by_their_owner_alone(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        recording = recorder.round(1)
        recording.add("a", MODEL)
        recorder.background.submit(lambda: None).wait()
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()} == {0o600}
        recording.close()

    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()} == {0o600}


def test_the_disk_that_a_run_will_take_is_known_before_it_is_taken(tmp_path: Path):
    update = np.ones(100_000)
    with Recorder(tmp_path / "run", every=2) as recorder:
        with pytest.raises(UsageError, match="not known before its first round"):
            recorder.estimate(10)
        with recorder.round(2, global_model=-update) as stored:
            for client in range(10):
                stored.add(f"{client}", update)
        estimate = recorder.estimate(20)

    one = (tmp_path / "run" / "round-000002.h5").stat().st_size
    assert estimate == pytest.approx(10 * one, rel=0.01)


def test_a_round_that_does_not_fit_is_refused_before_it_is_written(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SmallDisk)
    with Recorder(tmp_path / "run") as recorder:
        recording = recorder.round(1)
        recording.add("a", np.ones(100_000))
        with pytest.raises(OutputError, match=r"round 1 needs about 4\d\d kB, and the disk has 300 kB free"):
            recording.close()

    assert not list((tmp_path / "run").glob("round-*"))


class SmallDisk:
    free = 300_000


def test_a_disk_too_small_for_the_run_is_foretold_after_the_first_round(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SmallDisk)
    recorder = Recorder(tmp_path / "run", expected_rounds=1000)
    with recorder, pytest.warns(CaptureWarning, match=r"the rounds to come will take about .* 300 kB free"):
        record_one(recorder, 1)


def test_a_packed_file_is_no_place_to_record(tmp_path: Path):
    (tmp_path / "run.h5").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file"):
        Recorder(tmp_path / "run.h5")


def test_a_repeated_round_is_refused_unless_forced(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        record_one(recorder, 1, "a")
        record_one(recorder, 2, "a")
    before = (tmp_path / "run" / "round-000001.h5").read_bytes()

    with Recorder(tmp_path / "run") as recorder, pytest.raises(OutputExists, match="round 1 is stored already"):
        recorder.round(1)
    assert (tmp_path / "run" / "round-000001.h5").read_bytes() == before

    with Recorder(tmp_path / "run", force=True) as recorder:
        record_one(recorder, 1, "b")
    assert read(tmp_path / "run", 1).client_ids == ("b",)
    assert read(tmp_path / "run", 2).client_ids == ("a",)


def test_another_model_does_not_get_into_a_run(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        record_one(recorder, 1)
    with Recorder(tmp_path / "run") as recorder, recorder.round(2) as stored:
        with pytest.raises(UnusableInput, match=r"there is no tensor 'fc\.bias'"):
            stored.add("a", {"other": np.ones(8)})
        stored.add("b", MODEL)


def test_recording_loads_neither_torch_nor_the_command_line(tmp_path: Path):
    program = (
        "import sys, numpy; from encagg_cli import Recorder\n"
        f"with Recorder({str(tmp_path / 'run')!r}) as r, r.round(1) as x: x.add('a', numpy.ones(3))\n"
        "print(sorted({'torch', 'typer', 'rich', 'click', 'sklearn', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recording_takes_the_memory_of_three_updates_at_most(tmp_path: Path):
    update = np.ones(2_000_000, dtype=np.float32)
    model = -update
    with Recorder(tmp_path / "small") as recorder:
        record_one(recorder, 1)  # what is loaded and kept once is no matter of the size of updates
    with Recorder(tmp_path / "run") as recorder:
        tracemalloc.start()
        with recorder.round(1, global_model=model, root_gradient=update) as stored:
            for client in range(10):
                stored.add(f"{client}", update)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 3.1 * update.nbytes


def test_clients_that_are_numbered_are_stored_as_text(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", trusted=[0]) as recorder, recorder.round(0) as round_:
        round_.add(0, np.ones(3))
        round_.add(np.int64(7), np.ones(3))
    with Run.open(tmp_path / "run") as run:
        stored = run.round(0)
        assert dict(zip(stored.client_ids, stored.trusted.tolist(), strict=True)) == {"0": True, "7": False}
