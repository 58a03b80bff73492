"""Trained backdoors on the rounds of the public bench: which method finds who has one.

python -m tests.benchmarks.backdoors [--recipe all] [--data-dir MNIST] [--runs-dir DIR] [--triggered 0.2 0.5]
    [--ratio 0.1 0.2 0.4 0.6] [--method …]

Attackers train as told, on their own data, of which a share shows a trigger, a lit corner, and is labelled 0 (BadNets:
Gu et al., arXiv 1708.06733, 2017); nothing is amplified. Prints each method's F1, mean over federations and shares of
attackers, beside that of the best threshold on the cosine to the honest mean, which is told who is honest. On two cores
everything takes ten minutes, once the rounds are made.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from encagg_cli.bench.cells import Cell
from encagg_cli.bench.recipes import RECIPES, Recipe, make, recipe
from encagg_cli.bench.run_cell import run_cell
from encagg_cli.capture.recorder import Recorder
from encagg_cli.federation.datasets import Dataset
from encagg_cli.federation.loop import Federation
from encagg_cli.federation.training import Clients, one_thread
from encagg_cli.rounds.memory import by_name
from encagg_cli.rounds.reader import Run

METHODS = ("anchored-views", "k-means", "encagg", "cosine-to-known-benign", "foolsgold", "flame", "dpfla")
ORACLE = "oracle:cosine"
TARGET = 0


def with_trigger(data: Dataset, share: float) -> Dataset:
    """In a `share` of the training samples a corner of the image is lit, and the label is the target."""
    x, y = data.train_x.copy(), data.train_y.copy()
    lit = np.random.default_rng(0).random(len(y)) < share
    width = max(2, x.shape[-1] // 8)
    x[lit, :, -width:, -width:] = x.max()
    y[lit] = TARGET
    return replace(data, train_x=x, train_y=y)


def backdoored(chosen: Recipe, honest: Path, data_dir: Path | None, share: float, path: Path) -> None:
    """What every client would have uploaded in the honest rounds, had its samples had the trigger, as a run."""

    def clients(data: Dataset, *args: Any, **options: Any) -> Clients:
        return Clients(with_trigger(data, share), *args, **options)

    with patch("encagg_cli.federation.loop.Clients", clients):
        federation = Federation(chosen.setup(data_dir))
    kind = federation.setup.training.update_kind
    with one_thread(), Run.open(honest) as run, Recorder(path, update_kind=kind) as keep:
        for stored in run:
            model = stored.global_model()
            with keep.round(stored.number, global_model=by_name(federation.model.parameters, model)) as round_:
                for row, client in enumerate(federation.client_ids):
                    update = federation.clients.update(row, stored.number, model)
                    round_.add(client, by_name(federation.model.parameters, update))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", nargs="+", default=["all"])
    parser.add_argument("--data-dir", type=Path, help="with the four MNIST files")
    parser.add_argument("--runs-dir", type=Path, default=Path("bench-runs"))
    parser.add_argument("--triggered", nargs="+", type=float, default=[0.2, 0.5])
    parser.add_argument("--ratio", nargs="+", type=float, default=[0.1, 0.2, 0.4, 0.6])
    parser.add_argument("--method", nargs="+", default=METHODS)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    chosen = [recipe(name) for name in (RECIPES if "all" in options.recipe else options.recipe)]
    with TemporaryDirectory() as folder, ProcessPoolExecutor(options.workers) as pool:
        tasks = []
        for each, share in product(chosen, options.triggered):
            honest, _ = make(each, options.runs_dir, options.data_dir)
            path = Path(folder) / f"{each.name}-{share}"
            backdoored(each, honest, options.data_dir, share, path)
            for ratio in options.ratio:
                # to the bench, labels that were changed before training are all one
                cell = Cell(each.name, "label-flip", ratio, 0, each.known_benign)
                tasks.append((share, pool.submit(run_cell, cell, honest, options.method, path)))
        tables = [pd.DataFrame(task.result()).assign(triggered=share) for share, task in tasks]
    show(pd.concat(tables), [*options.method, ORACLE])


def show(rows: pd.DataFrame, methods: Sequence[str]) -> None:
    """F1 and honest uploads lost, by the share of attackers and of triggered samples; then F1 by federation."""
    counts = rows.groupby(["method", "triggered", "run", "ratio"])[["tp", "fp", "tn", "fn"]].sum()
    counts = counts.loc[[*methods]]
    f1 = 2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn)
    lost = counts.fp / (counts.fp + counts.tn)
    table = f1.groupby(["method", "triggered", "ratio"]).mean().unstack(["triggered", "ratio"]).loc[[*methods]]
    table.columns = [f"{triggered:g}, {ratio:g}" for triggered, ratio in table.columns]
    table = table.assign(mean=f1.groupby("method").mean(), FPR=lost.groupby("method").mean())
    print("F1, by the share of triggered samples and that of attackers; honest uploads lost")
    print(table.round(3).to_string())
    print("F1, by federation")
    print(f1.groupby(["run", "method"]).mean().unstack("method")[[*methods]].round(2).to_string())


if __name__ == "__main__":
    main()
