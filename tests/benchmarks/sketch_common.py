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

CORES = len(os.sched_getaffinity(0))
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


def take_turns(repeats: int, work: Mapping[str, Callable[[], object]], patience: int = 20) -> dict[str, list[float]]:
    """Seconds of each piece of work, in turns.

    A turn during which other programs took more than a twentieth of the cores is thrown away and made again, up to
    `patience` times as many turns as asked for; with less than half of what was asked for, it says so.
    """
    for one in work.values():
        one()  # warm
    taken: dict[str, list[float]] = {name: [] for name in work}
    thrown_away: list[dict[str, float]] = []
    for _ in range(repeats * patience):
        before, began = others_seconds(), time.perf_counter()
        turn = {name: seconds(one) for name, one in work.items()}
        lost = others_seconds() - before
        if lost > 0.05 * (time.perf_counter() - began) * CORES + 0.03:
            thrown_away.append(turn)
            continue
        for name, value in turn.items():
            taken[name].append(value)
        if len(taken[name]) == repeats:
            break
    kept = len(next(iter(taken.values())))
    print(f"{kept} turns, and {len(thrown_away)} thrown away because other programs were busy", flush=True)
    if 2 * kept < repeats:
        print("THE MACHINE IS BUSY: do not believe these figures", flush=True)
        for turn in thrown_away[-repeats:]:
            for name, value in turn.items():
                taken[name].append(value)
    return taken


def others_seconds() -> float:
    """Processor seconds that other programs than this one and its children have taken since the machine started."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(fields[:3]) + sum(fields[5:8])  # user, nice, system, irq, softirq, steal
    return (busy - sum(_ticks(process) for process in (os.getpid(), *children()))) / tick


def _ticks(process: int) -> int:
    """Clock ticks of a process and of those of its children that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])


def children() -> list[int]:
    """Processes that this one has started, and theirs."""
    found: list[int] = []
    ahead = [os.getpid()]
    while ahead:
        process = ahead.pop()
        try:
            tasks = list(Path(f"/proc/{process}/task").iterdir())
            new = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
        found += new
        ahead += new
    return found


def ratio(ours: list[float], limit: list[float]) -> str:
    """The median of the ratios within each turn, and their range."""
    ratios = sorted(a / b for a, b in zip(ours, limit, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
