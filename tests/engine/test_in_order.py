"""Work goes through an engine in order, a bounded amount at a time, and every piece counts once whatever dies."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from encagg_cli.engine import Engine, available_cores, in_order, open_engine
from encagg_cli.engine.base import MOST_FAILURES
from encagg_cli.errors import UsageError


def square(number: int) -> int:
    return number * number


def late_first(number: int) -> int:
    time.sleep(0.05 if number == 0 else 0)
    return number


def die_once(task: tuple[int, str]) -> int:
    """Kill this process at piece 3, unless somebody has done so before."""
    number, marker = task
    if number == 3:
        try:
            Path(marker).touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise ZeroDivisionError(f"piece {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    with open_engine(workers=workers) as engine:
        found = list(in_order(engine, late_first, ((number, 1) for number in range(6)), 4))
    assert found == [(number, number) for number in range(6)]


def test_one_worker_is_this_process_and_more_are_processes() -> None:
    with open_engine(workers=1) as alone, open_engine() as threads:
        assert alone.in_process
        assert alone.workers == 1
        assert threads.in_process
        assert threads.workers == available_cores()
    with open_engine(workers=2) as processes:
        assert not processes.in_process
        pids = {pid for _, pid in in_order(processes, _pid, ((number, 1) for number in range(8)), 8)}
    assert os.getpid() not in pids


def _pid(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def test_a_place_that_is_held_has_no_result() -> None:
    with open_engine(workers=1) as engine:
        found = list(in_order(engine, square, [(2, 1), (None, 1), (3, 1)], 2))
    assert found == [(2, 4), (None, None), (3, 9)]


def test_no_more_is_under_way_than_there_is_room_for() -> None:
    under_way, most, lock = 0, 0, threading.Lock()
    drawn = 0

    def tasks() -> Iterator[tuple[int, int]]:
        nonlocal drawn
        for number in range(20):
            drawn += 1
            yield number, 2

    def work(number: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        return number

    with open_engine() as engine:
        stream = in_order(engine, work, tasks(), 5)
        next(stream)
        assert drawn <= 4  # two under way, one waiting for room, one asked for when the first was done
        assert len(list(stream)) == 19
    assert most <= 2


def test_a_task_that_is_too_large_for_the_room_runs_alone() -> None:
    with open_engine(workers=1) as engine:
        assert [result for _, result in in_order(engine, square, [(1, 9), (2, 9)], 3)] == [1, 4]


def test_an_error_of_the_work_is_raised_where_its_result_was_due() -> None:
    with open_engine(workers=1) as engine, pytest.raises(ZeroDivisionError, match="piece 0"):
        list(in_order(engine, fail, [(0, 1), (1, 1)], 2))


def test_a_worker_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    marker = str(tmp_path / "died")
    with open_engine(workers=2) as engine:
        found = [result for _, result in in_order(engine, die_once, (((n, marker), 1) for n in range(12)), 4)]
    assert Path(marker).exists()
    assert found == list(range(12))


def test_work_that_kills_its_worker_every_time_is_given_up() -> None:
    with open_engine(workers=2) as engine:
        stream = in_order(engine, die_always, ((number, 1) for number in range(5)), 1)
        assert [next(stream)[1], next(stream)[1]] == [0, 1]
        with pytest.raises(UsageError, match=f"died {MOST_FAILURES + 1} times"):
            next(stream)


def test_leaving_early_drops_what_has_not_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        return number

    with open_engine(workers=1) as engine:
        stream = in_order(engine, work, ((number, 1) for number in range(100)), 50)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert len(begun) < 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "--workers must be 1 at least"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "--scheduler is for --engine dask"),
        ({"name": "spark"}, "no engine 'spark'"),
    ],
)
def test_engines_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_engine(**settings)  # type: ignore[arg-type]


def test_an_engine_that_cannot_be_renewed_says_that_its_workers_are_gone() -> None:
    class Gone(Engine):
        executor = None  # type: ignore[assignment]

        def close(self) -> None: ...

    with pytest.raises(UsageError, match="the workers are gone"):
        Gone().renew()
