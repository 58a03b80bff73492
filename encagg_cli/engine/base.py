"""What an engine is, and how work goes through one: in order, a bounded amount at a time, each piece counted once."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from encagg_cli.errors import UsageError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

MOST_FAILURES = 3  # workers lost in a row without a single result in between


class Engine(ABC):
    """Workers behind an executor.

    workers    how many there are
    in_process whether they are threads of this process, which see its objects and memory
    """

    workers: int
    in_process: bool

    @property
    @abstractmethod
    def executor(self) -> Executor:
        """The executor that is in use now."""

    def renew(self) -> None:
        """Replace an executor that broke because a worker died."""
        raise UsageError("the workers are gone")

    @abstractmethod
    def close(self) -> None:
        """Drop what has not begun, and let the workers go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class _Pending(Generic[TaskT, ResultT]):
    task: TaskT | None
    cost: int
    future: "Future[ResultT | None]"


def in_order(
    engine: Engine,
    function: Callable[[TaskT], ResultT],
    tasks: Iterable[tuple[TaskT | None, int]],
    room: int,
) -> Iterator[tuple[TaskT | None, ResultT | None]]:
    """Run tasks on an engine; yield each with its result, in the order of the tasks.

    A task that is None holds a place in that order: nothing is run for it, and its result is None.

    Every task comes with its cost, and at most `room` is under way or waiting to be fetched at a time (one task always
    may be). When a worker dies, the tasks whose results had not arrived are run again on new workers: a result is
    yielded once, whatever happened before. Raises UsageError where workers die again and again.
    """
    upcoming = iter(tasks)
    ahead = next(upcoming, None)
    pending: deque[_Pending[TaskT, ResultT]] = deque()
    taken = 0
    failures = 0
    try:
        while pending or ahead is not None:
            while ahead is not None and (not pending or taken + ahead[1] <= room):
                task, cost = ahead
                pending.append(_Pending(task, cost, _submit(engine, function, task)))
                taken += cost
                ahead = next(upcoming, None)
            first = pending[0]
            try:
                result = first.future.result()
            except BrokenExecutor as error:
                failures += 1
                if failures > MOST_FAILURES:
                    raise UsageError(
                        f"a worker died {failures} times over the same piece of work",
                        hint="out of memory, perhaps: try fewer --workers, or less --memory where the command takes it",
                    ) from error
                engine.renew()
                for item in pending:
                    if not _arrived(item.future):
                        item.future = _submit(engine, function, item.task)
                continue
            failures = 0
            pending.popleft()
            taken -= first.cost
            yield first.task, result
    finally:
        for item in pending:
            item.future.cancel()


def _submit(engine: Engine, function: Callable[[TaskT], ResultT], task: TaskT | None) -> "Future[ResultT | None]":
    """Hand a task in. An executor that has broken meanwhile refuses it: that shows when the result is asked for."""
    settled: Future[ResultT | None] = Future()
    if task is None:
        settled.set_result(None)
        return settled
    try:
        return cast("Future[ResultT | None]", engine.executor.submit(function, task))
    except BrokenExecutor as error:
        settled.set_exception(error)
        return settled


def _arrived(future: "Future[ResultT | None]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
