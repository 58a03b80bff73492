"""`encagg pack`: a run in one file."""

from pathlib import Path
from typing import Annotated

import typer

from encagg_cli import console


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run to pack.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="The file to make.", metavar="ONE.h5", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Put all rounds of a run into one file, which every command takes in place of the folder.

    The run stays as it is. Every update is checked against its digest on the way (exit 4 where one is damaged).

    [bold]Examples[/bold]

      encagg pack runs/mnist mnist.h5
    """
    from encagg_cli.cli.progress import track
    from encagg_cli.kinds import expect_run, refuse_suffix
    from encagg_cli.outputs import refuse_existing
    from encagg_cli.rounds.estimate import human_bytes
    from encagg_cli.rounds.pack import pack
    from encagg_cli.rounds.reader import Run

    refuse_suffix(output, "a packed run is HDF5", ".h5")
    refuse_existing(output, force=force)
    expect_run(run)
    with Run.open(run) as stored:
        for _ in track(pack(stored, output, force=force), "packing", total=len(stored)):
            pass
        console.note(f"{output}: {console.counted(len(stored), 'round')}, {human_bytes(output.stat().st_size)}")
