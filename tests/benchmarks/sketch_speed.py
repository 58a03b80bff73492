"""Filtering a warm round, against the two things that nobody can do without: reading it once, multiplying it once.

python -m tests.benchmarks.sketch_speed [--clients 100] [--parameters 2000000] [--repeats 7] [--folder DIR]

Limits, measured in turns with ours: one plain read of the same file into a buffer; one float32 product `X @ X.T` of the
same matrix on all cores (numpy makes use of its symmetry; the product with a copy of itself, which does not, is shown
beside it); for the rules that sort, one numpy sort of the same array over clients. Ours is all that a filter takes
after the imports: opening the run, workers, reading, products, the decision. Needs a machine that is idle now and
then: see `sketch_common.take_turns`.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from encagg_cli.filters import Filter, available, get, kind_of
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import GramNeed, Sketcher
from encagg_cli.sketch.order import RankNeed
from tests.benchmarks.sketch_common import load, ratio, read_plainly, stored_run, take_turns


def all_filters(clients: int) -> list[Filter]:
    """Every filter, told that a fifth of the clients attack where it must be told."""
    return [get(name, **({"f": clients // 5} if "f" in fields_of(name) else {})) for name in available()]


def fields_of(name: str) -> Sequence[str]:
    """The settings of a filter."""
    return tuple(getattr(kind_of(name), "__dataclass_fields__", {}))


def filter_run(run: Run, filters: Sequence[Filter], workers: int | None = None) -> None:
    """Judge the first round by these filters, from the path on."""
    with Run.open(run.path) as opened, Sketcher(opened, workers=workers, cache="none") as sketcher:
        stored = opened.round(opened.rounds[0])
        needs = dict.fromkeys(need for chosen in filters for need in chosen.needs())
        sketch = sketcher(stored, needs)
        trusted = [client for client, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag]
        for chosen in filters:
            chosen.decide(sketch, trusted=trusted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    filters = all_filters(options.clients)
    by_gram = [chosen for chosen in filters if chosen.needs() == (GramNeed(),)]
    by_sorting = [chosen for chosen in filters if chosen.needs() == (RankNeed(),)]
    one = get("multi-krum", f=options.clients // 5)
    print(f"answered by the Gram matrix: {', '.join(chosen.name for chosen in by_gram)}")
    print(f"sorting: {', '.join(chosen.name for chosen in by_sorting)}")
    with stored_run(options.clients, options.parameters, options.folder) as run:
        matrix = load(run)
        copy = matrix.copy()
        taken = take_turns(
            options.repeats,
            {
                "read": partial(read_plainly, run),
                "product": lambda: matrix @ matrix.T,
                "product with a copy": lambda: matrix @ copy.T,
                "one Gram filter": partial(filter_run, run, [one]),
                "all Gram filters": partial(filter_run, run, by_gram),
            },
        )
        taken |= take_turns(
            max(1, options.repeats // 3),
            {
                "sort": lambda: np.sort(matrix, axis=0),
                "Gram filters again": partial(filter_run, run, by_gram),
                "Gram and sorting filters": partial(filter_run, run, [*by_gram, *by_sorting]),
            },
        )
    for name, times in taken.items():
        print(f"{name:<26}{sorted(times)[len(times) // 2]:>8.3f} s   (best {min(times):.3f})")
    limit = [max(read, product) for read, product in zip(taken["read"], taken["product"], strict=True)]
    floor = f"max(read, product) of {options.clients} x {options.parameters:,}"
    print(f"one Gram filter / {floor}: {ratio(taken['one Gram filter'], limit)}   must be at most 1.3")
    print(f"all Gram filters / {floor}: {ratio(taken['all Gram filters'], limit)}   must be at most 1.5")
    with_sort = [gram + sort for gram, sort in zip(taken["Gram filters again"], taken["sort"], strict=True)]
    print(
        "Gram and sorting filters / (Gram filters + one sort): "
        f"{ratio(taken['Gram and sorting filters'], with_sort)}   must be at most 1.3"
    )


if __name__ == "__main__":
    main()
