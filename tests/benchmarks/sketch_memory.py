"""The memory that a pass takes is bounded, whatever the size of the round.

python -m tests.benchmarks.sketch_memory [--shapes 100x1000000 100x20000000] [--limit 512MB] [--folder DIR]
        [--sparse 100x80000000]

Filters each round (multi-krum, median and trimmed-mean: a Gram matrix and ranks) on threads, and on
two processes, and prints the peak of the anonymous memory of all workers together above what their interpreters took
before, sampled every 5 ms from /proc (Linux). `--sparse` names a round that would not fit into this machine's memory:
its file is mostly holes, which read as zeros, so that it takes no disk (multi-krum alone).
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from encagg_cli.filters import get
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.writer import RoundWriter
from encagg_cli.sketch import Sketcher
from encagg_cli.sketch.memory import parse_size
from tests.benchmarks.sketch_common import children, stored_run

METHODS = ("multi-krum(f=20)", "median", "trimmed-mean(f=20)")
GRAM_METHODS = METHODS[:1]  # zeros are all ties, and counting the ranks of ties takes its time


class Watch:
    """Peak anonymous memory of this process and its children, above what each had when it was first seen."""

    def __init__(self) -> None:
        self.peak = 0
        self._own = anonymous(os.getpid())
        self._children: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def settle(self) -> None:
        """Take the children's memory of now as their interpreters' own."""
        self._own = anonymous(os.getpid())
        self._children = {child: anonymous(child) for child in children()}
        self.peak = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.005):
            used = anonymous(os.getpid()) - self._own
            for child in children():
                used += anonymous(child) - self._children.get(child, 0)
            self.peak = max(self.peak, used)


def anonymous(process: int) -> int:
    """Bytes of anonymous memory that a process has in use."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Anonymous:"))


@contextmanager
def sparse_run(clients: int, parameters: int, folder: Path | None) -> Iterator[Run]:
    """A round whose rows are a few values at either end and holes between; rows of zeros but for the first columns."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "run"
        head = np.random.default_rng(0).standard_normal((clients, 4096)).astype(np.float32)
        writer = RoundWriter(path, 0, session="benchmark", parameters=(Parameter("update", (parameters,), 0),))
        update = np.zeros(parameters, dtype=np.float32)
        for client in range(clients):
            update[:4096] = head[client]
            writer.add(f"client-{client:05d}", update)
            punch_holes(next(path.glob("*.partial")))
        writer.close()
        yield Run.open(path)


def punch_holes(path: Path) -> None:
    """Give zeros on the disk back to it."""
    os.system(f"fallocate --dig-holes {path}")


def measure(run: Run, methods: Sequence[str], limit: str, workers: int | None) -> tuple[float, int]:
    """Seconds of filtering the first round, and its peak of anonymous memory."""
    filters = [get(method) for method in methods]
    needs = dict.fromkeys(need for chosen in filters for need in chosen.needs())
    with Sketcher(run, memory=limit, workers=workers, cache="none") as sketcher, Watch() as watch:
        stored = run.round(0)
        if workers is not None and workers > 1:  # let the processes start and import, on a round of nothing
            for future in [sketcher._engine.executor.submit(os.getpid) for _ in range(workers)]:
                future.result()
        time.sleep(0.1)
        watch.settle()
        began = time.perf_counter()
        sketch = sketcher(stored, needs)
        for chosen in filters:
            chosen.decide(sketch)
        return time.perf_counter() - began, watch.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", default=["100x1000000", "100x20000000"])
    parser.add_argument("--sparse", nargs="*", default=[])
    parser.add_argument("--limit", default="512MB")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    free = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    print(f"limit {options.limit}; free memory of this machine {free / 1e9:.1f} GB; methods {', '.join(METHODS)}")
    for make, methods, shapes in (
        (stored_run, METHODS, options.shapes),
        (sparse_run, GRAM_METHODS, options.sparse),
    ):
        for shape in shapes:
            clients, parameters = map(int, shape.split("x"))
            with make(clients, parameters, options.folder) as run:
                for workers in (None, 2):
                    taken, peak = measure(run, methods, options.limit, workers)
                    print(
                        f"{clients} x {parameters:,} ({4e-9 * clients * parameters:.1f} GB), "
                        f"{'threads' if workers is None else f'{workers} processes'}: {taken:.1f} s, peak "
                        f"{peak / 1e6:.0f} MB of anonymous memory, {peak / parse_size(options.limit):.2f} of the limit",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
