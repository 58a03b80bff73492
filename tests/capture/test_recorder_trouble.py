"""Where the disk is full, a folder read-only or a run taken, training is told once, and nothing half-written stays."""

import ast
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.capture.trouble import CaptureWarning
from encagg_cli.cli import main
from encagg_cli.errors import OutputError, UnusableInput
from encagg_cli.rounds import gathered
from encagg_cli.rounds.verify import verify

BIG = np.arange(400_000, dtype=np.float32)  # 1.6 MB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MB. Needs the right to mount one."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a full disk is not tried: mounting a small one is not permitted here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() == 0:  # root may write anywhere, but not on a read-only filesystem
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if made.returncode:
            pytest.skip(
                "a read-only folder is not tried: root may write everywhere, and mounting is not permitted here"
            )
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
    else:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)


def fill(recorder: Recorder, number: int, clients: int, update: np.ndarray = BIG) -> None:
    with recorder.round(number) as stored:
        for client in range(clients):
            stored.add(f"{client}", update + number)


def assert_sound(path: Path, *numbers: int) -> None:
    run = Run.open(path)
    assert run.rounds == numbers
    for stored in run:
        verify(stored)
        np.testing.assert_array_equal(stored.rows([0])[0], BIG + stored.number)
    assert not list(path.glob("*.partial"))


def test_a_full_disk_is_an_exception_and_the_rounds_before_and_after_it_are_whole(small_disk: Path):
    run = small_disk / "run"
    with Recorder(run) as recorder:
        fill(recorder, 1, 1)
        with pytest.raises(OutputError, match="No space left on device") as raised:
            fill(recorder, 2, 10)
        assert raised.value.exit_code == 6
        fill(recorder, 3, 1)

    assert_sound(run, 1, 3)


def test_a_full_disk_is_one_warning_where_training_must_go_on(small_disk: Path):
    run = small_disk / "run"
    with Recorder(run, on_error="warn") as recorder:
        fill(recorder, 1, 1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fill(recorder, 2, 10)
        fill(recorder, 3, 1)
        assert len(recorder.failures) == 1

    assert len(told) == 1
    assert "No space left on device" in str(told[0].message)
    assert "round 2 is not stored" in str(told[0].message)
    assert_sound(run, 1, 3)


@pytest.mark.parametrize(("compression", "most_bytes"), [(None, 0), (None, 100_000), (None, 2**22), ("gzip", 2**22)])
def test_a_disk_that_is_full_at_any_moment_leaves_no_half_round(
    small_disk: Path, compression, most_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gathered, "MOST_BYTES", most_bytes)  # rows are written as they come, later on, or at the end
    noise = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    for room in [*range(0, 500_000, 23_001), 1_000_000]:
        run = small_disk / f"run-{room}"
        run.mkdir()
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, free - room))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Recorder(run, compression=compression, on_error="warn") as recorder:
                fill(recorder, 1, 5, noise)
        assert not list(run.glob("*.partial"))
        published = list(run.glob("round-*"))
        assert len(published) + len(recorder.failures) == 1
        for path in published:
            verify(Run.open(path).round(1))
        ballast.unlink()
        for path in run.iterdir():
            path.unlink()
    assert published  # in the end there was room


@pytest.mark.parametrize("clients", [9, 20])
def test_a_limit_on_the_size_of_files_is_an_exception(tmp_path: Path, clients: int):
    """The stand-in for a full disk or a quota where none can be made. Of a round that fits into memory, and another."""
    program = (
        f"clients = {clients}\n"
        "import resource, numpy; from encagg_cli import Recorder; from encagg_cli.errors import OutputError\n"
        f"recorder = Recorder({str(tmp_path / 'run')!r})\n"
        "with recorder.round(1) as stored: stored.add('a', numpy.ones(100_000))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n"
        "    with recorder.round(2) as stored:\n"
        "        for client in range(clients): stored.add(str(client), numpy.ones(100_000))\n"
        "except OutputError as error: print(error)\n"
        "recorder.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "round-000002.h5: File too large" in done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "run").glob("round-*")] == ["round-000001.h5"]
    verify(Run.open(tmp_path / "run").round(1))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("most_bytes", [0, gathered.MOST_BYTES])
def test_a_limit_on_the_size_of_files_is_the_same_exception_wherever_it_strikes(tmp_path: Path, most_bytes: int):
    """Names of many tensors are what HDF5 itself writes most of: it must have been given the room for them."""
    program = (
        f"from encagg_cli.rounds import gathered; gathered.MOST_BYTES = {most_bytes}\n"
        "import resource, numpy; from encagg_cli import Recorder; from encagg_cli.errors import OutputError\n"
        "update = {f'{number:04d}' * 9: [1.0] for number in range(2000)}\n"
        "ends = []\n"
        "for limit in range(1000, 400_000, 30_011):\n"
        f"    recorder = Recorder({str(tmp_path)!r} + f'/run-{{limit}}')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        with recorder.round(1, root_gradient=update) as stored: stored.add('a', update)\n"
        "        ends.append('stored')\n"
        "    except OutputError as error: ends.append(str(error).rpartition(': ')[2])\n"
        "    recorder.close()\n"
        "print(ends)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stderr == ""
    ends = ast.literal_eval(done.stdout)
    assert set(ends) == {"File too large", "stored"}
    assert ends == sorted(ends)
    assert len(list(tmp_path.glob("run-*/*.h5"))) == ends.count("stored")


@pytest.mark.parametrize(
    "work",
    ["hdf5.write_values(root, 'small', numpy.zeros(5000))", "hdf5.write_text_attribute(root, 'a', 'x' * 30_000)"],
)
def test_what_hdf5_keeps_back_and_cannot_write_is_an_error_of_the_system(tmp_path: Path, work):
    program = (
        "import errno, resource, numpy; from encagg_cli.rounds import hdf5\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        f"    with hdf5.changed({str(tmp_path / 'file')!r}, create=True) as root: {work}\n"
        "except OSError as error: print(errno.errorcode[error.errno], type(error.__cause__).__name__)\n"
    )
    # What h5py writes on stderr about it, again and again, is not ours to silence.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout == "EFBIG RuntimeError\n"


def test_a_read_only_folder_is_an_exception(read_only_folder: Path):
    with pytest.raises(OutputError, match=r"cannot write .*(Read-only file system|Permission denied)"):
        Recorder(read_only_folder / "run")


def test_a_read_only_folder_is_one_warning_where_training_must_go_on(read_only_folder: Path):
    with pytest.warns(CaptureWarning, match="nothing is recorded") as told:
        recorder = Recorder(read_only_folder / "run", on_error="warn")
    with recorder:
        for number in (1, 2):
            with recorder.round(number) as stored:
                stored.add("a", BIG)
                assert not stored.is_recorded
    assert len(told) == 1


def test_a_pack_or_prune_that_cannot_write_exits_with_6(small_disk: Path, tmp_path: Path, capsys):
    with Recorder(tmp_path / "run") as recorder:
        fill(recorder, 1, 10)

    assert main(["pack", str(tmp_path / "run"), str(small_disk / "one.h5")]) == 6
    assert "free" in capsys.readouterr().err
    assert not list(small_disk.iterdir())


def test_what_goes_wrong_with_an_upload_is_a_warning_where_training_must_go_on(tmp_path: Path):
    with Recorder(tmp_path / "run", on_error="warn") as recorder, recorder.round(1) as stored:
        stored.add("0", BIG + 1)
        with pytest.warns(CaptureWarning, match="client 'b': 5 values.*this upload is not stored"):
            stored.add("b", BIG[:5])
        with pytest.warns(CaptureWarning, match="client '0' has uploaded already"):
            stored.add("0", BIG)
        with pytest.warns(CaptureWarning, match="is no array"):
            stored.add("c", [BIG, [BIG]])

    assert [str(type(error).__name__) for error in recorder.failures] == ["UnusableInput"] * 3
    assert_sound(tmp_path / "run", 1)


def test_a_repeated_round_is_a_warning_where_training_must_go_on(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        fill(recorder, 1, 1)
    with Recorder(tmp_path / "run", on_error="warn") as recorder:
        with pytest.warns(CaptureWarning, match="round 1 is stored already.*round 1 is not stored"):
            stored = recorder.round(1)
        stored.add("0", BIG * 0)
        stored.close()
        fill(recorder, 2, 1)

    assert_sound(tmp_path / "run", 1, 2)


def test_a_failure_in_the_background_reaches_the_next_call(tmp_path: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(gathered, "MOST_BYTES", 0)
    with Recorder(tmp_path / "run") as recorder:
        stored = recorder.round(1)
        stored.add("a", BIG)
        recorder.background.submit(lambda: None).wait()
        monkeypatch.setattr("encagg_cli.rounds.storage.pwrite", fail)
        stored.add("b", BIG)
        recorder.background.submit(lambda: None).wait()
        monkeypatch.undo()
        with pytest.raises(OutputError, match="Input/output error"):
            stored.add("c", BIG)
        stored.add("d", BIG)  # told once; the round is given up
        stored.close()
        fill(recorder, 2, 1)

    with pytest.raises(UnusableInput):
        Run.open(tmp_path / "run" / "round-000001.h5")
    assert_sound(tmp_path / "run", 2)
