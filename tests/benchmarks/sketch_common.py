"""What the sketch's benchmarks share: rounds to filter, limits of the machine to compare with, and honest ratios."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.writer import RoundWriter

TRUSTED = 10
PIECE = 2**24


@contextmanager
def stored_run(clients: int, parameters: int, folder: Path | None = None, *, rounds: int = 1) -> Iterator[Run]:
    """A run of random rounds in a temporary folder; the first ten clients are known-benign."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        rng = np.random.default_rng(0)
        update = np.empty(parameters, dtype=np.float32)
        for number in range(rounds):
            writer = RoundWriter(
                Path(temporary) / "run",
                number,
                session="benchmark",
                parameters=(Parameter("update", (parameters,), 0),),
            )
            for client in range(clients):
                rng.standard_normal(out=update, dtype=np.float32)
                writer.add(f"client-{client:05d}", update, trusted=client < TRUSTED, num_examples=100)
            writer.close()
        yield Run.open(Path(temporary) / "run")


def load(run: Run) -> NDArray[np.float32]:
    """(clients, parameters): the first round in memory."""
    with run.round(run.rounds[0]) as stored:
        return stored.rows(range(len(stored.client_ids)))


def read_plainly(run: Run) -> None:
    """Read the first round's files from end to end into one buffer of 16 MiB."""
    buffer = memoryview(bytearray(PIECE))
    for shard in run.round(run.rounds[0]).shards:
        descriptor = os.open(shard.path, os.O_RDONLY)
        try:
            offset = 0
            while got := os.preadv(descriptor, [buffer], offset):
                offset += got
        finally:
            os.close(descriptor)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def take_turns(repeats: int, work: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each piece of work, in turns, so that whatever else the machine does meets all of them alike."""
    for one in work.values():
        one()  # warm
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, one in work.items():
            taken[name].append(seconds(one))
    return taken


def ratio(ours: list[float], limit: list[float]) -> str:
    """The median of the ratios within each turn, and their range."""
    ratios = sorted(a / b for a, b in zip(ours, limit, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def say_how_busy() -> None:
    """Other work on the cores makes every figure meaningless, and products over all cores most of all."""
    busy = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    note = "" if busy < 0.3 * cores + 1 else ": THE MACHINE IS BUSY, do not believe these figures"
    print(f"load {busy:.1f} on {cores} cores{note}", flush=True)
