"""`encagg capture`: record a training run, from its own process or from the files it writes."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from encagg_cli import console
from encagg_cli.cli.arguments import parse_clients
from encagg_cli.cli.progress import track
from encagg_cli.errors import NothingToDo, UnusableInput, UsageError

if TYPE_CHECKING:
    from encagg_cli.capture.importing import SpoolImporter
    from encagg_cli.capture.session_folder import CaptureSettings
    from encagg_cli.capture.spool import SpoolRound

_KINDS = ("delta", "gradient")
_DTYPES = ("float32", "float16", "bfloat16")


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Where the rounds go: a folder.", show_default=False)],
    command_line: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="Run this command and record what it hands over."),
    ] = None,
    spool: Annotated[
        Path | None, typer.Option("--from", metavar="SPOOL", help="Import this spool's rounds and stop.")
    ] = None,
    watch: Annotated[
        Path | None, typer.Option("--watch", metavar="SPOOL", help="Follow this spool while it is written.")
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Spool files hold whole models: updates are their difference to _global.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Take exactly the tensors with such names, of whatever kind; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Leave out tensors with such names; repeatable.")
    ] = None,
    idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="With --watch: a round is complete when nothing came for so long."),
    ] = None,
    trusted: Annotated[
        str | None, typer.Option(metavar="ID,ID|@FILE", help="Known-benign clients, beside those the spool names.")
    ] = None,
    kind: Annotated[str, typer.Option(metavar="delta|gradient", help="What clients upload.")] = "delta",
    dtype: Annotated[str, typer.Option(metavar="|".join(_DTYPES), help="How updates are stored.")] = "float32",
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress (gzip): slower by far, and few updates get much smaller.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Record the rounds whose number N divides.")] = 1,
    output_layer: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="The output layer: tensors whose names begin so. Default: the last ones."),
    ] = None,
    pseudonyms: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYFILE", help="Store keyed hashes for client ids; the key is in this file, made where missing."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="With a command: a failed recording raises in it, instead of a warning.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace rounds that are stored already.")] = False,
) -> int | None:
    """Record client updates, round by round, into a run: from a training command, or from files.

    A command's processes record with `encagg_cli.record(round, client_id, update)`, which does nothing when it is not
    captured. Its exit code is returned; if it ended well, 5 if nothing was recorded and 6 if the recording failed.

    A spool is a folder of plain files, SPOOL/round-0012/client-17.safetensors (or .npz, .npy, .pt); see the README.
    A watch ends, with exit code 0, when SPOOL/_end appears, or on SIGINT or SIGTERM; 4 if a round could not be read.

    [bold]Examples[/bold]

      encagg capture runs/mnist -- python train.py --lr 0.1

      encagg capture runs/mnist --from spool --weights --trusted site-1,site-2

      encagg capture runs/mnist --watch spool --idle 60
    """
    command_line = command_line or []
    sources = [bool(command_line), spool is not None, watch is not None]
    if sum(sources) != 1:
        raise UsageError(
            "name one source of updates" + (", not several" if any(sources) else ""),
            hint="-- COMMAND runs a training command, --from SPOOL imports files, --watch SPOOL follows them",
        )
    if command_line and (weights or include or exclude):
        raise UsageError(
            "--weights, --include and --exclude are about files", hint="a command decides itself what it records"
        )
    if idle is not None and watch is None:
        raise UsageError("--idle needs --watch")
    if strict and not command_line:
        raise UsageError("--strict is about a command", hint="with --from and --watch every failure counts")
    settings = _settings(run, trusted, kind, dtype, every, output_layer, pseudonyms, compress, force, strict)
    if command_line:
        from encagg_cli.capture.captured import run_captured

        return run_captured(run, command_line, settings, tell=console.note, warn=console.warn)

    from encagg_cli.capture.importing import SpoolImporter
    from encagg_cli.capture.selection import Selection
    from encagg_cli.capture.spool import round_folders

    source = cast(Path, spool or watch)
    if spool is not None and not round_folders(spool):
        raise NothingToDo(
            f"{spool} holds no round", hint="a round is a folder whose name ends in its number: SPOOL/round-0012"
        )
    selection = Selection(tuple(include or ()), tuple(exclude or ()))
    with (
        _capture_warnings_on_stderr(),
        SpoolImporter(run, source, settings, selection=selection, weights=weights, tell=console.note) as importer,
    ):
        if watch is not None:
            _watch(importer, idle)
        else:
            _import(importer)
        absent = importer.never_seen()
        if absent:
            console.warn(f"trusted, but in no round: {', '.join(absent[:8])}{' …' if len(absent) > 8 else ''}")
    return None


def usage_hint(arguments: Sequence[str]) -> str | None:
    """What to tell somebody whose command's own options were taken for ours."""
    words = [not argument.startswith("-") for argument in arguments]
    a_command = any(one and other for one, other in pairwise(words[1:]))  # RUN COMMAND, with nothing between them
    if a_command and not {"--", "--from", "--watch"} & set(arguments):
        return "to run a command, put -- before it: encagg capture RUN -- COMMAND …"
    return None


def _settings(
    run: Path,
    trusted: str | None,
    kind: str,
    dtype: str,
    every: int,
    output_layer: str | None,
    pseudonyms: Path | None,
    compress: bool,
    force: bool,
    strict: bool,
) -> "CaptureSettings":
    from encagg_cli.capture.pseudonyms import read_or_make_key
    from encagg_cli.capture.session_folder import CaptureSettings

    for option, value, known in (("--kind", kind, _KINDS), ("--dtype", dtype, _DTYPES)):
        if value not in known:
            raise UsageError(f"{option} is {' or '.join(known)}, not {value!r}")
    return CaptureSettings(
        trusted=tuple(parse_clients(trusted)) if trusted else (),
        update_kind=cast(Any, kind),
        dtype=cast(Any, dtype),
        compression="gzip" if compress else None,
        every=every,
        output_layer=output_layer,
        pseudonyms=None if pseudonyms is None else read_or_make_key(pseudonyms, run),
        force=force,
        strict=strict,
    )


def _import(importer: "SpoolImporter") -> None:
    from encagg_cli.capture.spool import look_at_round, round_folders, strange_entries

    for name in strange_entries(importer.spool):
        console.warn(f"ignored {importer.spool / name}: client files belong into a round's folder")
    folders = round_folders(importer.spool)
    _say_size(importer, folders)
    done: dict[str, list[SpoolRound]] = {}
    for number in track(list(folders), "importing", total=len(folders)):
        found = look_at_round(number, folders[number])
        for name in found.unfinished:
            console.warn(f"{found.folder / name} is still being written: left out")
        done.setdefault(importer.import_round(found), []).append(found)
    imported = done.get("imported", [])
    n_uploads = sum(len(found.clients) for found in imported)
    rounds, uploads = console.counted(len(imported), "round"), console.counted(n_uploads, "upload")
    parts = [f"{rounds}, {uploads} imported into {importer.path}"]
    for outcome, said in (
        ("known", "were there already"),
        ("removed", "were imported before and removed since (--force imports them again)"),
        ("passed over", "passed over"),
        ("empty", "without uploads"),
    ):
        if outcome in done:
            parts.append(f"{len(done[outcome])} {said}")
    console.note("; ".join(parts))
    if not imported and not done.keys() & {"known", "removed"}:
        raise NothingToDo(f"{importer.spool} holds nothing to import")


def _say_size(importer: "SpoolImporter", folders: dict[int, list[Path]]) -> None:
    """How much disk the import will take, where that is worth a word."""
    import shutil
    from contextlib import suppress

    from encagg_cli.capture.spool import look_at_round

    with suppress(UnusableInput):  # told when that round is reached
        n_bytes = importer.estimate(look_at_round(number, paths) for number, paths in folders.items())
        free = shutil.disk_usage(importer.path).free
        if n_bytes > free and importer.settings.compression is None:
            console.warn(f"about {n_bytes / 1e9:,.1f} GB will be written, and {free / 1e9:,.1f} GB are free")
        elif n_bytes > 1e9:
            console.note(f"about {n_bytes / 1e9:,.1f} GB will be written")


def _watch(importer: "SpoolImporter", idle: float | None) -> None:
    from encagg_cli.capture.watching import SpoolWatcher, stopped_by_signals

    watcher = SpoolWatcher(importer, idle=idle, tell=console.note)
    with stopped_by_signals(watcher):
        watched = watcher.follow()
    console.note(f"{console.counted(len(watched.imported), 'round')} imported into {importer.path}")
    if watched.waiting:
        numbers = ", ".join(map(str, watched.waiting[:8])) + (" …" if len(watched.waiting) > 8 else "")
        console.warn(
            f"not complete, so not imported: round {numbers} (encagg capture {importer.path} --from {importer.spool})"
        )
    if watched.unusable:
        number, error = next(iter(sorted(watched.unusable.items())))
        more = len(watched.unusable) - 1
        raise UnusableInput(
            f"round {number} is not recorded: {error}"
            + (f" (and {console.counted(more, 'more round')})" if more else ""),
            hint=error.hint,
        )
    if not watched.imported and not watched.known:
        raise NothingToDo(f"no round of {importer.spool} was complete")


@contextmanager
def _capture_warnings_on_stderr() -> Iterator[None]:
    """What the recorder warns of, as lines of ours."""
    from encagg_cli.capture.trouble import CaptureWarning

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        console.warn(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", CaptureWarning)
        warnings.showwarning = show
        yield
