"""The share of a round that one worker computes at a time, by a worker that has the plan, or nothing but a path."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, local

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch.blocks import Buffers
from encagg_cli.sketch.compute import Combiner, Plan, Sums, combine_block, compute_block, make_plan
from encagg_cli.sketch.needs import Device, Need
from encagg_cli.sketch.stored import StoredSource

_KEPT_OPEN = 2  # rounds that a worker keeps open: the next task is nearly always of the same one


@dataclass(frozen=True)
class Share:
    """Blocks `first` to `last` of a round, `at_a_time` tiles read at once."""

    first: int
    last: int
    at_a_time: int


@dataclass(frozen=True)
class Task(ABC):
    """A share of a round to be computed: the sums of the plan's needs, or what a combiner makes of the columns."""

    share: Share

    @abstractmethod
    def plan(self) -> Plan:
        """What the round is read by."""


@dataclass(frozen=True)
class PlannedTask(Task):
    """For a thread of this process: the plan itself."""

    planned: Plan

    def plan(self) -> Plan:
        return self.planned


@dataclass(frozen=True)
class StoredTask(Task):
    """For any other worker: where the round lies. `digest` makes sure that it is still the same round."""

    run: str
    number: int
    digest: str
    needs: tuple[Need, ...]
    device: Device

    def plan(self) -> Plan:
        return _opened.plan(self)


def compute_sums(task: Task) -> list[list[Sums]]:
    """The sums of every block of the share, for every need in turn.

    Raises UnusableInput where the round cannot be read, or is another than the one that was planned.
    """
    plan, share = task.plan(), task.share
    return [
        compute_block(plan, index, _buffers(), at_a_time=share.at_a_time) for index in range(share.first, share.last)
    ]


def compute_columns(combiner: Combiner, task: Task) -> list[NDArray[np.float64]]:
    """What a combiner makes of every block of the share, (outputs, columns) each. Raises UnusableInput likewise."""
    plan, share = task.plan(), task.share
    return [
        combine_block(plan, index, _buffers(), combiner, at_a_time=share.at_a_time)
        for index in range(share.first, share.last)
    ]


def open_source(run: Run, number: int) -> StoredSource:
    """A round of a run as a source, with the round just before it, where that is stored, for the last step."""
    before = run.round(number - 1) if number - 1 in run.rounds else None
    return StoredSource(run.round(number), before)


class _Opened:
    """The plans of the rounds that this process works on."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[object, ...], Plan] = OrderedDict()
        self._lock = Lock()

    def plan(self, task: StoredTask) -> Plan:
        key = (task.run, task.number, task.digest, task.needs, task.device)
        with self._lock:
            if key not in self._plans:
                run = Run.open(Path(task.run))
                source = open_source(run, task.number)
                if source.stored.digest != task.digest:
                    raise UnusableInput(
                        f"{task.run}: round {task.number} is not what it was when the command began",
                        hint="run it again when nobody writes to the run",
                    )
                self._plans[key] = make_plan(source, task.needs, device=task.device)
                while len(self._plans) > _KEPT_OPEN:
                    self._plans.popitem(last=False)  # its files are closed when nobody reads it any more
            self._plans.move_to_end(key)
            return self._plans[key]


_opened = _Opened()
_mine = local()


def _buffers() -> Buffers:
    """This thread's buffers, kept from task to task: fresh memory costs as much as filling it."""
    if not hasattr(_mine, "buffers"):
        _mine.buffers = Buffers()
    buffers: Buffers = _mine.buffers
    return buffers
