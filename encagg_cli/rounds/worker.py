"""A thread that does jobs in order: hashing beside writing, recording beside training."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """A call that is done by a worker."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call: Callable[[], T] | None = call
        self._done = threading.Event()
        self._value: T
        self._error: BaseException | None = None

    def run(self) -> None:
        call, self._call = self._call, None
        assert call is not None  # jobs are run once
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error
        finally:
            del call  # or the job would keep a row alive
            self._done.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done; whether it is."""
        return self._done.wait(timeout)

    def result(self) -> T:
        """Wait for the value; raises what the call raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value


class Worker:
    """One daemon thread, started with the first job, and anew in a forked child.

    The queue may be filled from a signal handler. A daemon, because the interpreter waits for other threads before it
    calls what was registered to be done at exit, and closing a round is.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Job[Any] | None] | None = None
        self._pid = 0

    def submit(self, call: Callable[[], T]) -> Job[T]:
        """Have `call` done after all jobs before it."""
        job = Job(call)
        queue = self._running()
        if queue is None:
            job.run()
        else:
            queue.put(job)
        return job

    def stop(self) -> None:
        """Let the thread end after the jobs that it has."""
        if self._queue is not None and self._pid == os.getpid():
            self._queue.put(None)
        self._queue = None

    def __del__(self) -> None:
        with suppress(Exception):
            self.stop()

    def _running(self) -> "SimpleQueue[Job[Any] | None] | None":
        if self._queue is None or self._pid != os.getpid():
            queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
            try:
                threading.Thread(target=_work, args=(queue,), name=self._name, daemon=True).start()
            except RuntimeError:  # an interpreter that is shutting down starts no thread: the caller does the work
                return None
            self._queue, self._pid = queue, os.getpid()
        return self._queue


def _work(queue: "SimpleQueue[Job[Any] | None]") -> None:
    while (job := queue.get()) is not None:
        job.run()
        del job
