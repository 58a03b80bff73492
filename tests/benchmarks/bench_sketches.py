"""A bench from sketches against one that crafts every upload: `python -m tests.benchmarks.bench_sketches`.

Both ways judge the same cells of one run, in turns; the honest sketches, which are made once, are counted apart.
Prints seconds a cell and their ratio.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from unittest import mock

from encagg_cli import filters
from encagg_cli.bench import run_cell
from encagg_cli.bench.cells import Cell
from encagg_cli.bench.from_sketches import keep_sketches, needs_of
from tests.benchmarks.sketch_common import seconds, stored_run, take_turns

METHODS = ("anchored-views", "encagg", "multi-krum(f=oracle,relaxed=true)", "flame(on=updates)")
ATTACKS = ("sign-flip", "ipm(epsilon=1.0)", "min-max", "mimic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    cells = [Cell("benchmark", attack, 0.3, 0) for attack in ATTACKS]
    methods = [filters.get(text) for text in METHODS]
    needs = dict.fromkeys(need for attack in ATTACKS for need in needs_of(attack, methods) or ())
    with stored_run(options.clients, options.parameters) as run:
        making = seconds(lambda: keep_sketches(run.path, needs))

        def judge() -> None:
            for cell in cells:
                run_cell.run_cell(cell, run.path, METHODS, None)

        def craft() -> None:
            with mock.patch.object(run_cell, "needs_of", return_value=None):
                judge()

        turns: dict[str, Callable[[], object]] = {"crafted": partial(craft), "from sketches": partial(judge)}
        times = take_turns(options.turns, turns, patience=3)
        taken = {name: statistics.median(each) / len(cells) for name, each in times.items()}
    print(f"{options.clients} clients x {options.parameters:,} parameters, {len(METHODS)} methods")
    print(f"honest sketch  {making:8.3f} s, once")
    for name, each in taken.items():
        print(f"{name:14} {each:8.3f} s a cell")
    print(f"ratio          {taken['crafted'] / taken['from sketches']:8.1f}")


if __name__ == "__main__":
    main()
