"""Processes beside each other: those of one session share a round, another session is refused, a fork harms nothing."""

import errno
import gc
import os
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.capture.trouble import CaptureWarning
from encagg_cli.errors import OutputError, UnusableInput
from encagg_cli.rounds import writer
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.verify import verify

UPDATE = np.arange(200_000, dtype=np.float32)


def run_program(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def assert_holds(path: Path, number: int, *clients: str) -> None:
    """The round holds, bit for bit, `UPDATE` plus the number in each client's id."""
    with Run.open(path).round(number) as stored:
        assert sorted(stored.client_ids) == sorted(clients)
        for client, row in zip(stored.client_ids, stored.rows(range(len(clients))), strict=True):
            np.testing.assert_array_equal(row, UPDATE + int(client))
        verify(stored)


def test_another_session_is_refused_while_one_records(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        with pytest.raises(OutputError, match="is being written by another session") as raised:
            Recorder(tmp_path / "run")
        assert raised.value.exit_code == 6
        with recorder.round(1) as stored:
            stored.add("0", UPDATE)

    with Recorder(tmp_path / "run") as recorder, recorder.round(2) as stored:
        stored.add("0", UPDATE)
    assert Run.open(tmp_path / "run").rounds == (1, 2)


def test_another_process_is_refused_too_and_let_in_when_the_first_was_killed(tmp_path: Path):
    program = f"""
        from encagg_cli import Recorder
        with Recorder({str(tmp_path / "run")!r}):
            print("in", flush=True)
            input()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        with pytest.raises(OutputError, match=f"another session \\(process {child.pid}\\)"):
            Recorder(tmp_path / "run")
        child.kill()

    Recorder(tmp_path / "run").close()


def test_processes_of_one_session_share_its_rounds(tmp_path: Path):
    program = """
        import sys, numpy
        from encagg_cli import Recorder
        with Recorder(sys.argv[1], session="s") as recorder:
            print("in", flush=True)
            sys.stdin.readline()
            for number in range(3):
                with recorder.round(number) as stored:
                    for client in range(4):
                        client += 4 * int(sys.argv[2])
                        stored.add(str(client), numpy.arange(200_000, dtype="f4") + client)
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "run"), str(index)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
    for child in children:  # all of them are in: now they write at the same time
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0

    assert len(list((tmp_path / "run").glob("round-*.h5"))) == 9
    for number in range(3):
        assert_holds(tmp_path / "run", number, *(str(client) for client in range(12)))


def test_one_process_after_the_other_adds_to_a_round_of_their_session(tmp_path: Path):
    for client in range(3):
        with Recorder(tmp_path / "run", session="s") as recorder, recorder.round(1) as stored:
            stored.add(str(client), UPDATE + client)

    assert_holds(tmp_path / "run", 1, "0", "1", "2")


def test_of_two_uploads_of_a_client_to_two_processes_the_first_stands(tmp_path: Path):
    first = Recorder(tmp_path / "run", session="s")
    second = Recorder(tmp_path / "run", session="s")
    with first, second:
        one, two = first.round(1), second.round(1)
        for client in (0, 1):
            one.add(str(client), UPDATE + client)
        for client in (1, 2, 3):
            two.add(str(client), UPDATE + client if client != 1 else UPDATE * np.nan)
        one.close()
        with pytest.raises(UnusableInput, match="round 1: client '1' has uploaded already, to another process"):
            two.close()

    assert_holds(tmp_path / "run", 1, "0", "1", "2", "3")


def test_two_processes_with_exactly_the_same_uploads_leave_one_file(tmp_path: Path):
    first, second = Recorder(tmp_path / "run", session="s"), Recorder(tmp_path / "run", session="s")
    with first, second:
        one, two = first.round(1), second.round(1)
        one.add("0", UPDATE)
        two.add("0", UPDATE)
        one.close()
        with pytest.raises(UnusableInput, match="client '0' has uploaded already"):
            two.close()

    assert [path.name for path in (tmp_path / "run").glob("round-*")] == ["round-000001.h5"]


def test_a_forced_repeat_replaces_all_shards_of_the_old_session(tmp_path: Path):
    first, second = Recorder(tmp_path / "run", session="old"), Recorder(tmp_path / "run", session="old")
    with first, second:
        for index, recorder in enumerate((first, second)):
            with recorder.round(1) as stored:
                stored.add(str(index), UPDATE + index)
    assert_holds(tmp_path / "run", 1, "0", "1")

    with Recorder(tmp_path / "run", force=True) as recorder, recorder.round(1) as stored:
        stored.add("7", UPDATE + 7)

    assert_holds(tmp_path / "run", 1, "7")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("rename", {"0": 0, "1": 1}),  # not published: the old round stands, with all its shards
        ("first removal", {"7": 7}),
        ("removal of the note", {"7": 7}),
    ],
)
def test_a_forced_repeat_that_is_killed_replaces_all_or_nothing(tmp_path: Path, step: str, expected: dict[str, int]):
    for client in range(2):
        with Recorder(tmp_path / "run", session="old") as recorder, recorder.round(1) as stored:
            stored.add(str(client), UPDATE + client)
    program = """
        import os, signal, sys, numpy
        from pathlib import Path
        from encagg_cli import Recorder
        run, step = sys.argv[1:]
        method, suffix = {
            "rename": ("replace", ".partial"),
            "first removal": ("unlink", ".h5"),
            "removal of the note": ("unlink", ".replacing"),
        }[step]
        does = getattr(Path, method)
        def dies(path, *arguments, **settings):
            if path.name.startswith("round-") and path.name.endswith(suffix):
                os.kill(os.getpid(), signal.SIGKILL)
            return does(path, *arguments, **settings)
        setattr(Path, method, dies)
        with Recorder(run, force=True) as recorder, recorder.round(1) as stored:
            stored.add("7", numpy.arange(200_000, dtype="f4") + 7)
    """
    done = run_program(program, tmp_path / "run", step)
    assert done.returncode == -9, done.stderr

    assert_holds(tmp_path / "run", 1, *expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)  # of the round that was interrupted
        Recorder(tmp_path / "run").close()
    assert_holds(tmp_path / "run", 1, *expected)
    left = sorted(path.name for path in (tmp_path / "run").glob("round-*"))
    assert len(left) == len(expected)
    assert left[0] == "round-000001.h5"


def test_a_forced_repeat_that_fails_once_it_is_published_has_replaced_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for client in range(2):
        with Recorder(tmp_path / "run", session="old") as recorder, recorder.round(1) as stored:
            stored.add(str(client), UPDATE + client)

    def fails(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Recorder(tmp_path / "run", force=True) as recorder:
        stored = recorder.round(1)
        stored.add("7", UPDATE + 7)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "sync", fails)  # of the directory, after the rename
            with pytest.raises(OutputError):
                stored.close()

    assert_holds(tmp_path / "run", 1, "7")
    Recorder(tmp_path / "run").close()
    assert [path.name for path in (tmp_path / "run").glob("round-*")] == ["round-000001.h5"]
    assert_holds(tmp_path / "run", 1, "7")


def test_a_note_of_replaced_files_hides_nothing_but_what_its_own_file_replaced(tmp_path: Path):
    run = tmp_path / "run"
    with Recorder(run) as recorder:
        for number in (1, 2):
            with recorder.round(number) as stored:
                stored.add("0", UPDATE)
    for inode in ("1", str((run / "round-000001.h5").stat().st_ino), "no number", ""):
        names = ("../run/round-000002.h5", "round-000002.h5", "round-000001.h5", ".writing.lock")
        (run / "round-000001.h5.replacing").write_text("\n".join((inode, *names)))
        assert Run.open(run).rounds == (1, 2)
    Recorder(run).close()

    assert Run.open(run).rounds == (1, 2)
    assert sorted(path.name for path in run.glob("round-*")) == ["round-000001.h5", "round-000002.h5"]


def test_a_mixture_of_sessions_is_never_read_as_one_round(tmp_path: Path):
    for name in ("old", "new"):
        with Recorder(tmp_path / name) as recorder, recorder.round(1) as stored:
            stored.add("0", UPDATE)
    (tmp_path / "old" / "round-000001.h5").rename(tmp_path / "new" / "round-000001.p1.h5")

    with pytest.raises(UnusableInput, match="hold the same round of two sessions"):
        Run.open(tmp_path / "new").round(1)


def test_children_forked_at_any_moment_harm_nothing_however_they_end(tmp_path: Path):
    program = """
        import os, sys, numpy
        from encagg_cli import Recorder
        from encagg_cli.errors import UsageError
        update = numpy.arange(200_000, dtype="f4")
        children = []
        with Recorder(sys.argv[1]) as recorder:
            for number in range(4):
                with recorder.round(number) as stored:
                    for client in range(8):
                        stored.add(str(client), update + client)
                        if client % 2:
                            child = os.fork()
                            if child == 0:
                                try:
                                    stored.add("99", update)
                                except UsageError as error:
                                    assert "forked" in str(error), error
                                else:
                                    os._exit(9)
                                if client == 3:
                                    os._exit(0)
                                if client == 5:
                                    stored.close()
                                    recorder.close()
                                sys.exit(0)  # runs everything that is registered for the end, HDF5's own too
                            children.append(child)
            for child in children:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    done = run_program(program, tmp_path / "run")

    assert done.returncode == 0, done.stderr
    for number in range(4):
        assert_holds(tmp_path / "run", number, *(str(client) for client in range(8)))
    assert not list((tmp_path / "run").glob("*.partial"))


def test_forked_workers_may_record_and_their_uploads_join_the_round(tmp_path: Path):
    program = """
        import multiprocessing, sys, numpy
        from encagg_cli import Recorder
        update = numpy.arange(200_000, dtype="f4")
        recorder = Recorder(sys.argv[1])
        def work(client):
            with recorder.round(1) as stored:
                stored.add(str(client), update + client)
        stored = recorder.round(1)
        stored.add("0", update)
        workers = [multiprocessing.get_context("fork").Process(target=work, args=(c,)) for c in (1, 2, 3)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        stored.close()
        recorder.close()
        print([worker.exitcode for worker in workers])
    """
    done = run_program(program, tmp_path / "run")

    assert done.stdout == "[0, 0, 0]\n", done.stderr
    assert_holds(tmp_path / "run", 1, "0", "1", "2", "3")


def test_a_forked_child_does_not_hold_the_run_of_a_parent_that_was_killed(tmp_path: Path):
    program = """
        import os, signal, sys, time, numpy
        from encagg_cli import Recorder
        recorder = Recorder(sys.argv[1])
        stored = recorder.round(1)
        stored.add("0", numpy.ones(200_000))
        recorder.background.submit(lambda: None).wait()
        child = os.fork()
        if child == 0:
            os.close(1); os.close(2)
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_program(program, tmp_path / "run")
    try:
        with pytest.warns(UserWarning, match="was interrupted"), Recorder(tmp_path / "run") as recorder:
            assert [path.name for path in recorder.interrupted] == ["round-000001.h5.partial"]
    finally:
        subprocess.run(["kill", done.stdout.strip()], check=True)


def test_a_recorder_that_is_forgotten_lets_go_of_its_run(tmp_path: Path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        recorder = Recorder(tmp_path / "run")
        recorder.round(1).add("0", UPDATE)
        recorder.background.submit(lambda: None).wait()
        del recorder
        gc.collect()
    assert [str(warning.message) for warning in told] == ["round 1 was not closed: nothing of it is stored"]
    waited_until = time.monotonic() + 30
    while list((tmp_path / "run").glob("*.partial")) and time.monotonic() < waited_until:
        time.sleep(0.01)  # given up in the background: forgetting waits for nothing

    with Recorder(tmp_path / "run") as recorder, recorder.round(1) as stored:
        stored.add("0", UPDATE)
    assert_holds(tmp_path / "run", 1, "0")


def test_a_writer_that_is_forgotten_leaves_nothing_whatever_is_collected_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    create = writer.create_locked

    def older_than_its_file(partial: Path):
        gc.collect(0)  # what is younger is collected first
        return create(partial)

    monkeypatch.setattr(writer, "create_locked", older_than_its_file)
    forgotten = writer.RoundWriter(tmp_path / "run", 1, session="s", parameters=[Parameter("update", (3,), 0)])
    forgotten.itself = forgotten  # for the collector alone
    del forgotten
    gc.collect()

    assert list((tmp_path / "run").glob("round-*")) == []


def test_a_note_that_is_no_file_says_nothing(tmp_path: Path):
    run = tmp_path / "run"
    with Recorder(run) as recorder, recorder.round(1) as stored:
        stored.add("0", UPDATE)
    (run / "round-000001.h5.replacing").mkdir()
    os.mkfifo(run / "round-000002.h5.replacing")

    assert_holds(run, 1, "0")
    with Recorder(run) as recorder, recorder.round(2) as stored:
        stored.add("1", UPDATE + 1)
    assert_holds(run, 2, "1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_note_that_cannot_be_read_is_told(tmp_path: Path):
    run = tmp_path / "run"
    with Recorder(run) as recorder, recorder.round(1) as stored:
        stored.add("0", UPDATE)
    (run / "round-000001.h5.replacing").touch(mode=0)

    with pytest.raises(UnusableInput, match="replacing cannot be read: Permission denied"):
        Run.open(run)
