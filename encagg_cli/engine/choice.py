"""Which engine a command runs on."""

import os
from typing import Final, Literal

from encagg_cli.engine.base import Engine
from encagg_cli.engine.local import Processes, Threads
from encagg_cli.errors import UsageError

EngineName = Literal["local", "dask"]
ENGINES: Final[tuple[EngineName, ...]] = ("local", "dask")


def open_engine(name: EngineName = "local", *, workers: int | None = None, scheduler: str | None = None) -> Engine:
    """Start an engine.

    `local` without a number of workers is one thread a core, within this process; with a number, that many processes
    (1: this process alone). `dask` is the cluster behind `scheduler`, or a local one. Raises UsageError.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be 1 at least, not {workers}")
    if name == "dask":
        from encagg_cli.engine.dask import Dask

        if scheduler is not None and workers is not None:
            raise UsageError("--workers is for local workers: a Dask scheduler has its own", hint="leave it out")
        return Dask(scheduler, workers or available_cores())
    if name != "local":
        raise UsageError(f"there is no engine {name!r}", hint=f"choose from {', '.join(ENGINES)}")
    if scheduler is not None:
        raise UsageError("--scheduler is for --engine dask")
    if workers is None or workers == 1:
        return Threads(workers or available_cores())
    return Processes(workers)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
