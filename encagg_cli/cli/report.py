"""`encagg report`: one page that shows a person what was filtered, when, and why."""

from pathlib import Path
from typing import Annotated

import typer

from encagg_cli import console


def command(
    verdicts: Annotated[
        Path, typer.Argument(metavar="VERDICTS", help="What `encagg filter` wrote.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="R.html", help="The page to write.", show_default=False)
    ],
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run that was filtered: for its facts, and its labels.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="TRACE.h5", help="What `filter --trace` kept: radius, pseudo-gradients.")
    ] = None,
    score: Annotated[
        Path | None, typer.Option(metavar="SCORE.json", help="What `score --json` printed, with its gates.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a page that exists.")] = False,
) -> None:
    """Write one self-contained page: verdicts over rounds, the plane of any round, suspicion over time, and why.

    The page needs no network and no server; open it in a browser. Writing it needs `pip install vl-convert-python`.

    [bold]Examples[/bold]

      encagg report verdicts.parquet -o report.html

      encagg filter runs/mnist -o verdicts.parquet --trace trace.h5

      encagg report verdicts.parquet --trace trace.h5 -o report.html

      encagg score verdicts.parquet --min-recall 0.9 --json > score.json

      encagg report verdicts.parquet --score score.json -o report.html
    """
    from encagg_cli.kinds import expect_run, expect_verdicts, refuse_suffix
    from encagg_cli.outputs import published, refuse_existing
    from encagg_cli.report.document import make_document
    from encagg_cli.report.page import plotting_library, render
    from encagg_cli.report.sources import labelled_score, read_score, run_facts
    from encagg_cli.verdicts.reader import Verdicts

    refuse_suffix(output, "a report is HTML", ".html")
    refuse_existing(output, force=force)
    expect_verdicts(verdicts)
    if run is not None:
        expect_run(run)
    plotting_library()
    with Verdicts(verdicts) as opened:
        scored = labelled_score(opened, run) if score is None else read_score(score, opened)
        document = make_document(opened, trace=trace, score=scored, run=None if run is None else run_facts(run))
    page = render(document).encode()
    with published(output, force=force) as partial:
        partial.write_bytes(page)
    console.note(f"wrote {output} ({len(page) / 1e6:.1f} MB); open it in a browser")
