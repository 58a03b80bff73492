"""What is written is read back, whatever the stored type, the compression and the number of processes."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from encagg_cli.errors import RoundNotFound, UnusableInput
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run, StoredRound
from encagg_cli.rounds.writer import RoundWriter

N_PARAMETERS = 300_001  # more than a compressed chunk, and no multiple of anything
PARAMETERS = (Parameter("conv.weight", (3, 100_000), 0), Parameter("fc.bias", (), 300_000, "output"))


@pytest.fixture
def updates() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((4, N_PARAMETERS)).astype(np.float32)


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("stored_type", ["float32", "float16", "bfloat16"])
def test_rows_and_columns_come_back_as_stored(tmp_path: Path, updates, stored_type, compression):
    with RoundWriter(
        tmp_path, 12, session="s", parameters=PARAMETERS, stored_type=stored_type, compression=compression
    ) as writer:
        for client, update in enumerate(updates):
            writer.add(f"client-{client}", update)

    stored = Run.open(tmp_path).round(12)

    expected = as_stored(updates, stored_type)
    np.testing.assert_array_equal(stored.rows([3, 0]), expected[[3, 0]])
    block = np.empty((4, 70_000), dtype=np.float32)
    for start in (0, 200_000, N_PARAMETERS - 70_000):
        stored.read_columns(start, start + 70_000, block)
        np.testing.assert_array_equal(block, expected[:, start : start + 70_000])
    np.testing.assert_allclose(stored.norms, np.linalg.norm(expected.astype(np.float64), axis=1), rtol=1e-14)


def as_stored(updates: np.ndarray, stored_type: str) -> np.ndarray:
    import torch

    return torch.from_numpy(updates).to(getattr(torch, stored_type)).float().numpy()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_another_program_reads_a_round_with_h5py_alone(tmp_path: Path, updates, compression):
    with RoundWriter(tmp_path, 12, session="s", parameters=PARAMETERS, compression=compression) as writer:
        writer.add("a", updates[0], num_examples=600, trusted=True)
        writer.add("b", updates[1], poisoned=True, attack="lie")

    with h5py.File(tmp_path / "round-000012.h5") as file:
        assert dict(file.attrs) == {"format": "encagg-rounds", "format_version": 1}
        group = file["rounds/000012"]
        np.testing.assert_array_equal(group["updates"][...], updates[:2])
        assert group["client_id"].asstr()[...].tolist() == ["a", "b"]
        assert group["num_examples"][...].tolist() == [600, -1]
        assert group["trusted"][...].tolist() == [True, False]
        assert group["poisoned"][...].tolist() == [-1, 1]
        assert group["attack"].asstr()[...].tolist() == ["", "lie"]
        assert group.attrs["dtype"] == "float32"
        assert file["parameters/name"].asstr()[...].tolist() == ["conv.weight", "fc.bias"]
        assert file["parameters/shape"].asstr()[...].tolist() == ["[3, 100000]", "[]"]
        assert file["parameters/role"].asstr()[...].tolist() == ["", "output"]


def test_the_rows_of_an_uncompressed_round_lie_where_it_says(tmp_path: Path, updates):
    with RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS) as writer:
        writer.add("a", updates[0])
        writer.add("b", updates[1])

    offsets = Run.open(tmp_path).round(1).row_offsets()

    assert offsets is not None
    for (path, offset), update in zip(offsets, updates, strict=False):
        np.testing.assert_array_equal(np.fromfile(path, "<f4", N_PARAMETERS, offset=offset), update)


def test_shards_of_a_session_are_one_round_with_one_digest(tmp_path: Path, updates):
    with (
        RoundWriter(tmp_path / "two", 1, session="s", parameters=PARAMETERS) as first,
        RoundWriter(tmp_path / "two", 1, session="s", parameters=PARAMETERS, writer="x") as second,
    ):
        first.add("b", updates[1])
        second.add("a", updates[0])
        second.add("c", updates[2])
    with RoundWriter(tmp_path / "one", 1, session="t", parameters=PARAMETERS, compression="gzip") as whole:
        for client, update in zip("abc", updates, strict=False):
            whole.add(client, update)

    merged = Run.open(tmp_path / "two").round(1)

    assert merged.client_ids == ("b", "a", "c")
    np.testing.assert_array_equal(merged.rows([0, 1, 2]), updates[[1, 0, 2]])
    assert merged.digest == Run.open(tmp_path / "one").round(1).digest


def test_models_are_stored_where_given(tmp_path: Path, updates):
    with RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS, global_model=updates[3]) as writer:
        writer.add("a", updates[0])

    stored = Run.open(tmp_path).round(1)

    np.testing.assert_array_equal(stored.global_model(), updates[3])
    assert (stored.has_global_model, stored.has_root_gradient) == (True, False)
    assert stored.root_gradient() is None


def test_a_round_can_be_sent_to_another_process(tmp_path: Path, updates):
    with RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS) as writer:
        writer.add("a", updates[0])
    stored = Run.open(tmp_path).round(1)
    stored.rows([0])

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(StoredRound.rows, stored, [0]).result()

    np.testing.assert_array_equal(result, updates[:1])


def test_a_missing_round_is_named(tmp_path: Path, updates):
    with RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS) as writer:
        writer.add("a", updates[0])

    with pytest.raises(RoundNotFound, match="no round 2"):
        Run.open(tmp_path).round(2)


def test_a_second_upload_of_a_client_is_refused_and_the_round_goes_on(tmp_path: Path, updates):
    with RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS) as writer:
        writer.add("a", updates[0])
        with pytest.raises(UnusableInput, match="client 'a' has uploaded already"):
            writer.add("a", updates[1])
        writer.add("b", updates[1])

    np.testing.assert_array_equal(Run.open(tmp_path).round(1).rows([0, 1]), updates[:2])
