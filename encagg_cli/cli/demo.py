"""`encagg demo`: all of it on real data in under a minute."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encagg_cli import console

if TYPE_CHECKING:
    from encagg_cli.federation.setup import Setup
    from encagg_cli.score.scorer import MethodScore

# Multi-Krum is told the largest number of attackers (60 % of 20), which is beyond what its theory allows.
METHODS = ("anchored-views", "encagg", "multi-krum(f=12,relaxed=true)", "cosine-to-known-benign")
CLIENTS = 20
KNOWN_BENIGN = 4
ROUNDS = 12
ATTACKS = ("lie", "sign-flip", "min-max")
LARGEST_SHARE = 0.6


def command(
    keep: Annotated[
        Path | None, typer.Option(help="Keep the captured run and the verdicts in this folder.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides data, training, attackers and attacks.")] = 0,
) -> None:
    """Train, capture, filter and score a small federation under attack, in under a minute.

    20 clients learn scikit-learn's digits; up to 12 of them poison, and decide afresh in every round whether to.
    Nothing is downloaded.

    [bold]Examples[/bold]

      encagg demo

      encagg demo --keep demo
    """
    from tempfile import TemporaryDirectory

    from encagg_cli.errors import OutputExists
    from encagg_cli.outputs import writing

    if keep is not None:
        if keep.exists():
            raise OutputExists(f"{keep} exists", hint="give another name")
        with writing(keep):
            keep.mkdir()
        _demonstrate(keep, seed)
        console.note(
            f"kept: {keep}/run, {keep}/verdicts.parquet; try: encagg score {keep}/verdicts.parquet --by attack"
        )
        return
    with TemporaryDirectory(prefix="encagg-demo-") as folder:
        _demonstrate(Path(folder), seed)
    console.note("next: encagg demo --keep demo, to look at what was stored; then the README for your own training")


def _demonstrate(folder: Path, seed: int) -> None:
    from encagg_cli.federation.setup import Setup
    from encagg_cli.federation.simulate import simulate
    from encagg_cli.filters import get
    from encagg_cli.rounds.reader import Run
    from encagg_cli.score.scorer import score_verdicts
    from encagg_cli.sketch import Sketcher
    from encagg_cli.verdicts.filtering import Outputs, filter_run
    from encagg_cli.verdicts.reader import Verdicts
    from encagg_cli.verdicts.replay import name_methods, resolve_trusted

    def setup(method: str | None = None, *, attacked: bool = True) -> "Setup":
        return Setup(
            clients=CLIENTS,
            rounds=ROUNDS,
            trusted=KNOWN_BENIGN,
            attacks=ATTACKS if attacked else (),
            ratio=LARGEST_SHARE if attacked else None,
            method=method,
            seed=seed,
        )

    with console.stderr().status("training without attack") as status:
        accuracies = {"no attack, no filter": simulate(setup(attacked=False)).final_accuracy}
        status.update("training under attack, and capturing every upload")
        accuracies["attacked, no filter"] = simulate(setup(), run=folder / "run").final_accuracy
        for method in METHODS:
            status.update(f"training under attack, with {method} in the loop")
            accuracies[method] = simulate(setup(method)).final_accuracy
        status.update("filtering the captured run")
        methods = name_methods(get(text) for text in METHODS)
        with Run.open(folder / "run") as run, Sketcher(run) as sketcher:
            filter_run(
                run,
                methods,
                sketcher,
                Outputs(folder / "verdicts.parquet"),
                rounds=run.rounds,
                trusted=resolve_trusted(run, None),
            )
    scored = score_verdicts(Verdicts(folder / "verdicts.parquet"))
    _print(scored.methods, accuracies)


def _print(scores: "tuple[MethodScore, ...]", accuracies: dict[str, float]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    unfiltered = ("attacked, no filter", "no attack, no filter")
    first = scores[0].total
    poisoned, uploads = first.count("tp") + first.count("fn"), first.count("uploads")
    headings = {"precision": "precision", "recall": "recall", "f1": "F1", "fpr": "FPR"}

    def make(left_out: frozenset[str]) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left", title=_title(poisoned, uploads))
        table.add_column("filter", overflow="fold", min_width=console.name_width((*METHODS, *unfiltered)))
        kept = [name for name, heading in headings.items() if heading not in left_out]
        for name in kept:
            table.add_column(headings[name], justify="right")
        table.add_column("accuracy with\nit in the loop", justify="right")
        for score in scores:
            shown = [_percent(score.total.figures[name]) for name in kept]
            table.add_row(score.method, *shown, _percent(accuracies[score.method]))
        table.add_section()
        for label in unfiltered:
            table.add_row(label, *[""] * len(kept), _percent(accuracies[label]))
        return table

    console.stdout().print(console.narrowed(make, ("precision", "recall", "FPR", "F1")))
    console.note(
        f"Counted without the uploads of {KNOWN_BENIGN} known-benign clients. FPR: honest uploads rejected. multi-krum "
        f"was told the number of attackers, {int(LARGEST_SHARE * CLIENTS)} of {CLIENTS}, where its theory ends at "
        f"{(CLIENTS - 3) // 2}: relaxed. The others know those {KNOWN_BENIGN} clients."
    )


def _title(poisoned: int, uploads: int) -> str:
    counted = f"{poisoned} of {uploads} uploads are poisoned"
    return f"{ROUNDS} rounds, {CLIENTS} clients, {counted} ({', '.join(ATTACKS)})"


def _percent(value: Any) -> str:
    return "-" if value is None else f"{value:.1%}"
