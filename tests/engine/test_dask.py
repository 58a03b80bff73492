"""Dask: a real scheduler and real workers, as processes of their own; one of them is killed in mid-round."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encagg_cli.engine import in_order, open_engine
from encagg_cli.errors import UsageError
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.writer import RoundWriter
from encagg_cli.sketch import GramNeed, Progress, sketch_round, sketch_run

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'encagg[dask]'")

# distributed warns of what its own shutdown leaves behind.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Cluster:
    """A scheduler and two workers, each a process."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.environment = {**os.environ, "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
        self.scheduler = self._start("distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", "--no-show")
        self.workers = [self.add_worker() for _ in range(2)]

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._start("distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", "--no-dashboard")

    @property
    def address(self) -> str:
        import json

        deadline = time.monotonic() + 60
        while not (self.file.exists() and self.file.stat().st_size):
            assert self.scheduler.poll() is None, "the scheduler did not start"
            assert time.monotonic() < deadline, "the scheduler gave no address"
            time.sleep(0.05)
        return str(json.loads(self.file.read_text())["address"])

    def wait_for_workers(self) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", module, "--scheduler-file", str(self.file), *arguments],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path)
    try:
        started.wait_for_workers()
        yield started
    finally:
        started.stop()


def slow_pid(number: int) -> tuple[int, int]:
    import os
    import time

    time.sleep(0.15)
    return number, os.getpid()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for number in (1, 2):
        writer = RoundWriter(folder, number, session="s", parameters=(Parameter("update", (300_000,), 0),))
        for client in range(9):
            writer.add(f"client-{client}", rng.standard_normal(300_000, dtype=np.float32))
        writer.close()
    return Run.open(folder)


def test_a_cluster_of_processes_gives_the_same_bits(cluster: Cluster, run: Run) -> None:
    expected = [sketch_round(run.round(number), [GramNeed()]) for number in run.rounds]
    found = list(sketch_run(run, [GramNeed()], engine="dask", scheduler=cluster.address, cache="none"))
    assert [sketch.number for sketch in found] == [1, 2]
    for sketch, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(sketch.gram.centred, other.gram.centred)
        np.testing.assert_array_equal(sketch.gram.with_reference, other.gram.with_reference)


def test_a_worker_killed_in_mid_round_changes_no_bit_of_it(cluster: Cluster, run: Run) -> None:
    expected = [sketch_round(run.round(number), [GramNeed()]) for number in run.rounds]
    killed: list[int] = []

    def kill(step: Progress) -> None:
        if not killed and 0 < step.bytes < step.n_bytes:
            killed.append(cluster.workers[0].pid)
            cluster.workers[0].kill()
            cluster.workers[0].wait()

    stream = sketch_run(
        run, [GramNeed()], engine="dask", scheduler=cluster.address, memory="60MB", cache="none", progress=kill
    )
    for sketch, other in zip(stream, expected, strict=True):
        np.testing.assert_array_equal(sketch.gram.centred, other.gram.centred)
    assert killed


def test_a_local_cluster_is_started_where_no_scheduler_is_named(run: Run) -> None:
    expected = sketch_round(run.round(1), [GramNeed()])
    (found,) = sketch_run(run, [GramNeed()], rounds=[1], engine="dask", workers=2, cache="none")
    np.testing.assert_array_equal(found.gram.centred, expected.gram.centred)


def test_a_worker_killed_amid_tasks_loses_and_doubles_nothing(cluster: Cluster) -> None:
    victim = cluster.workers[0]
    with open_engine("dask", scheduler=cluster.address) as engine:
        assert engine.workers == 2
        threading.Timer(0.5, lambda: victim.send_signal(signal.SIGKILL)).start()
        found = [result for _, result in in_order(engine, slow_pid, ((n, 1) for n in range(14)), 6)]
    assert victim.wait(timeout=20) == -signal.SIGKILL
    assert [result[0] for result in found if result is not None] == list(range(14))
    assert cluster.workers[1].pid in {result[1] for result in found if result is not None}


def test_a_scheduler_that_does_not_answer_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from encagg_cli.engine import dask

    monkeypatch.setattr(dask, "_CONNECT_SECONDS", 0.3)
    with pytest.raises(UsageError, match="no Dask scheduler answers at tcp:"):
        open_engine("dask", scheduler="tcp://127.0.0.1:9")


def test_workers_cannot_be_counted_out_to_a_scheduler() -> None:
    with pytest.raises(UsageError, match="--workers is for local workers"):
        open_engine("dask", workers=3, scheduler="tcp://127.0.0.1:9")
