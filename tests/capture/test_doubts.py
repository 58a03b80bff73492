"""What training probably got wrong is told once, and recorded all the same."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.capture.trouble import CaptureWarning
from encagg_cli.errors import UnusableInput

MODEL = {"fc.weight": np.arange(1.0, 201.0).reshape(2, 100), "fc.bias": np.ones(2)}
LARGE = np.random.default_rng(0).standard_normal(300_001).astype(np.float32)


def scaled(model, factor: float):
    return {name: values * factor for name, values in model.items()} if isinstance(model, dict) else model * factor


def told_by(recorder: Recorder, *rounds) -> list[str]:
    """What is said while rounds are recorded, each given as a global model and the updates of clients."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for number, (model, updates) in enumerate(rounds):
            with recorder.round(number, global_model=model) as stored:
                for client, update in updates.items():
                    stored.add(client, update)
    assert all(warning.category is CaptureWarning for warning in told)
    return [str(warning.message) for warning in told]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("model", [MODEL, LARGE])
def test_whole_models_are_told_once(tmp_path: Path, model, dtype):
    with Recorder(tmp_path / "run", dtype=dtype) as recorder:
        trained = {"a": scaled(model, 1.1), "b": scaled(model, 0.9)}
        told = told_by(recorder, (model, trained), (model, trained))

    assert len(told) == 1
    assert told[0].startswith("round 0, client 'a': the upload is close to the global model: if it is a whole model")
    assert Run.open(tmp_path / "run").round(1).client_ids == ("a", "b")


@pytest.mark.parametrize("factor", [0.1, 0.49, -1.0, 2.0])
@pytest.mark.parametrize("model", [MODEL, LARGE])
def test_updates_are_no_models(tmp_path: Path, model, factor: float):
    with Recorder(tmp_path / "run") as recorder:
        assert told_by(recorder, (model, {"a": scaled(model, factor)})) == []


def test_without_a_global_model_nothing_is_doubted_until_there_is_one(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        told = told_by(recorder, (None, {"a": MODEL}), (MODEL, {"a": MODEL}))
    assert [text.partition(":")[0] for text in told] == ["round 1, client 'a'"]


def test_a_model_of_zeros_or_nan_is_no_reason_to_doubt(tmp_path: Path):
    for number, model in enumerate((np.zeros(5), np.full(5, np.nan))):
        with Recorder(tmp_path / f"{number}") as recorder:
            assert told_by(recorder, (model, {"a": model})) == []


def test_known_benign_ids_that_nobody_has_are_told_once(tmp_path: Path):
    with Recorder(tmp_path / "run", trusted=["hospital-4", "hospital-1", "hospital-3", "hospital-2"]) as recorder:
        told = told_by(recorder, *[(None, {"Hospital-1": LARGE, "b": LARGE})] * 2)

    assert told == [
        "round 0: none of the known-benign clients has uploaded ('hospital-1', 'hospital-2', 'hospital-3' and 1 more): "
        "is this how the training calls them?"
    ]


@pytest.mark.parametrize("settings", [{}, {"pseudonyms": "secret"}, {"every": 2}])
def test_of_a_sample_of_clients_one_known_benign_is_enough(tmp_path: Path, settings):
    with Recorder(tmp_path / "run", trusted=["a", "z"], **settings) as recorder:
        assert told_by(recorder, (None, {"a": LARGE, "b": LARGE}), (None, {"b": LARGE})) == []


def test_a_process_that_sees_a_part_of_the_clients_does_not_miss_the_others(tmp_path: Path):
    with Recorder(tmp_path / "run", trusted=["z"], session="s") as recorder:
        assert told_by(recorder, (None, {"a": LARGE})) == []


def test_trust_that_is_given_with_each_upload_needs_no_list(tmp_path: Path):
    with Recorder(tmp_path / "run", trusted=["z"]) as recorder, recorder.round(1) as stored:
        stored.add("a", LARGE, trusted=True)


def test_where_warnings_are_errors_what_is_doubted_is_stored_once(tmp_path: Path):
    with warnings.catch_warnings(), Recorder(tmp_path / "run", trusted=["t"], dtype="float16") as recorder:
        warnings.simplefilter("error")
        stored = recorder.round(0, global_model=MODEL)
        with pytest.raises(CaptureWarning, match="close to the global model"):
            stored.add("a", MODEL)
        with pytest.raises(CaptureWarning, match="out of the range"):
            stored.add("b", scaled(MODEL, 1e9))
        for client in ("a", "b"):
            with pytest.raises(UnusableInput, match=f"client '{client}' has uploaded already"):
                stored.add(client, MODEL)
        with pytest.raises(CaptureWarning, match="none of the known-benign clients"):
            stored.close()
        assert [type(failure) for failure in recorder.failures] == [UnusableInput, UnusableInput]

    assert Run.open(tmp_path / "run").round(0).client_ids == ("a", "b")
