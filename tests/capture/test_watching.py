"""A watched spool: rounds are imported when they are complete, whole, and whatever becomes of the others."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Run
from encagg_cli.capture.importing import SpoolImporter
from encagg_cli.capture.session_folder import CaptureSettings
from encagg_cli.capture.watching import SpoolWatcher, Watched
from encagg_cli.errors import NothingToDo

FAST = {"poll": 0.02, "settle": 0.06, "grace": 1.0}
PATIENCE = 20.0


class Watch:
    """A spool that is followed in another thread."""

    def __init__(self, tmp_path: Path, idle: float | None = None, **settings) -> None:
        self.spool = tmp_path / "spool"
        self.run = tmp_path / "run"
        self.told: list[str] = []
        self.watched: Watched | None = None
        self.importer = SpoolImporter(self.run, self.spool, CaptureSettings(**settings), tell=self.told.append)
        self.watcher = SpoolWatcher(self.importer, idle=idle, tell=self.told.append, **FAST)
        self.thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        self.watched = self.watcher.follow()

    def folder(self, number: int) -> Path:
        path = self.spool / f"round-{number}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, number: int, *clients: str, done: bool = False) -> None:
        for client in clients:
            np.save(self.folder(number) / f"{client}.npy", np.full(3, number))
        if done:
            (self.folder(number) / "_done").touch()

    def rounds(self) -> list[int]:
        try:
            return list(Run.open(self.run).rounds)
        except NothingToDo:
            return []

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.told
            time.sleep(0.01)

    def end(self) -> Watched:
        self.watcher.stop()
        return self.join()

    def join(self) -> Watched:
        self.thread.join(PATIENCE)
        assert self.watched is not None, self.told
        return self.watched


@contextmanager
def watching(tmp_path: Path, idle: float | None = None, **settings) -> Iterator[Watch]:
    watch = Watch(tmp_path, idle, **settings)
    with watch.importer:
        watch.thread.start()
        try:
            yield watch
        finally:
            watch.end()


def wait_some_looks() -> None:
    time.sleep(0.3)


def test_a_round_is_complete_when_it_says_so(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a", "b")
        wait_some_looks()
        assert watch.rounds() == []
        watch.put(1, "c", done=True)
        watch.until(lambda: watch.rounds() == [1])
        assert Run.open(watch.run).round(1).client_ids == ("a", "b", "c")
        watch.until(lambda: "round 1: 3 uploads" in watch.told)


def test_a_round_is_complete_when_a_later_one_has_begun(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a")
        watch.put(2)  # a folder alone is no beginning
        wait_some_looks()
        assert watch.rounds() == []
        watch.put(3, "a")
        watch.until(lambda: watch.rounds() == [1])
        wait_some_looks()
        assert watch.rounds() == [1]
        assert watch.end().waiting == [3]


def test_a_round_is_complete_when_nothing_came_for_long(tmp_path):
    with watching(tmp_path, idle=1.0) as watch:
        for client in "abcdefgh":  # each within the time, all of them beyond it
            watch.put(1, client)
            time.sleep(0.15)
        assert watch.rounds() == []
        watch.until(lambda: watch.rounds() == [1])
        assert len(Run.open(watch.run).round(1).client_ids) == 8


def test_the_end_of_the_spool_completes_all_rounds_and_ends_the_watch(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a")
        watch.put(2, "a")
        watch.put(7)
        (watch.spool / "_end").touch()
        watched = watch.join()
    assert watched.imported == [1, 2]
    assert watched.waiting == []


def test_the_spool_may_come_later_than_the_watch(tmp_path):
    with watching(tmp_path) as watch:
        watch.until(lambda: bool(watch.told))
        assert watch.told == [f"waiting for {tmp_path / 'spool'}"]
        watch.put(1, "a", done=True)
        watch.until(lambda: watch.rounds() == [1])


def test_a_half_written_file_is_left_until_it_is_whole(tmp_path):
    np.save(tmp_path / "whole.npy", np.arange(1000.0))
    whole = (tmp_path / "whole.npy").read_bytes()
    with watching(tmp_path) as watch:
        path = watch.folder(1) / "a.npy"
        (watch.folder(1) / "_done").touch()
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(whole), 1000):
                file.write(whole[start : start + 1000])
                time.sleep(0.1)  # longer than what passes for settled
        watch.until(lambda: watch.rounds() == [1])
        np.testing.assert_array_equal(Run.open(watch.run).round(1).rows([0])[0], np.arange(1000))
        assert not watch.end().unusable


def test_files_under_temporary_names_are_waited_for_and_not_for_ever(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a")
        temporary = watch.folder(1) / "b.npy.tmp"
        temporary.touch()
        watch.put(2, "a")  # round 1 is due
        time.sleep(0.2)
        assert watch.rounds() == []
        np.save(watch.folder(1) / "b.npy", np.zeros(3))
        temporary.unlink()
        watch.until(lambda: watch.rounds() == [1])
        assert Run.open(watch.run).round(1).client_ids == ("a", "b")
        (watch.folder(2) / "c.npy.tmp").touch()  # whose writer is dead
        watch.put(3, "a")
        watch.until(lambda: watch.rounds() == [1, 2])


def test_a_round_that_cannot_be_read_is_outlived_and_tried_again_when_it_changes(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a")
        (watch.folder(1) / "b.npy").write_bytes(b"rubbish")
        watch.put(2, "a", done=True)
        watch.until(lambda: watch.rounds() == [2])
        watch.until(lambda: any("round 1 is not recorded" in message for message in watch.told))
        wait_some_looks()
        assert sum("round 1 is not recorded" in message for message in watch.told) == 1
        watch.put(1, "b")
        watch.until(lambda: watch.rounds() == [1, 2])
        assert watch.end().unusable == {}


def test_an_unusable_round_is_reported_at_the_end(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a")
        (watch.folder(1) / "b.npy").write_bytes(b"rubbish")
        (watch.spool / "_end").touch()
        watched = watch.join()
    assert list(watched.unusable) == [1]
    assert "b.npy" in str(watched.unusable[1])


def test_what_comes_after_a_round_was_imported_is_remarked_on_once(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a")
        watch.put(2, "a")
        watch.until(lambda: watch.rounds() == [1])
        (watch.folder(1) / "_done").touch()  # no change
        wait_some_looks()
        assert not any("changed" in message for message in watch.told)
        watch.put(1, "late")
        watch.until(lambda: any("changed" in message for message in watch.told))
        watch.put(1, "later")
        wait_some_looks()
        assert sum("round 1 changed after it was imported" in message for message in watch.told) == 1
        assert Run.open(watch.run).round(1).client_ids == ("a",)


def test_a_watch_that_begins_again_goes_on_where_it_was(tmp_path):
    with watching(tmp_path) as watch:
        watch.put(1, "a", done=True)
        watch.until(lambda: watch.rounds() == [1])
    with watching(tmp_path) as watch:
        watch.put(2, "a", done=True)
        watch.until(lambda: watch.rounds() == [1, 2])
        watched = watch.end()
    assert (watched.known, watched.imported) == ([1], [2])


def test_links_in_a_spool_are_never_followed(tmp_path):
    np.save(tmp_path / "elsewhere.npy", np.zeros(3))
    with watching(tmp_path) as watch:
        watch.put(1, "a", done=True)
        (watch.folder(1) / "b.npy").symlink_to(tmp_path / "elsewhere.npy")
        os.mkfifo(watch.folder(2) / "pipe.npy")
        (watch.folder(2) / "_done").touch()
        watch.put(3, "a", done=True)
        watch.until(lambda: watch.rounds() == [3])
        watch.until(lambda: sum("is not recorded" in message for message in watch.told) == 2)
        watched = watch.end()
    assert set(watched.unusable) == {1, 2}


def start_watch(tmp_path: Path, *options: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-c",
        "from encagg_cli.cli import run; run()",
        "capture",
        "run",
        "--watch",
        "spool",
        *options,
    ]
    return subprocess.Popen(command, cwd=tmp_path, text=True, stderr=subprocess.PIPE)


def stored_soon(run: Path, *numbers: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if all((run / f"round-{number:06d}.h5").exists() for number in numbers):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_watch_well_and_what_is_not_complete_is_named(tmp_path, number):
    folder = tmp_path / "spool" / "round-1"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", np.zeros(3))
    (folder / "_done").touch()
    (tmp_path / "spool" / "round-2").mkdir()
    np.save(tmp_path / "spool" / "round-2" / "a.npy", np.zeros(3))
    with start_watch(tmp_path) as watch:
        assert stored_soon(tmp_path / "run", 1)
        watch.send_signal(number)
        _, told = watch.communicate(timeout=PATIENCE)
    assert watch.returncode == 0, told
    assert "round 2 (encagg capture run --from spool)" in told


def test_a_watch_killed_at_any_moment_leaves_whole_rounds_and_the_next_one_completes_them(tmp_path):
    update = np.arange(300_000.0)
    for number in range(6):
        folder = tmp_path / "spool" / f"round-{number}"
        folder.mkdir(parents=True)
        for client in "abcd":
            np.save(folder / f"{client}.npy", update + number)
        (folder / "_done").touch()
    with start_watch(tmp_path) as watch:
        assert stored_soon(tmp_path / "run", 0)
        watch.kill()
        watch.communicate(timeout=PATIENCE)
    with start_watch(tmp_path) as watch:
        (tmp_path / "spool" / "_end").touch()
        _, told = watch.communicate(timeout=60)
    assert watch.returncode == 0, told
    run = Run.open(tmp_path / "run")
    assert run.rounds == tuple(range(6))
    for number in run.rounds:
        np.testing.assert_array_equal(run.round(number).rows(range(4)), np.tile(update + number, (4, 1)).astype("f4"))
