"""What a captured command's processes record is in the run afterwards, however they end; and training never notices."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Run
from encagg_cli.capture.captured import run_captured
from encagg_cli.capture.session_folder import CaptureSettings
from encagg_cli.errors import NothingToDo, OutputError
from encagg_cli.rounds.directory import partial_files
from encagg_cli.rounds.session import WritingSession

PREAMBLE = """
import os, signal, sys, threading, time
import numpy as np
from encagg_cli import end_round, record
"""


class Captured:
    """Runs scripts under capture into tmp_path/run."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.run = tmp_path / "run"
        self.told: list[str] = []
        self.warned: list[str] = []

    def __call__(self, script: str, *arguments: str, **settings) -> int:
        path = self.folder / "train.py"
        path.write_text(PREAMBLE + textwrap.dedent(script))
        return run_captured(
            self.run,
            [sys.executable, str(path), *arguments],
            CaptureSettings(**settings),
            tell=self.told.append,
            warn=self.warned.append,
        )

    def rows(self, number: int) -> dict[str, list[float]]:
        stored = Run.open(self.run).round(number)
        return dict(zip(stored.client_ids, stored.rows(range(len(stored.client_ids))).tolist(), strict=True))

    @property
    def rounds(self) -> tuple[int, ...]:
        return Run.open(self.run).rounds


@pytest.fixture
def captured(tmp_path):
    return Captured(tmp_path)


# --- without capture -------------------------------------------------------------------------------------------------


def test_without_capture_record_does_nothing_and_loads_nothing(tmp_path):
    code = """
        import sys
        from encagg_cli import end_round, record
        record(1, "a", object(), num_examples=3)
        end_round()
        heavy = {"numpy", "h5py", "torch", "typer", "rich", "safetensors", "encagg_cli.capture.process"}
        loaded = heavy & set(sys.modules)
        assert not loaded, loaded
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENCAGG")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_parent_loads_no_numpy_before_the_command_has_ended():
    """Its threads would take signals that are meant for the command."""
    code = """
        import sys
        import encagg_cli.cli.capture, encagg_cli.capture.captured
        loaded = {"numpy", "h5py", "torch"} & set(sys.modules)
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_uploads_and_facts_arrive(captured):
    script = """
        for number in (3, 4):
            model = {"w": np.full((2, 2), number), "fc.bias": np.zeros(1)}
            for index, client in enumerate("abc"):
                update = {"fc.bias": np.array([index]), "w": np.full((2, 2), 10 * number + index)}
                record(
                    number, client, update, num_examples=index, poisoned=client == "c", attack="lie" * (client == "c"),
                    trusted=True if client == "b" else None, global_model=model, root_gradient=np.arange(5),
                )
    """
    assert captured(script, trusted=("a",), update_kind="gradient") == 0
    assert captured.rounds == (3, 4)
    assert captured.rows(4) == {"a": [40] * 4 + [0], "b": [41] * 4 + [1], "c": [42] * 4 + [2]}
    stored = Run.open(captured.run).round(3)
    assert stored.num_examples.tolist() == [0, 1, 2]
    assert stored.trusted.tolist() == [True, True, False]
    assert stored.poisoned.tolist() == [0, 0, 1]
    assert stored.attack == ("", "", "lie")
    assert stored.update_kind == "gradient"
    assert stored.global_model().tolist() == [3, 3, 3, 3, 0]
    assert stored.root_gradient().tolist() == [0, 1, 2, 3, 4]
    assert [parameter.name for parameter in stored.parameters] == ["w", "fc.bias"]
    assert captured.told == [f"2 rounds, 6 uploads recorded into {captured.run}"]


def test_settings_reach_the_process(captured):
    script = """
        for number in range(1, 7):
            record(number, "hospital-1", {"head.w": np.ones(2), "tail.w": np.ones(2)})
    """
    key = "a key of some length"
    settings = {"every": 2, "dtype": "bfloat16", "compression": "gzip", "pseudonyms": key, "output_layer": "head"}
    assert captured(script, **settings) == 0
    assert captured.rounds == (2, 4, 6)
    stored = Run.open(captured.run).round(2)
    assert stored.stored_type == "bfloat16"
    assert stored.client_ids[0] != "hospital-1"
    assert [(parameter.name, parameter.role) for parameter in stored.parameters] == [
        ("head.w", "output"),
        ("tail.w", ""),
    ]


def test_a_round_ends_with_the_next_with_end_round_or_with_the_process(captured):
    script = """
        run = sys.argv[1]
        def published(): return sorted(name for name in os.listdir(run) if name.endswith(".h5"))
        record(1, "a", np.ones(2))
        assert published() == []
        record(2, "a", np.ones(2))
        assert published() == ["round-000001.h5"]
        end_round()
        assert published() == ["round-000001.h5", "round-000002.h5"]
        end_round()
        record(3, "a", np.ones(2))
    """
    assert captured(script, str(captured.run)) == 0
    assert captured.rounds == (1, 2, 3)


def test_an_earlier_round_may_be_taken_up_again(captured):
    script = """
        record(1, "a", np.ones(2))
        record(2, "a", np.ones(2))
        record(1, "b", np.ones(2))
    """
    assert captured(script) == 0
    assert set(captured.rows(1)) == {"a", "b"}


def test_threads_may_record_together(captured):
    script = """
        from concurrent.futures import ThreadPoolExecutor
        for number in range(3):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda index: record(number, f"c{index}", np.full(1000, index)), range(40)))
    """
    assert captured(script) == 0
    assert captured.rounds == (0, 1, 2)
    assert captured.rows(2) == {f"c{index}": [index] * 1000 for index in range(40)}


def test_a_mistaken_call_does_not_stop_training(captured, capfd):
    script = """
        record("first", "a", np.ones(2))
        record(1, None, np.ones(2))
        record(np.int64(1), "b", np.ones(2))
        record(1, "a", "no numbers")
        record(1, "c", np.ones(3))
        print("trained")
    """
    with pytest.raises(OutputError, match=r"recording failed: .*'first'"):
        captured(script)
    assert captured.rows(1) == {"b": [1, 1]}
    out, err = capfd.readouterr()
    assert out == "trained\n"
    assert err.count("encagg: recording failed") == 1


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_record_into_the_same_rounds(captured, method):
    script = f"""
        import multiprocessing
        def work(index):
            for number in range(3):
                record(number, f"client-{{index}}", np.full(50, 10 * number + index))
        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            workers = [context.Process(target=work, args=(index,)) for index in range(3)]
            [worker.start() for worker in workers]
            [worker.join() for worker in workers]
            work(3)
    """
    assert captured(script) == 0
    for number in range(3):
        assert captured.rows(number) == {f"client-{index}": [10 * number + index] * 50 for index in range(4)}
    assert len(list(captured.run.glob("round-*.h5"))) == 12
    assert "12 uploads" in captured.told[0]


def test_workers_forked_while_a_round_is_open_harm_nothing(captured):
    """The parent's threads do not exist in the child, which must neither wait for them nor publish what they write."""
    script = """
        import multiprocessing
        def work(index):
            record(7, f"worker-{index}", np.full(100_000, index))
        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            for index in range(20):
                record(7, f"parent-{index}", np.full(100_000, index))
                if index % 5 == 0:
                    worker = context.Process(target=work, args=(index,))
                    worker.start()
                    if index % 10: worker.join()
    """
    assert captured(script) == 0
    expected = {f"parent-{index}": index for index in range(20)} | {
        f"worker-{index}": index for index in (0, 5, 10, 15)
    }
    assert {client: row[0] for client, row in captured.rows(7).items()} == expected


def test_a_bare_fork_that_exits_normally_leaves_its_parents_round_alone(captured):
    script = """
        for index in range(10):
            record(1, f"client-{index}", np.full(10_000, index))
            if index == 5:
                process = os.fork()
                if process == 0:
                    record(2, "from the child", np.ones(10_000))
                    sys.exit(0)  # with everything that is done at exit
                os.waitpid(process, 0)
    """
    assert captured(script) == 0
    assert {client: row[0] for client, row in captured.rows(1).items()} == {
        f"client-{index}": index for index in range(10)
    }
    assert set(captured.rows(2)) == {"from the child"}


def test_pool_workers_that_are_terminated_publish_what_they_have(captured):
    script = """
        import multiprocessing
        def work(index):
            record(1, f"client-{index}", np.full(10, index))
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(work, range(8), chunksize=1)
            # leaving the pool sends SIGTERM to its workers
    """
    assert captured(script) == 0
    assert captured.rows(1) == {f"client-{index}": [index] * 10 for index in range(8)}


def test_one_client_from_two_processes_is_a_failure_and_the_first_upload_stands(captured):
    script = """
        import multiprocessing
        def work(value):
            record(1, "a", np.full(3, value))
            record(1, f"only-{value}", np.full(3, value))
        if __name__ == "__main__":
            for value in (1, 2):
                worker = multiprocessing.get_context("fork").Process(target=work, args=(value,))
                worker.start()
                worker.join()
    """
    with pytest.raises(OutputError, match="client 'a' has uploaded already"):
        captured(script)
    assert captured.rows(1) == {"a": [1] * 3, "only-1": [1] * 3, "only-2": [2] * 3}


# --- how processes end -----------------------------------------------------------------------------------------------


def test_an_exception_in_training_is_its_own_and_the_round_is_kept(captured, capfd):
    script = """
        record(1, "a", np.ones(2))
        raise RuntimeError("training broke")
    """
    assert captured(script) == 1
    assert captured.rows(1) == {"a": [1, 1]}
    assert "training broke" in capfd.readouterr().err


def test_sigterm_publishes_the_open_round_and_ends_the_process_as_ever(captured):
    script = """
        record(1, "a", np.ones(2))
        record(2, "a", np.ones(2))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    """
    assert captured(script) == 128 + signal.SIGTERM
    assert captured.rounds == (1, 2)


def test_trainings_own_handler_of_sigterm_is_respected(captured):
    script = """
        def handle(number, frame):
            record(1, "b", np.ones(2))
            sys.exit(42)
        signal.signal(signal.SIGTERM, handle)
        record(1, "a", np.ones(2))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    """
    assert captured(script) == 42
    assert set(captured.rows(1)) == {"a", "b"}


def test_sigkill_loses_the_open_round_and_no_other(captured):
    script = """
        for number in range(4):
            for client in "ab":
                record(number, client, np.full(200_000, number))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert captured(script) == 128 + signal.SIGKILL
    assert captured.rounds == (0, 1, 2)
    assert all(row == [2] * 200_000 for row in captured.rows(2).values())
    assert captured.warned == ["recording failed: round 3: its process ended while it was recorded"]
    assert not any(partial.is_live for partial in partial_files(captured.run))


def test_a_worker_that_vanishes_in_the_middle_of_a_round_is_a_failure(captured):
    script = """
        if os.fork() == 0:
            record(1, "a", np.ones(2))
            os._exit(0)
        os.wait()
        record(2, "a", np.ones(2))
    """
    with pytest.raises(OutputError, match="round 1: its process ended while it was recorded"):
        captured(script)
    assert captured.rounds == (2,)


# --- what the parent makes of it -------------------------------------------------------------------------------------


def test_a_command_that_recorded_nothing_is_told_how(captured):
    with pytest.raises(NothingToDo) as raised:
        captured("print()")
    assert raised.value.exit_code == 5
    assert "record(round_number, client_id, update)" in raised.value.hint
    assert not captured.run.exists()


def test_a_command_of_which_every_round_was_passed_over_recorded_nothing(captured):
    with pytest.raises(NothingToDo, match="--every passed over"):
        captured("record(1, 'a', np.ones(2))", every=2)


def test_a_command_that_failed_keeps_its_code_whatever_was_recorded(captured):
    assert captured("sys.exit(3)") == 3
    assert captured("record(1, 'a', np.ones(2)); sys.exit(4)") == 4
    assert captured("record(1, 'a', np.ones(2)); sys.exit(5)") == 5  # the round is there already
    assert len(captured.warned) == 1
    assert "round 1 is stored already" in captured.warned[0]


def test_a_recording_that_fails_leaves_training_alone_and_returns_6(captured, capfd):
    assert captured("record(1, 'a', np.ones(2))") == 0
    script = """
        for number in range(3):
            record(number, "a", np.full(2, 5.0))
        print("trained to the end")
    """
    with pytest.raises(OutputError) as raised:
        captured(script)
    assert raised.value.exit_code == 6
    assert "round 1 is stored already" in str(raised.value)
    assert "2 rounds could be recorded" in raised.value.hint
    out, err = capfd.readouterr()
    assert out == "trained to the end\n"
    assert err.count("encagg: recording failed, training goes on") == 1
    assert captured.rows(1) == {"a": [1, 1]}
    assert captured("record(1, 'a', np.full(2, 6.0))", force=True) == 0
    assert captured.rows(1) == {"a": [6, 6]}


def test_a_full_disk_costs_the_round_and_never_the_training(captured, capfd):
    script = """
        import resource
        record(1, "a", np.ones(200_000))
        end_round()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        for index in range(5):
            record(2, f"client-{index}", np.ones(200_000))
        end_round()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        record(3, "a", np.ones(200_000))
        print("trained to the end")
    """
    with pytest.raises(OutputError, match="round 2: "):
        captured(script)
    assert captured.rounds == (1, 3)
    assert "trained to the end" in capfd.readouterr().out
    assert not list(captured.run.glob("*.partial"))


def test_strict_raises_in_training(captured, capfd):
    assert captured("record(1, 'a', np.ones(2))") == 0
    script = """
        try:
            record(1, "a", np.ones(2))
        except Exception as error:
            print("training saw", type(error).__name__)
            raise
    """
    assert captured(script, strict=True) == 1
    assert "training saw OutputExists" in capfd.readouterr().out


def test_warnings_made_errors_do_not_make_recording_dangerous(captured):
    script = """
        import warnings
        warnings.simplefilter("error")
        record(1, "a", np.array([1e300, 0.0]))
        print("trained")
    """
    assert captured(script) == 0
    assert captured.rows(1) == {"a": [np.inf, 0.0]}


def test_a_run_that_another_session_records_into_is_refused_before_the_command_starts(captured, tmp_path):
    with WritingSession(captured.run), pytest.raises(OutputError, match="being written by another session"):
        captured("open('started', 'w')", str(tmp_path))
    assert not (tmp_path / "started").exists()


def test_a_run_that_cannot_be_made_is_refused_before_the_command_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        run_captured(
            tmp_path / "file" / "run", ["touch", str(tmp_path / "started")], CaptureSettings(), tell=print, warn=print
        )
    assert not (tmp_path / "started").exists()


def test_the_command_may_change_its_folder(captured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    captured.run = Path("relative")
    assert captured("os.chdir('/'); record(1, 'a', np.ones(2))") == 0
    assert Run.open(tmp_path / "relative").rounds == (1,)


def test_nothing_is_left_in_the_temporary_folder(captured, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert captured("record(1, 'a', np.ones(2))", pseudonyms="a secret of some length") == 0
    assert list(scratch.iterdir()) == []
