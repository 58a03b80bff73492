"""`encagg attack`: what a captured run would look like, had some of its clients poisoned."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from encagg_cli import console
from encagg_cli.cli.arguments import parse_clients, parse_rounds
from encagg_cli.cli.progress import track


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The captured run; it is only read.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="POISONED", help="The poisoned run to write.")],
    attack: Annotated[
        list[str],
        typer.Option(metavar="NAME[(…)]", help="An attack, as in `encagg attacks`; several are run by the schedule."),
    ],
    ratio: Annotated[
        list[float] | None, typer.Option(help="Share of malicious clients (0.3); of several, one is drawn a round.")
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="Who poisons when: bernoulli(p=0.5), always, periodic(on=5,off=5), …")
    ] = "bernoulli",
    seed: Annotated[int, typer.Option(min=0, help="Decides attackers, schedule and attacks.")] = 0,
    trusted: Annotated[
        str | None, typer.Option(metavar="@FILE|id,id", help="Known-benign clients; the run's own flags.")
    ] = None,
    rounds: Annotated[str | None, typer.Option(metavar="3:10", help="Rounds to use, half-open; all.")] = None,
    alternatives: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A run of updates trained on changed labels, for label-flip.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the rounds that POISONED holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Inject attacks into captured honest rounds, and label every upload.

    Rounds that hold poisoned uploads already are left out. Known-benign clients never attack. Training is not repeated:
    a poisoned round does not change the next.

    [bold]Examples[/bold]

      encagg attack runs/honest -o runs/lie --attack lie --ratio 0.3

      encagg attack runs/honest -o runs/two --attack lie --attack min-max

      encagg attack runs/honest -o runs/on --attack lie --schedule always

      encagg attack runs/honest -o runs/aimed --attack fang-krum --ratio 0.2
    """
    from encagg_cli import attacks
    from encagg_cli.attacks.schedule import get_schedule
    from encagg_cli.federation.captured import inject
    from encagg_cli.kinds import expect_run
    from encagg_cli.rounds.reader import Run

    chosen = [attacks.get(text) for text in attack]
    expect_run(run)
    with ExitStack() as stack:
        stored = stack.enter_context(Run.open(run))
        harmful = None if alternatives is None else stack.enter_context(Run.open(alternatives))
        result = inject(
            stored,
            output,
            attacks=chosen,
            ratio=ratio or 0.3,
            schedule=get_schedule(schedule),
            seed=seed,
            trusted=None if trusted is None else parse_clients(trusted),
            rounds=parse_rounds(rounds, stored.rounds),
            alternatives=harmful,
            force=force,
            progress=lambda numbers: track(numbers, "poisoning", total=len(numbers)),
        )
    if result.left_out:
        skipped = ", ".join(str(number) for number in result.left_out[:10])
        console.note(f"left out, because they hold poisoned uploads already: rounds {skipped}")
    if as_json:
        typer.echo(json.dumps({**result.as_json(), "run": str(output)}, indent=2))
        return
    uploads = sum(poisoned.clients for poisoned in result.rounds)
    harmful_uploads = sum(poisoned.poisoned for poisoned in result.rounds)
    typer.echo(f"wrote {len(result.rounds)} rounds to {output}: {uploads} uploads, {harmful_uploads} of them poisoned")
