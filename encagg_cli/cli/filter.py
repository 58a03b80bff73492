"""`encagg filter`: run filters over stored rounds and write a verdict for every client and round."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encagg_cli import console
from encagg_cli.cli.arguments import parse_clients, parse_rounds, parse_settings
from encagg_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from encagg_cli.filters import Filter
    from encagg_cli.rounds.reader import Run

_SCALE = "Scale"


# Enumerations, because typer before 0.19 knows no Literal.
class NonFinite(StrEnum):
    REJECT = "reject"
    ERROR = "error"


class EngineChoice(StrEnum):
    LOCAL = "local"
    DASK = "dask"


class DeviceChoice(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The stored rounds: a folder, or one packed file.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where the verdicts go (Parquet).", show_default=False)
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A filter: encagg, 'krum(f=8)'; repeatable. Default: anchored-views. all: every one that can run."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME.key=value: a setting, for every --method of that name; repeatable."),
    ] = None,
    trusted: Annotated[
        str | None, typer.Option(help="Known-benign clients: id,id or @FILE. Default: the run's own flags.")
    ] = None,
    rounds: Annotated[str | None, typer.Option(help="Which rounds: 3:10 (10 is not included), 7, or 3:5,9:")] = None,
    aggregate: Annotated[
        Path | None, typer.Option(help="Write every method's filtered aggregate of every round here (HDF5).")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Keep what pictures need (radius, pseudo-gradients) here.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Go on from this file, and keep here what filters carry to later rounds.")
    ] = None,
    non_finite: Annotated[
        NonFinite,
        typer.Option(help="A NaN or infinite update is rejected, or ends the command (exit 4)."),
    ] = NonFinite.REJECT,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
    memory: Annotated[
        str, typer.Option(help="Memory of all workers together, whatever a round's size.", rich_help_panel=_SCALE)
    ] = "512MB",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: a thread a core.", rich_help_panel=_SCALE)
    ] = None,
    engine: Annotated[EngineChoice, typer.Option(help="Where work runs.", rich_help_panel=_SCALE)] = EngineChoice.LOCAL,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask's address; a local cluster without.", rich_help_panel=_SCALE)
    ] = None,
    device: Annotated[
        DeviceChoice, typer.Option(help="What multiplies matrices.", rich_help_panel=_SCALE)
    ] = DeviceChoice.CPU,
    cache: Annotated[
        str, typer.Option(help="Where sketches are kept: beside the run, none, or a folder.", rich_help_panel=_SCALE)
    ] = "beside",
) -> None:
    """Run filters over stored rounds and write a verdict for every client and round.

    [bold]Examples[/bold]

      encagg filter runs/mnist -o verdicts.parquet

      encagg filter runs/mnist -o v.parquet --method encagg --method 'krum(f=8)'

      encagg filter runs/mnist -o v.parquet --trusted site-1,site-2 --rounds 10:20

      encagg filter runs/large -o v.parquet --method all --memory 2GB --workers 8
    """
    from encagg_cli.cli.progress import ByteBar
    from encagg_cli.cli.summary import as_document, print_summary
    from encagg_cli.kinds import expect_run, refuse_suffix
    from encagg_cli.rounds.reader import Run
    from encagg_cli.sketch import Sketcher
    from encagg_cli.verdicts.choosing import check_run
    from encagg_cli.verdicts.filtering import Outputs, filter_run
    from encagg_cli.verdicts.replay import name_methods, refuse_non_finite, resolve_trusted

    refuse_suffix(output, "verdicts are Parquet", ".parquet")
    for path in (aggregate, trace):
        if path is not None:
            refuse_suffix(path, "aggregates and traces are HDF5", ".h5")
    outputs = Outputs(output, aggregate=aggregate, trace=trace, state=state, force=force)
    outputs.refuse_existing()
    expect_run(run)
    with Run.open(run) as stored:
        numbers = parse_rounds(rounds, stored.rounds)
        known_benign = resolve_trusted(
            (stored.round(number) for number in numbers), None if trusted is None else parse_clients(trusted)
        )
        methods = name_methods(_choose(method or [], settings or [], stored, numbers, known_benign))
        check_run(methods, stored, numbers, known_benign)
        if non_finite is NonFinite.ERROR:
            refuse_non_finite(stored.round(number) for number in numbers)
        with (
            ByteBar("filtering") as bar,
            Sketcher(
                stored,
                memory=memory,
                workers=workers,
                engine=engine.value,
                scheduler=scheduler,
                device=device.value,
                cache=cache if cache in ("beside", "none") else Path(cache),  # type: ignore[arg-type]
                progress=bar.show,
            ) as sketcher,
        ):
            tally = filter_run(stored, methods, sketcher, outputs, rounds=numbers, trusted=known_benign)
    if as_json:
        typer.echo(json.dumps(as_document(tally, output), indent=2))
    else:
        print_summary(tally, output, run)
        console.note(bar.summary())


def _choose(
    texts: list[str], settings: list[str], run: "Run", rounds: "Sequence[int]", trusted: frozenset[str]
) -> "list[Filter]":
    """The filters that `--method` and `--set` name; of `all`, those that can run, and why the others cannot."""
    from encagg_cli.filters import DEFAULT_METHOD, available
    from encagg_cli.settings import parse_call
    from encagg_cli.verdicts.choosing import choose_all, facts_of, finite_uploads

    texts = texts or [DEFAULT_METHOD]
    given = parse_settings(settings)
    named = [text for text in texts if text != "all"]
    known = set(available()) if "all" in texts else {parse_call(text)[0] for text in named}
    for name in given:
        if name not in known:
            raise UsageError(f"--set names the method {name!r}, which is not run", hint=f"run it: --method {name}")
    chosen = [_configured(text, given) for text in named]
    if "all" in texts:
        others, skipped = choose_all(facts_of(run, rounds, trusted), given, finite_uploads(run, rounds))
        for reason in dict.fromkeys(skipped.values()):
            names = ", ".join(name for name, why in skipped.items() if why == reason)
            console.note(f"skipped: {names}: {reason}")
        chosen += others
    return chosen


def _configured(text: str, given: "Mapping[str, Mapping[str, str]]") -> "Filter":
    """The method that `text` names, with what `--set` says of it; raises UsageError where the two disagree."""
    from encagg_cli.filters import get
    from encagg_cli.settings import parse_call

    name, arguments = parse_call(text)
    settings = given.get(name, {})
    for key in arguments.keys() & settings.keys():
        if arguments[key] != settings[key]:
            raise UsageError(
                f"{name}.{key} is set twice: {arguments[key]} by --method {text!r}, {settings[key]} by --set",
                hint="give it once; --set is for every --method of that name",
            )
    return get(text, **settings)
