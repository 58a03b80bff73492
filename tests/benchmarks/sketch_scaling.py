"""How the time of a Gram filter grows with parameters, clients and workers.

python -m tests.benchmarks.sketch_scaling [--repeats 5] [--folder DIR]

Twice the parameters should take twice the time (100 clients, 2M and 4M); two processes of one BLAS thread each should
take well under the time of one, on a round that computing limits (400 clients x 500k); clients from 20 to 1000 at 200k
parameters are shown against the n² of the Gram matrix. Needs two cores, idle now and then.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

from encagg_cli.filters import get
from encagg_cli.sketch import GramNeed, Sketcher
from tests.benchmarks.sketch_common import ratio, stored_run, take_turns
from tests.benchmarks.sketch_speed import filter_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    parameters(options.repeats, options.folder)
    workers(options.repeats, options.folder)
    clients(options.repeats, options.folder)


def parameters(repeats: int, folder: Path | None) -> None:
    one = [get("multi-krum", f=20)]
    with stored_run(100, 2_000_000, folder) as once, stored_run(100, 4_000_000, folder) as twice:
        taken = take_turns(repeats, {"2M": partial(filter_run, once, one), "4M": partial(filter_run, twice, one)})
    print(f"twice the parameters (100 x 4M / 100 x 2M): {ratio(taken['4M'], taken['2M'])}   must be 1.8 to 2.2")


def workers(repeats: int, folder: Path | None) -> None:
    """Workers that are there already: starting a process takes half a second, once a command."""
    with (
        stored_run(400, 500_000, folder) as run,
        Sketcher(run, workers=1, cache="none") as one,
        Sketcher(run, workers=2, cache="none") as two,
    ):
        stored = run.round(run.rounds[0])
        taken = take_turns(
            repeats, {"one": lambda: one(stored, [GramNeed()]), "two": lambda: two(stored, [GramNeed()])}
        )
    print(f"one worker / two, a BLAS thread each (400 x 500k): {ratio(taken['one'], taken['two'])}   at least 1.7")


def clients(repeats: int, folder: Path | None) -> None:
    base = 0.0
    print(f"{'clients':>8}{'seconds':>9}{'/ that of 20':>14}{'n² would be':>13}{'n would be':>12}{'GFLOP/s':>9}")
    for n in (20, 50, 100, 200, 500, 1000):
        with stored_run(n, 200_000, folder) as run:
            times = take_turns(repeats, {"": partial(filter_run, run, [get("multi-krum", f=n // 5)])})[""]
        middle = statistics.median(times)
        base = base or middle
        flops = n * n * 200_000 / middle / 1e9
        print(
            f"{n:>8}{middle:>9.3f}{middle / base:>14.1f}{(n / 20) ** 2:>13.1f}{n / 20:>12.1f}{flops:>9.0f}", flush=True
        )


if __name__ == "__main__":
    main()
