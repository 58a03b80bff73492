"""How long recording holds a training run, against the same run without it.

python -m tests.benchmarks.capture_training [--data-dir DIR] [--repeats 7] [--rounds 10] [--clients 20] [--folder DIR]

Federated averaging on digits and, where `--data-dir` names a folder with MNIST, of a CNN on MNIST, with the settings of
`encagg simulate`. Uploads are recorded one by one, as each client ends its training (a loop by hand), or all of a round
at once after the last (as `simulate` does it: nothing is left for the recorder to do meanwhile). Each training is run
without a recorder and with one, in turns. Prints medians over the turns:

wall     time with recording / time without, less one: what a user waits. Other work on the machine disturbs it.
cpu      the same of the process's CPU time, the background thread's included: less disturbed by other work.
held     time that the training thread spent in the recorder's calls / time of the same run without them: what recording
         held, the disk included, whatever else the two runs met. On busy cores it includes waiting for one.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encagg_cli import Recorder
from encagg_cli.capture.recorder import RoundRecording
from encagg_cli.federation.loop import Federation
from encagg_cli.federation.setup import Setup
from encagg_cli.federation.simulate import plain_mean, record
from encagg_cli.rounds.memory import MemoryRound, by_name

HELD_AT_MOST = 0.10


@dataclass
class Times:
    """Seconds of one training run; `held` of them in the recorder's calls."""

    wall: float = 0.0
    cpu: float = 0.0
    held: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None, help="a folder with MNIST's files; without: digits only")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mnist-repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--mnist-rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to record to")
    options = parser.parse_args()
    say_what_machine(options.folder)
    say_load()
    print(f"{'training, uploads recorded':<30}{'a round':>10}{'wall':>9}{'cpu':>9}{'held':>9}   range of held")
    digits = Federation(Setup(clients=options.clients, rounds=options.rounds))
    measure("digits, one by one", digits, train_one_by_one, options.repeats, options.folder)
    measure("digits, at once", digits, train_at_once, options.repeats, options.folder)
    if options.data_dir is not None:
        mnist = Federation(
            Setup(
                dataset="mnist",
                data_dir=options.data_dir,
                model="cnn",
                clients=options.clients,
                rounds=options.mnist_rounds,
            )
        )
        measure("MNIST-CNN, one by one", mnist, train_one_by_one, options.mnist_repeats, options.folder)
    say_load()


Train = Callable[[Federation, Recorder | None], tuple[Times, float]]


def measure(name: str, federation: Federation, train: Train, repeats: int, folder: Path | None) -> None:
    """Train in turns without and with a recorder, and print what recording costs."""
    plain, recorded = [], []
    n_rounds = federation.setup.rounds
    for repeat in range(repeats + 1):
        without, end = train(federation, None)
        with tempfile.TemporaryDirectory(dir=folder) as temporary, Recorder(Path(temporary) / "run") as recorder:
            with_recorder, same_end = train(federation, recorder)
            if recorder.n_recorded != n_rounds or same_end != end:
                raise SystemExit("recording changed the training, or is not complete: the times mean nothing")
        if repeat:  # the first turn warms up
            plain.append(without)
            recorded.append(with_recorder)
    wall = statistics.median(b.wall / a.wall for a, b in zip(plain, recorded, strict=True)) - 1
    cpu = statistics.median(b.cpu / a.cpu for a, b in zip(plain, recorded, strict=True)) - 1
    held = sorted(times.held / (times.wall - times.held) for times in recorded)
    round_seconds = statistics.median(times.wall for times in plain) / n_rounds
    print(
        f"{name:<30}{round_seconds * 1e3:>7.0f} ms{wall:>+9.1%}{cpu:>+9.1%}{statistics.median(held):>9.1%}"
        f"   {held[0]:.1%} to {held[-1]:.1%}   goal: at most {HELD_AT_MOST:.0%}",
        flush=True,
    )


def train_at_once(federation: Federation, recorder: Recorder | None) -> tuple[Times, float]:
    """Train once, recording a round's uploads when all are there; the times, and the accuracy in the end."""
    times = Times()

    def aggregate(uploads: MemoryRound) -> Any:
        if recorder is not None:
            began = time.perf_counter()
            record(recorder, uploads)
            times.held += time.perf_counter() - began
        return mean(uploads)

    return timed(federation, aggregate, times)


def train_one_by_one(federation: Federation, recorder: Recorder | None) -> tuple[Times, float]:
    """The same, recording each upload when its client has trained."""
    if recorder is None:
        return timed(federation, mean, Times())
    times = Times()
    rounds: list[RoundRecording] = []
    train_client = federation.clients.update
    parameters = federation.model.parameters

    def update(client: int, number: int, model: Any, *more: Any) -> Any:
        trained = train_client(client, number, model, *more)
        began = time.perf_counter()
        if not rounds:
            rounds.append(recorder.round(number, global_model=by_name(parameters, model)))
        rounds[0].add(
            federation.client_ids[client],
            by_name(parameters, trained),
            num_examples=int(federation.clients.num_examples[client]),
        )
        times.held += time.perf_counter() - began
        return trained

    def aggregate(uploads: MemoryRound) -> Any:
        began = time.perf_counter()
        rounds.pop().close()
        times.held += time.perf_counter() - began
        return mean(uploads)

    federation.clients.update = update  # type: ignore[method-assign]
    try:
        return timed(federation, aggregate, times)
    finally:
        federation.clients.update = train_client  # type: ignore[method-assign]


def mean(uploads: MemoryRound) -> Any:
    return plain_mean(uploads, uploads.norms < float("inf"))


def timed(federation: Federation, aggregate: Callable[[MemoryRound], Any], times: Times) -> tuple[Times, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    accuracy = 0.0
    for trained in federation.rounds(aggregate):
        accuracy = trained.accuracy
    times.wall, times.cpu = time.perf_counter() - wall, time.process_time() - cpu
    return times, accuracy


def say_what_machine(folder: Path | None) -> None:
    """What the figures depend on, and what a single wait for the disk takes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        waits = []
        for _ in range(20):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            waits.append(time.perf_counter() - began)
    model = next(
        (line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor(),
    )
    cores = len(os.sched_getaffinity(0))
    print(f"{model}, {cores} cores, Python {platform.python_version()}; fsync {statistics.median(waits) * 1e3:.2f} ms")


def say_load() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"load {os.getloadavg()[0]:.1f} on {cores} cores: above 0.5, other work disturbs the times", flush=True)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
