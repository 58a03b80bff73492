"""`encagg filter`: run filters over stored rounds and write a verdict for every client and round."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from encagg_cli import console
from encagg_cli.cli.arguments import parse_clients, parse_rounds, parse_settings
from encagg_cli.errors import NothingToDo, UsageError
from encagg_cli.outputs import refuse_existing

if TYPE_CHECKING:
    from encagg_cli.filters import Filter
    from encagg_cli.rounds.reader import Run


def command(
    run: Annotated[Path, typer.Argument(help="The stored rounds: a folder, or one packed file.", show_default=False)],
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
    from encagg_cli.rounds.reader import Run
    from encagg_cli.verdicts.replay import check_requirements, name_methods, refuse_non_finite, resolve_trusted

    for path in (output, *((trace,) if trace else ())):
        refuse_existing(path, force=force)
    methods = name_methods(_make_filters(method or [], settings or []))
    with Run.open(run) as stored:
        numbers = parse_rounds(rounds, stored.rounds)
        if not numbers:
            raise NothingToDo(f"{run} holds no rounds", hint="`encagg capture` records some")
        known_benign = resolve_trusted(
            (stored.round(number) for number in numbers), None if trusted is None else parse_clients(trusted)
        )
        check_requirements(methods, known_benign)
        if non_finite == "error":
            refuse_non_finite(stored.round(number) for number in numbers)
        _filter(stored, numbers, methods, known_benign, output, trace, state, force=force, as_json=as_json)


def _make_filters(texts: list[str], settings: list[str]) -> "list[Filter]":
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


def _filter(
    stored: "Run",
    numbers: list[int],
    methods: "dict[str, Filter]",
    known_benign: frozenset[str],
    output: Path,
    trace: Path | None,
    state: Path | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    from contextlib import ExitStack

    from encagg_cli.cli.progress import track
    from encagg_cli.cli.summary import as_document, print_summary
    from encagg_cli.sketch import sketch_round
    from encagg_cli.verdicts.replay import judge_round
    from encagg_cli.verdicts.signature import filter_signature
    from encagg_cli.verdicts.state import load_state, save_state
    from encagg_cli.verdicts.tally import Tally
    from encagg_cli.verdicts.trace import TraceWriter
    from encagg_cli.verdicts.writer import VerdictWriter

    if state is not None and state.exists():
        for text in load_state(state, methods, first_round=numbers[0]):
            console.warn(f"{state} holds nothing of {text}: it starts afresh")
    needs = tuple(dict.fromkeys(need for chosen in methods.values() for need in chosen.needs()))
    signature = filter_signature(methods, known_benign, numbers, (stored.round(number).digest for number in numbers))
    tally = Tally(methods)
    with ExitStack() as stack:
        writer = stack.enter_context(VerdictWriter(output, signature=signature, force=force))
        tracer = stack.enter_context(TraceWriter(trace, force=force)) if trace is not None else None
        for number in track(numbers, "filtering"):
            round_ = stored.round(number)
            verdicts = judge_round(sketch_round(round_, needs), round_, methods, known_benign)
            writer.add_round(
                number, list(verdicts.decisions.items()), verdicts.trusted, verdicts.poisoned, verdicts.attack
            )
            tally.add(verdicts)
            if tracer is not None:
                tracer.add(verdicts)
    if state is not None:
        save_state(state, methods, last_round=numbers[-1])
    if as_json:
        typer.echo(json.dumps(as_document(tally, output), indent=2))
    else:
        print_summary(tally, output, stored.path)
