"""What each part of `anchored-views` contributes: the filter without it, on the rounds of the public bench.

python -m tests.benchmarks.anchored_views_parts [--recipe all] [--data-dir MNIST] [--runs-dir DIR] [--attack …]
    [--ratio …] [--part …]

Every variant judges the same poisoned rounds. Prints for each the mean F1, over all cells and for the attack that it
changes most, honest uploads lost under attack and without, and the time. Left out by default are attacks that several
parts catch each by itself. On two cores, all parts take about an hour once the rounds are made.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pandas as pd

from encagg_cli import filters
from encagg_cli.bench import run_cell as bench
from encagg_cli.bench.plan import plan_bench
from encagg_cli.filters import Context, Decision
from encagg_cli.filters.anchored_views import AnchoredViews, scene
from encagg_cli.sketch import RoundSketch

ATTACKS = (
    "sign-flip",
    "label-flip",
    "ipm(noise=1.0)",
    "lie(noise=1.0)",
    "xfed-like",
    "adaptive",
    "adaptive(noise=0.5)",
)
PACKAGE = "encagg_cli.filters.anchored_views"
VIEWS = (
    "likeness",
    "neighbour distance",
    "unexplained part",
    "unexplained share",
    "principal axis",
    "principal direction",
    "sign unexplained share",
    "nearest signs",
    "nearest known-benign",
    "own past",
    "distance for its kind",
)

Patches = Sequence[tuple[str, Any]]


def nobody(n: int) -> np.ndarray:
    return np.zeros(n, dtype=bool)


def views_but(left_out: str) -> Callable[..., tuple[Any, ...]]:
    every = scene.Scene.views
    return lambda *args: tuple(view for view in every(*args) if view.name != left_out)


PARTS: dict[str, Patches] = {
    "nothing": (),
    "copies": [("detector.copied", lambda *_: [])],
    **{f"view: {view}": [("scene.Scene.views", views_but(view))] for view in VIEWS},
    "all views": [("scene.Scene.views", lambda *_: ())],
    "all searches for the reversed": [("detector._reversed", lambda scene, alive, *_: nobody(len(alive)))],
    "sides: who is certain": [("sides.Sides.flipped", lambda sides, _: nobody(len(sides.loss)))],
    "sides: a clear group": [("reversal._opposed", lambda sides, *_: (nobody(len(sides.loss)), -np.inf))],
    "sides: beyond chance": [("sides.Sides._is_beyond_chance", lambda _: True)],
    "sides: friends": [("sides._FRIENDSHIP", 0.0)],
    "signs": [("scene.weight_of_signs", lambda *_: 0.0)],
    "weighing": [("reversal._Telling._standing_out", lambda telling, *_: nobody(len(telling.anchors)))],
    "weighing: who hides": [("reversal._HIDING", np.inf)],
    "weighing: contrast": [("standing._CONTRAST", 0.0)],
    "weighing: collapse": [("standing._COLLAPSE", 0.0)],
    "weighing: apart": [("standing._APART", 0.0)],
    "weighing: told": [("standing._TOLD", 0.0)],
    "weighing: by signs": [("standing._BY_SIGNS", 0.0)],
    "weighing: rivals": [("standing._BEATEN", 0.0)],
    "weighing: groups of views": [("standing.Outlook.groups", lambda *_: [])],
    "joint": [("detector._joint", lambda *_: False)],
    "memory: sides": [("history.SidesHistory.rounds_of", lambda *_: ([], [], []))],
    "memory: the accused": [("reversal._still_opposed", lambda _, accused, *__: np.zeros_like(accused))],
    "memory": [("method.AnchoredViews._recall", lambda *_: scene.Past())],
    "doubt": [("method.suspect_anchor", lambda *_: None)],
    "dearer later cuts": [("detector._LATER", 1.0)],
}


@dataclass(kw_only=True)
class Without(AnchoredViews):
    """The filter, but for some of its parts."""

    patches: ClassVar[Patches] = ()

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        with ExitStack() as stack:
            for name, replacement in self.patches:
                stack.enter_context(patch(f"{PACKAGE}.{name}", replacement))
            return super().judge(sketch, context)


def variant(part: str) -> filters.Filter:
    return type(part, (Without,), {"name": part, "patches": PARTS[part]})()


def in_variants() -> None:
    """Of a worker: the bench makes its methods here."""
    bench.get = lambda text: variant(text) if text in PARTS else filters.get(text)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", nargs="+", default=["all"])
    parser.add_argument("--data-dir", type=Path, help="with the four MNIST files")
    parser.add_argument("--runs-dir", type=Path, default=Path("bench-runs"))
    parser.add_argument("--attack", nargs="+", default=ATTACKS)
    parser.add_argument("--ratio", nargs="+", type=float, default=[0.1, 0.4, 0.6])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    parts = list(dict.fromkeys(["nothing", *options.part]))
    plan = plan_bench(
        [],
        recipes=options.recipe,
        methods=["anchored-views"],
        attacks=options.attack,
        shares=options.ratio,
        seeds=1,
        known_benign=None,
        alternatives=None,
        data_dir=options.data_dir,
        runs_dir=options.runs_dir,
    )
    rows = []
    with ProcessPoolExecutor(options.workers, initializer=in_variants) as pool:
        tasks = [
            pool.submit(bench.run_cell, cell, plan.subjects[cell.run].path, parts, plan.subjects[cell.run].alternatives)
            for cell in plan.cells
        ]
        for task in tasks:
            rows += task.result()
    table = pd.DataFrame(rows)
    show(table[table.method.isin(parts)], parts)


def show(rows: pd.DataFrame, parts: Sequence[str]) -> None:
    """A line for each part: the filter's figures without it."""
    attacked = rows[rows.attack != ""]
    counts = attacked.groupby(["method", "run", "attack", "ratio"])[["tp", "fp", "tn", "fn"]].sum()
    f1 = 2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn)
    by_attack = f1.groupby(["method", "attack"]).mean().unstack()
    lost = {
        name: (sums.fp / (sums.fp + sums.tn)).groupby("method").mean()
        for name, sums in (
            ("attacked", counts),
            ("clean", rows[rows.attack == ""].groupby(["method", "run"])[["fp", "tn"]].sum()),
        )
    }
    time = rows.groupby("method").milliseconds.median()
    whole = parts[0]
    print(f"{'without':30} {'F1':>6} {'FPR':>6} {'clean':>6} {'ms':>5}  most changed")
    for part in parts:
        change = by_attack.loc[part] - by_attack.loc[whole]
        most = change.abs().idxmax()
        changed = "" if part == whole else f"{most} {change[most]:+.3f}"
        figures = f"{f1[part].mean():6.3f} {lost['attacked'][part]:6.4f} {lost['clean'][part]:6.4f} {time[part]:5.0f}"
        print(f"{part:30} {figures}  {changed}")


if __name__ == "__main__":
    main()
