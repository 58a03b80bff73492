"""A round is stored as the same, whether it is kept in memory until it is whole, or written as its rows come."""

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from encagg_cli.errors import OutputError, UnusableInput
from encagg_cli.rounds import gathered
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.verify import verify
from encagg_cli.rounds.writer import RoundWriter

N_PARAMETERS = 1000
ROW_BYTES = 4 * N_PARAMETERS
PARAMETERS = (Parameter("conv.weight", (3, 300), 0), Parameter("fc.bias", (100,), 900, "output"))
UPDATES = np.random.default_rng(3).standard_normal((6, N_PARAMETERS)).astype(np.float32)
WAYS = {"in memory": 2**22, "in the file": 0, "spilled": 3 * ROW_BYTES}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to make a round; with one vector and a few rows, the last goes over from memory to the file."""
    monkeypatch.setattr(gathered, "MOST_BYTES", WAYS[request.param])
    return str(request.param)


def write(folder: Path, updates: np.ndarray, **settings: Any) -> Path:
    """A round of these updates with a global model; the file."""
    writer = RoundWriter(folder, 12, session="s", parameters=PARAMETERS, global_model=UPDATES[5], **settings)
    for client, update in enumerate(updates):
        writer.add(
            f"клиент-{client}",
            update,
            num_examples=client - 1,
            trusted=client == 1,
            poisoned=(None, True, False)[client % 3],
            attack="lie" * (client % 3 == 1),
        )
    return writer.close()


def content(path: Path) -> dict[str, Any]:
    """Everything that a file holds, as another program sees it: structure, types, properties and values."""
    found: dict[str, Any] = {}

    def look(name: str, element: h5py.Group | h5py.Dataset) -> None:
        for attribute in element.attrs:
            value = element.attrs.get_id(attribute)
            shown = None if attribute == "created" else element.attrs[attribute]
            found[f"{name}@{attribute}"] = (value.get_type().encode(), value.shape, shown)
        if isinstance(element, h5py.Group):
            found[name] = list(element)
            return
        creation = element.id.get_create_plist()
        found[name] = (
            element.id.get_type().encode(),
            (element.shape, element.maxshape, element.chunks, element.compression, element.shuffle),
            (
                creation.get_layout(),
                creation.get_alloc_time(),
                creation.get_fill_time(),
                creation.get_obj_track_times(),
            ),
            element[...].tobytes(),
        )

    with h5py.File(path) as file:
        look("/", file)
        file.visititems(look)
        found["libver"] = file.libver
    return found


@pytest.mark.parametrize("stored_type", ["float32", "float16", "bfloat16"])
def test_every_way_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored_type: str):
    found = {}
    for name, most_bytes in WAYS.items():
        monkeypatch.setattr(gathered, "MOST_BYTES", most_bytes)
        path = write(tmp_path / name, UPDATES[:5], stored_type=stored_type, root_gradient=UPDATES[4])
        found[name] = content(path)
        with Run.open(tmp_path / name) as run:
            verify(run.round(12))

    assert len(found["in the file"]) > 25
    assert found["in memory"] == found["in the file"]
    assert found["spilled"] == found["in the file"]


@pytest.mark.parametrize(("n_rows", "is_written_meanwhile"), [(4, False), (5, True)])
def test_a_round_is_in_memory_up_to_the_limit_and_in_the_file_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_rows: int, is_written_meanwhile: bool
):
    monkeypatch.setattr(gathered, "MOST_BYTES", 5 * ROW_BYTES)  # four rows and a vector
    writer = RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS, global_model=UPDATES[5])
    for client in range(n_rows):
        writer.add(f"{client}", UPDATES[client])
    partial = tmp_path / "round-000001.h5.partial"

    assert (partial.stat().st_size > 0) == is_written_meanwhile
    writer.close()
    with Run.open(tmp_path) as run:
        np.testing.assert_array_equal(run.round(1).rows(range(n_rows)), UPDATES[:n_rows])


def test_a_round_that_will_be_large_is_written_from_the_beginning(tmp_path: Path):
    with RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS, expected_clients=2000) as writer:
        assert (tmp_path / "round-000001.h5.partial").stat().st_size > 2000 * ROW_BYTES
        writer.add("a", UPDATES[0])

    assert (tmp_path / "round-000001.h5").stat().st_size < 2 * gathered.MOST_BYTES


def test_copies_are_taken(tmp_path: Path, way: str):
    model, update = UPDATES[5].copy(), UPDATES[0].copy()
    with RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS, global_model=model) as writer:
        for client in range(4):
            update[:] = UPDATES[client]
            writer.add(f"{client}", update)
        model[:] = update[:] = np.nan

    with Run.open(tmp_path) as run:
        stored = run.round(1)
        np.testing.assert_array_equal(stored.rows(range(4)), UPDATES[:4])
        np.testing.assert_array_equal(stored.global_model(), UPDATES[5])
        verify(stored)


def test_what_another_process_has_published_is_left_out(tmp_path: Path, way: str):
    first = RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS)
    second = RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS, writer="x")
    for client in (1, 3, 0):
        first.add(f"{client}", UPDATES[client])
    for client in (0, 1, 2, 4, 5):
        second.add(f"{client}", UPDATES[client] if client > 1 else UPDATES[client] * np.nan)
    first.close()
    with pytest.raises(UnusableInput, match=r"client '0' has uploaded already, to another process \(and 1 more"):
        second.close()

    with Run.open(tmp_path) as run:
        stored = run.round(1)
        order = [int(client) for client in stored.client_ids]
        assert sorted(order) == list(range(6))
        np.testing.assert_array_equal(stored.rows(range(6)), UPDATES[order])
        verify(stored)


@pytest.mark.parametrize("fails_at", range(4))
def test_a_disk_that_is_full_when_the_round_is_closed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
):
    """The first write is the file's frame, the second the global model; rows follow."""
    calls = 0
    pwrite = os.pwrite

    def full(descriptor: int, data: Any, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > fails_at:
            raise OSError(28, os.strerror(28))
        return pwrite(descriptor, data, offset)

    writer = RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS, global_model=UPDATES[5])
    for client in range(4):
        writer.add(f"{client}", UPDATES[client])
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match="No space left on device") as raised:
        writer.close()

    assert raised.value.exit_code == 6
    assert [path.name for path in tmp_path.iterdir()] == [".publishing.lock"]


def test_a_file_that_was_made_in_memory_holds_nothing_that_lay_there_before(tmp_path: Path, monkeypatch):
    """Nor when it was made, but for the time that the writer puts in."""
    monkeypatch.setattr("encagg_cli.rounds.writer.datetime", Midnight)
    files = []
    for byte in (b"\xab", b"\xcd"):
        rubbish = [byte * size for size in range(1000, 300_000, 1000)]
        del rubbish
        files.append(write(tmp_path / byte.hex(), UPDATES[:2]).read_bytes())
        time.sleep(1.1)  # HDF5 counts seconds

    assert files[0] == files[1]


class Midnight(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "Midnight":
        return cls(2026, 1, 1, tzinfo=tz)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_no_hdf5_file_stays_open_when_a_round_has_ended(tmp_path: Path, way: str, end: str):
    def n_open() -> int:
        return int(h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE))

    before = n_open()
    writer = RoundWriter(tmp_path, 1, session="s", parameters=PARAMETERS)
    for client in range(4):
        writer.add(f"{client}", UPDATES[client])
    getattr(writer, end)()
    del writer

    assert n_open() == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere peaks of memory have other units")
def test_no_file_of_the_training_is_read_for_having_the_name_of_one_in_memory(tmp_path: Path):
    program = """
import resource
from encagg_cli.rounds.hdf5 import Image
Image()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open("image-1", "wb") as file:
    file.truncate(2**28)
Image()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(done.stdout) < 2**16  # KiB, a quarter of that file
