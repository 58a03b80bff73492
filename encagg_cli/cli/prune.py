"""`encagg prune`: drop the oldest rounds of a run."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from encagg_cli import console
from encagg_cli.errors import UsageError


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run, a folder.", show_default=False)],
    keep_last: Annotated[int, typer.Option(help="How many rounds stay, counted from the last.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what goes as one JSON document.")] = False,
) -> None:
    """Remove the oldest rounds of a run, and unfinished ones that a killed capture left.

    Rounds that came from a spool stay away: encagg capture --from imports them again only with --force, or if their
    files change.

    [bold]Examples[/bold]

      encagg prune runs/mnist --keep-last 100 --dry-run

      encagg prune runs/mnist --keep-last 100 --yes
    """
    from encagg_cli.kinds import expect_run
    from encagg_cli.rounds.estimate import human_bytes
    from encagg_cli.rounds.prune import plan_prune, prune

    expect_run(run)
    doomed = plan_prune(run, keep_last)
    if not (yes or dry_run or (sys.stdin is not None and sys.stdin.isatty())):
        raise UsageError("prune asks before it removes, and nobody is there to answer", hint="add --yes, or --dry-run")
    if as_json:
        files = [str(path) for item in doomed for path in item.files]
        document = {"schema": "encagg-prune-1", "run": str(run), "dry_run": dry_run, "files": files}
        document["rounds"] = [item.number for item in doomed if not item.is_unfinished]
        document["bytes"] = sum(item.n_bytes for item in doomed)
        typer.echo(json.dumps(document, indent=2))
    else:
        for item in doomed:
            names = ", ".join(path.name for path in item.files)
            what = "unfinished: " if item.is_unfinished else ""
            typer.echo(f"round {item.number}  {human_bytes(item.n_bytes):>8}  {what}{console.plain(names)}")
    rounds = console.counted(len(doomed), "round")
    total = human_bytes(sum(item.n_bytes for item in doomed))
    if not doomed:
        console.note(f"{run}: nothing to remove")
    elif dry_run:
        console.note(f"{run}: {rounds} would go, {total}")
    elif yes or typer.confirm(f"Remove {rounds} ({total})?", err=True):
        prune(run, doomed)
        console.note(f"{run}: {rounds} removed, {total}")
    else:
        console.note(f"{run}: nothing was removed")
