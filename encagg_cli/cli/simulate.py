"""`encagg simulate`: real federated training under attack, captured as it goes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encagg_cli import console

if TYPE_CHECKING:
    from encagg_cli.federation.simulate import RoundReport, SimulationResult


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run to write: a directory that is not there yet.")],
    dataset: Annotated[str, typer.Option(help="digits (bundled), or mnist, cifar10 from --data-dir.")] = "digits",
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the data set's own files.")] = None,
    model: Annotated[str | None, typer.Option(help="logistic, mlp or cnn; the data set's default.")] = None,
    clients: Annotated[int, typer.Option(help="How many clients take part.")] = 20,
    rounds: Annotated[int, typer.Option(help="How many rounds to train.")] = 10,
    trusted: Annotated[int, typer.Option(help="How many clients are known-benign: the first ones.")] = 4,
    partition: Annotated[str, typer.Option(help="How data is divided: iid or dirichlet.")] = "dirichlet",
    alpha: Annotated[float, typer.Option(help="Dirichlet's parameter; smaller is more uneven.")] = 0.5,
    algorithm: Annotated[str, typer.Option(help="fedavg (weight deltas) or fedsgd (one batch's gradient).")] = "fedavg",
    epochs: Annotated[int | None, typer.Option(help="Local epochs of FedAvg.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples in a batch.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The clients' in FedAvg, the server's in FedSGD.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(metavar="NAME[(…)]", help="An attack; several are run by the schedule's choice.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="Largest share of poisoned uploads in a round; 0.3 with an attack.")
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="Who poisons when: bernoulli(p=0.5), always, periodic(on=5,off=5), …")
    ] = "bernoulli",
    method: Annotated[
        str | None, typer.Option(metavar="NAME[(…)]", help="The filter in the loop; none for the plain mean.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides data, training, attackers and attacks.")] = 0,
    dtype: Annotated[str, typer.Option(help="How updates are stored: float32, float16 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="Where clients train: cpu or cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace rounds that RUN holds already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a real federation under attack, and record every upload with the truth about it.

    The filter in the loop decides what the next model is made of. Known-benign clients never attack.

    [bold]Examples[/bold]

      encagg simulate runs/lie --attack lie --ratio 0.6 --method encagg

      encagg simulate runs/two --attack lie --attack min-max --schedule always

      encagg simulate runs/mnist --dataset mnist --data-dir data --model cnn
    """
    from encagg_cli.federation.setup import Setup
    from encagg_cli.federation.simulate import simulate

    options: dict[str, Any] = {
        "dataset": dataset,
        "data_dir": data_dir,
        "model": model,
        "clients": clients,
        "rounds": rounds,
        "trusted": trusted,
        "partition": partition,
        "alpha": alpha,
        "algorithm": algorithm,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "attacks": tuple(attack or ()),
        "ratio": ratio,
        "schedule": schedule,
        "method": None if method == "none" else method,
        "seed": seed,
        "dtype": dtype,
        "device": device,
    }
    result = simulate(Setup(**options), run=run, force=force, progress=_show_round)
    if as_json:
        typer.echo(json.dumps({**result.as_json(), "run": str(run)}, indent=2))
    else:
        _summarise(run, result)
    if result.diverged:
        console.warn(f"the training diverged in round {result.rounds[-1].number} and was ended there")


def _show_round(report: "RoundReport") -> None:
    """One line of the table on stderr, as soon as the round is done."""
    if report.number == 0:
        console.note("round  accuracy  poisoned  rejected = poisoned + honest + known-benign  attack")
    poisoned = f"{report.poisoned}/{report.clients}"
    attacks = ", ".join(report.attacks) or "-"
    console.note(
        f"{report.number:5d}  {report.accuracy:8.3f}  {poisoned:>8}  {report.rejected:8d}   {report.caught:8d}"
        f"   {report.lost:6d}   {report.known_benign_lost:12d}  {attacks}"
    )


def _summarise(run: Path, result: "SimulationResult") -> None:
    poisoned = sum(report.poisoned for report in result.rounds)
    rounds = console.counted(len(result.rounds), "round")
    uploads = sum(report.clients for report in result.rounds)
    typer.echo(f"recorded {rounds} in {run}: {console.counted(uploads, 'upload')}, {poisoned:,} of them poisoned")
    loop = "the plain mean" if result.method is None else result.method
    typer.echo(f"accuracy {result.initial_accuracy:.3f} -> {result.final_accuracy:.3f} with {loop} in the loop")
