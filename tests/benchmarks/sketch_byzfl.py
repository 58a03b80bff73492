"""Against ByzFL (from PyPI) on the same data: theirs in memory as torch tensors, ours from the disk.

python -m tests.benchmarks.sketch_byzfl [--clients 100] [--parameters 1000000] [--repeats 5] [--folder DIR]

Needs `pip install byzfl`. Multi-Krum alone, and all filters that both have, in turns. Theirs returns an aggregate, ours
decides on every client: a second comparison has ours write the aggregates as well (`--aggregate`, one more pass over
the file). Torch may use all cores. Needs a machine that is idle now and then: see `sketch_common.take_turns`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from byzfl import Average, CenteredClipping, Clipping, GeometricMedian, Krum, Median, MultiKrum, TrMean

from encagg_cli.filters import get
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import Sketcher
from encagg_cli.verdicts.aggregates import AggregateWriter
from encagg_cli.verdicts.replay import judge_source, name_methods
from tests.benchmarks.sketch_common import load, ratio, stored_run, take_turns


def filter_run(run: Run, texts: Sequence[str], aggregate: bool) -> None:
    """Judge the first round, from the path on, and write the aggregates where they are wanted."""
    methods = name_methods([get(text) for text in texts])  # afresh: some look back at what they did before
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.open(run.path) as opened,
        Sketcher(opened, cache="none") as sketcher,
    ):
        stored = opened.round(opened.rounds[0])
        verdicts = judge_source(stored, stored, methods, frozenset(), sketcher)
        if aggregate:
            with AggregateWriter(Path(folder) / "aggregates.h5", opened, sketcher, methods) as writer:
                writer.add(verdicts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    f = options.clients // 5
    both = {
        "mean": Average(),
        "median": Median(),
        "trimmed-mean": TrMean(f),
        "rfa": GeometricMedian(),
        "krum": Krum(f),
        "multi-krum": MultiKrum(f),
        "centred-clipping": CenteredClipping(),
        "norm-bound": Clipping(),
    }
    told = ("trimmed-mean", "krum", "multi-krum")
    ours = {name: f"{name}(f={f})" if name in told else name for name in both}
    with stored_run(options.clients, options.parameters, options.folder) as run:
        tensors = torch.from_numpy(load(run))
        taken = take_turns(
            options.repeats,
            {
                "Multi-Krum, ByzFL": partial(both["multi-krum"], tensors),
                "Multi-Krum, ours": partial(filter_run, run, [ours["multi-krum"]], False),
                "Multi-Krum and aggregate, ours": partial(filter_run, run, [ours["multi-krum"]], True),
                "all, ByzFL": lambda: [theirs(tensors) for theirs in both.values()],
                "all, ours": partial(filter_run, run, list(ours.values()), False),
                "all and aggregates, ours": partial(filter_run, run, list(ours.values()), True),
            },
        )
    for name, times in taken.items():
        print(f"{name:<32}{sorted(times)[len(times) // 2]:>8.3f} s   (best {min(times):.3f})")
    print(f"{options.clients} clients x {options.parameters:,}; all: {', '.join(both)}")
    for theirs, mine, least in (
        ("Multi-Krum, ByzFL", "Multi-Krum, ours", "must be at least 4"),
        ("Multi-Krum, ByzFL", "Multi-Krum and aggregate, ours", ""),
        ("all, ByzFL", "all, ours", "must be at least 10"),
        ("all, ByzFL", "all and aggregates, ours", ""),
    ):
        print(f"{theirs} / {mine}: {ratio(taken[theirs], taken[mine])}   {least}")


if __name__ == "__main__":
    main()
