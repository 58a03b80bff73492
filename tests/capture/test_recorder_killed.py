"""A training that ends in the middle of a round, however it ends, loses at most that round."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.capture.trouble import CaptureWarning
from encagg_cli.cli import main
from encagg_cli.rounds.verify import verify

CHILD = Path(__file__).with_name("recording_child.py")
CONTENT = runpy.run_path(str(CHILD))
N_CLIENTS, model_of, update_of = CONTENT["N_CLIENTS"], CONTENT["model_of"], CONTENT["update_of"]
KILLS = int(os.environ.get("ENCAGG_TEST_KILLS", "10"))  # 200 for the long form


SMALL, LARGE = 5_000, 150_000  # parameters: of rounds that are kept in memory until they are whole, and of others


def start(run: Path, first: int, size: int = LARGE) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(run), str(first), "1000000", str(size)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def published(child: subprocess.Popen[str]) -> list[int]:
    out, _ = child.communicate()
    return [int(line) for line in out.split()]


def assert_bit_exact(run: Run, number: int, size: int = LARGE) -> None:
    with run.round(number) as stored:
        expected = np.stack([update_of(number, client, size) for client in range(N_CLIENTS)])
        assert stored.client_ids == tuple(f"client-{client}" for client in range(N_CLIENTS))
        np.testing.assert_array_equal(stored.rows(range(N_CLIENTS)), expected)
        np.testing.assert_array_equal(stored.global_model(), model_of(number, size))
        verify(stored)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_killed_training_loses_at_most_the_round_it_was_writing(tmp_path: Path, capsys, size: int):
    run = tmp_path / "run"
    chance = random.Random(20_260_522)
    first, checked = 0, 0
    interrupted = 0
    for _ in range(KILLS):
        child = start(run, first, size)
        time.sleep(chance.uniform(0.0, 0.2))
        child.kill()
        said = published(child)

        left = sorted(run.glob("*.partial"))
        stored = {int(path.name[6:12]) for path in run.glob("round-*.h5")}
        assert stored.issuperset(said)  # what training was told is stored, is
        assert stored == set(range(max(stored, default=-1) + 1))  # and no round was lost before it
        unfinished = [int(path.name[6:12]) for path in left]
        assert unfinished in ([], [max(stored, default=-1) + 1])
        if stored:
            with Run.open(run) as opened:
                for number in range(checked, max(stored) + 1):
                    assert_bit_exact(opened, number, size)
            checked = first = max(stored) + 1
            assert main(["inspect", str(run), "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["interrupted"] == [path.name for path in left]
        interrupted += len(left)
    if KILLS >= 10:  # the kills did hit the writing, or this test says nothing
        assert interrupted > 0
        assert checked > 0


@pytest.mark.parametrize("left", [b"", b"what a killed capture left"])
def test_the_next_recorder_says_what_was_lost_and_removes_it(tmp_path: Path, capsys, left: bytes):
    run = tmp_path / "run"
    child = start(run, 0)
    assert child.stdout is not None
    child.stdout.readline()  # round 0 is published
    child.kill()
    published(child)
    for partial in run.glob("*.partial"):
        partial.unlink()
    lost = run / "round-000777.h5.partial"
    lost.write_bytes(left)
    assert main(["inspect", str(run), "--json"]) == 0
    assert lost.name in json.loads(capsys.readouterr().out)["interrupted"]

    with pytest.warns(CaptureWarning, match=r"round-000777\.h5 was interrupted"), Recorder(run) as recorder:
        assert lost in recorder.interrupted

    assert not list(run.glob("*.partial"))


def test_a_terminated_training_leaves_nothing_unfinished_and_dies_by_the_signal(tmp_path: Path):
    child = start(tmp_path / "run", 0)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.03)
    child.terminate()
    said = published(child)

    assert child.returncode == -signal.SIGTERM
    assert not list((tmp_path / "run").glob("*.partial"))
    with Run.open(tmp_path / "run") as run:
        assert set(run.rounds) >= {0, *said}
        for number in run.rounds:
            assert_bit_exact(run, number)


def test_a_handler_of_the_training_is_left_alone(tmp_path: Path):
    program = (
        "import signal, os, sys, numpy\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('mine'), sys.exit(3)))\n"
        "from encagg_cli import Recorder\n"
        f"recorder = Recorder({str(tmp_path / 'run')!r})\n"
        "stored = recorder.round(1); stored.add('a', numpy.ones(3))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (3, "mine\n")
    assert "round 1 was not closed: nothing of it is stored" in done.stderr
    assert not list((tmp_path / "run").glob("round-*"))


def test_a_round_that_is_open_when_the_program_ends_is_not_stored_and_it_says_so(tmp_path: Path):
    program = (
        "import numpy; from encagg_cli import Recorder\n"
        f"recorder = Recorder({str(tmp_path / 'run')!r})\n"
        "for number in (1, 2):\n"
        "    stored = recorder.round(number)\n"
        "    stored.add('a', numpy.ones(100_000))\n"
        "    if number == 1: stored.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "round 2 was not closed: nothing of it is stored" in done.stderr
    assert [path.name for path in (tmp_path / "run").glob("round-*")] == ["round-000001.h5"]


def test_a_round_whose_body_raises_is_not_stored(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        with pytest.raises(ZeroDivisionError), pytest.warns(CaptureWarning, match="ZeroDivisionError was raised in it"):
            fail_in_the_middle(recorder, 1)
        with recorder.round(2) as stored:
            stored.add("a", np.ones(100_000))

    assert [path.name for path in (tmp_path / "run").glob("round-*")] == ["round-000002.h5"]


def fail_in_the_middle(recorder: Recorder, number: int) -> None:
    with recorder.round(number) as stored:
        stored.add("a", np.ones(100_000))
        raise ZeroDivisionError
