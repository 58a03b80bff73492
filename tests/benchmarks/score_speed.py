"""How fast a million verdicts are scored, and how much memory that takes.

    python tests/benchmarks/score_speed.py [ROWS]

Writes a table of 100 clients, scores it three times after imports (with labels of its own and from a label file) and
prints the best time, and the memory that the process took beyond what it had after imports.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from encagg_cli.filters import Decision
from encagg_cli.score.labels import read_labels
from encagg_cli.score.scorer import score_verdicts
from encagg_cli.verdicts.reader import Verdicts
from encagg_cli.verdicts.writer import VerdictWriter

CLIENTS = tuple(f"client-{number:03d}" for number in range(100))


def write(path: Path, labels: Path, rounds: int) -> None:
    """Two attacks, a clean round in five, five known-benign clients."""
    generator = np.random.default_rng(0)
    with VerdictWriter(path, signature={}) as writer, labels.open("w") as stream:
        stream.write("round,client_id,poisoned\n")
        for number in range(rounds):
            poisoned = (generator.random(100) < 0.3) & (number % 5 > 0) & (np.arange(100) >= 5)
            scores = generator.random(100) + 0.3 * poisoned
            decision = Decision(CLIENTS, scores < 0.7, scores, ("kept",) * 100)
            truth = dict(zip(CLIENTS, poisoned.tolist(), strict=True))
            attack = {client: ("lie", "min-max")[number % 2] for client, bad in truth.items() if bad}
            writer.add_round(number, [("encagg", decision)], set(CLIENTS[:5]), truth, attack)
            stream.writelines(f"{number},{client},{int(bad)}\n" for client, bad in truth.items())


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path, labels = Path(folder) / "v.parquet", Path(folder) / "labels.csv"
        write(path, labels, rows // 100)
        for what in ("its own labels", "labels from CSV"):
            before, times = peak(), []
            for _ in range(3):
                start = time.perf_counter()
                with Verdicts(path) as verdicts:
                    score_verdicts(verdicts, read_labels(labels) if what == "labels from CSV" else None)
                times.append(time.perf_counter() - start)
            print(f"{rows:,} verdicts, {what}: {min(times):.2f} s; peak memory {before:.0f} -> {peak():.0f} MiB")


if __name__ == "__main__":
    main()
