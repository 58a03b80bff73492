"""Workers on this machine: threads of this process, or processes of their own."""

import multiprocessing
import signal
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from encagg_cli.engine.base import Engine


class Threads(Engine):
    """Threads: numpy and file reads let others work while they do. Nothing is copied between workers."""

    in_process = True

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="encagg")

    @property
    def executor(self) -> Executor:
        return self._executor

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


class Processes(Engine):
    """Processes, started afresh (not forked: a fork would inherit locks that other threads hold)."""

    in_process = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor = self._start()

    @property
    def executor(self) -> Executor:
        return self._executor

    def renew(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = self._start()

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_interrupts_to_the_parent
        )


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the parent stops the workers, and they need not say so each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
