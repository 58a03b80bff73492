"""A packed file holds what the run holds."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from encagg_cli.errors import OutputExists, UnusableInput
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.pack import pack
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.verify import verify
from encagg_cli.rounds.writer import RoundWriter

N_PARAMETERS = 270_000  # more than a compressed chunk
PARAMETERS = (Parameter("w", (N_PARAMETERS,), 0),)


def make(folder: Path) -> np.ndarray:
    updates = np.random.default_rng(1).standard_normal((4, N_PARAMETERS)).astype(np.float32)
    updates[1, 5] = np.inf
    for number, (stored_type, compression) in enumerate([("float32", None), ("bfloat16", None), ("float32", "gzip")]):
        for writer in (None, "x"):
            with RoundWriter(
                folder,
                number,
                session=f"s{number}",
                parameters=PARAMETERS,
                stored_type=stored_type,
                compression=compression,
                writer=writer,
                global_model=updates[0] if number else None,
            ) as round_writer:
                for row in (0, 1) if writer is None else (2, 3):
                    round_writer.add(f"{row}", updates[row], num_examples=row, trusted=row == 2, poisoned=row == 3)
    return updates


def test_a_packed_run_reads_as_the_run_does(tmp_path: Path):
    make(tmp_path / "run")
    run = Run.open(tmp_path / "run")

    assert list(pack(run, tmp_path / "one.h5")) == [0, 1, 2]

    packed = Run.open(tmp_path / "one.h5")
    assert packed.rounds == run.rounds
    assert packed.parameters == run.parameters
    for one, other in zip(packed, run, strict=True):
        verify(one)
        for name in ("session", "update_kind", "stored_type", "created", "digest", "client_ids", "attack"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("norms", "num_examples", "trusted", "poisoned"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.rows(range(4)), other.rows(range(4)))
        assert one.has_global_model == other.has_global_model
        if one.has_global_model:
            np.testing.assert_array_equal(one.global_model(), other.global_model())
        assert one.shards[0].is_compressed == other.shards[0].is_compressed
    assert (tmp_path / "one.h5").stat().st_mode & 0o777 == 0o600


def test_shards_of_different_compression_are_packed(tmp_path: Path):
    updates = np.random.default_rng(1).standard_normal((2, N_PARAMETERS)).astype(np.float32)
    for row, compression in enumerate((None, "gzip")):
        with RoundWriter(
            tmp_path / "run", 1, session="s", parameters=PARAMETERS, compression=compression, writer=f"w{row}"
        ) as writer:
            writer.add(f"{row}", updates[row])

    list(pack(Run.open(tmp_path / "run"), tmp_path / "one.h5"))

    np.testing.assert_array_equal(Run.open(tmp_path / "one.h5").round(1).rows([0, 1]), updates)


def test_a_damaged_run_is_not_packed(tmp_path: Path):
    make(tmp_path / "run")
    path, offset = Run.open(tmp_path / "run").round(1).row_offsets()[2]  # type: ignore[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x55\x55")

    with pytest.raises(UnusableInput, match="round 1, client '2': its update is damaged"):
        list(pack(Run.open(tmp_path / "run"), tmp_path / "one.h5"))

    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_an_existing_file_is_replaced_only_when_forced(tmp_path: Path):
    make(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    (tmp_path / "one.h5").write_text("mine")
    with pytest.raises(OutputExists):
        list(pack(run, tmp_path / "one.h5"))
    assert (tmp_path / "one.h5").read_text() == "mine"

    list(pack(run, tmp_path / "one.h5", force=True))
    shutil.rmtree(tmp_path / "run")
    verify(Run.open(tmp_path / "one.h5").round(2))
