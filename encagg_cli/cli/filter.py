"""`encagg filter`: run filters over stored rounds and write a verdict for every client and round."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from encagg_cli.cli.arguments import parse_clients, parse_rounds, parse_settings
from encagg_cli.errors import UsageError

if TYPE_CHECKING:
    from encagg_cli.filters import Filter


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The stored rounds: a folder, or one packed file.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where the verdicts go (Parquet).", show_default=False)
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(help="A filter, such as encagg or 'multi-krum(f=8)'; may be repeated; all runs every one."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of a filter: NAME.key=value; may be repeated.")
    ] = None,
    trusted: Annotated[
        str | None, typer.Option(help="Known-benign clients: id,id or @FILE. Default: the run's own flags.")
    ] = None,
    rounds: Annotated[str | None, typer.Option(help="Which rounds: 3:10 (10 is not included), 7, or 3:5,9:")] = None,
    trace: Annotated[Path | None, typer.Option(help="Keep what pictures need (radius, pseudo-gradients) here.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Go on from this file, and keep here what filters carry to later rounds.")
    ] = None,
    non_finite: Annotated[
        Literal["reject", "error"],
        typer.Option(help="A NaN or infinite update is rejected, or ends the command (exit 4)."),
    ] = "reject",
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
) -> None:
    """Run filters over stored rounds and write a verdict for every client and round.

    [bold]Examples[/bold]

      encagg filter runs/mnist -o verdicts.parquet

      encagg filter runs/mnist -o verdicts.parquet --method encagg --method 'multi-krum(f=8)'

      encagg filter runs/mnist -o verdicts.parquet --trusted hospital-1,hospital-2 --rounds 10:20
    """
    from encagg_cli.cli.progress import track
    from encagg_cli.cli.summary import as_document, print_summary
    from encagg_cli.rounds.reader import Run
    from encagg_cli.sketch import sketch_round
    from encagg_cli.verdicts.filtering import Outputs, filter_run
    from encagg_cli.verdicts.replay import name_methods, refuse_non_finite, resolve_trusted

    outputs = Outputs(output, trace, state, force)
    outputs.refuse_existing()
    methods = name_methods(make_filters(method or [], settings or []))
    needs = tuple(dict.fromkeys(need for chosen in methods.values() for need in chosen.needs()))
    with Run.open(run) as stored:
        numbers = parse_rounds(rounds, stored.rounds)
        known_benign = resolve_trusted(
            (stored.round(number) for number in numbers), None if trusted is None else parse_clients(trusted)
        )
        if non_finite == "error":
            refuse_non_finite(stored.round(number) for number in numbers)
        sketches = (sketch_round(stored.round(number), needs) for number in track(numbers, "filtering"))
        tally = filter_run(stored, methods, sketches, outputs, rounds=numbers, trusted=known_benign)
    if as_json:
        typer.echo(json.dumps(as_document(tally, output), indent=2))
    else:
        print_summary(tally, output, run)


def make_filters(texts: list[str], settings: list[str]) -> "list[Filter]":
    """The filters that `--method` and `--set` name."""
    from encagg_cli.filters import DEFAULT_METHOD, available, get
    from encagg_cli.filters.settings import parse_call

    texts = texts or [DEFAULT_METHOD]
    wanted = [name for text in texts for name in (available() if text == "all" else (text,))]
    given = parse_settings(settings)
    names = {parse_call(text)[0] for text in wanted}
    for name in given:
        if name not in names:
            raise UsageError(f"--set names the method {name!r}, which is not run", hint=f"run it: --method {name}")
    return [get(text, **given.get(parse_call(text)[0], {})) for text in wanted]
