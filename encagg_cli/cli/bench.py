"""`encagg bench`: had a share of these clients run this attack, which filter would have caught it?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encagg_cli import console
from encagg_cli.errors import UsageError

if TYPE_CHECKING:
    from encagg_cli.bench.against_oracle import Gap
    from encagg_cli.bench.summary import MethodSummary


def command(
    run: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Captured honest rounds.", show_default=False)
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the results go (Parquet).")
    ] = Path("bench.parquet"),
    recipe: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|all", help="Make the honest rounds of the public bench; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME[(…)]", help="A filter; repeatable. All, where none is named.")
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option(metavar="NAME[(…)]", help="An attack; repeatable. The bench's, without.")
    ] = None,
    ratio: Annotated[
        list[float] | None, typer.Option(metavar="X", help="A share of attackers; repeatable. 0.1 to 0.8, without.")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Draws of attackers (and known-benign clients).")] = 1,
    known_benign: Annotated[
        int | None, typer.Option(metavar="K", min=0, help="Draw K known-benign clients instead of the run's own.")
    ] = None,
    alternatives: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Updates trained on changed labels, for label-flip.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the recipes' data sets are.")] = None,
    runs_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the recipes' runs are kept, to be used again.")
    ] = Path("bench-runs"),
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Processes; one a core, without.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the results; begin an interrupted bench anew.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the tables.")] = False,
) -> None:
    """Try every attack, at every share of attackers, against every method, on captured honest rounds.

    Methods that must know the number of attackers are told the truth, and marked with *. Finished cells are kept, so an
    interrupted bench goes on where it stopped. Attacks that weigh and add up honest updates (sign-flip, scaling, ipm,
    min-max, …) need not be crafted for methods that look at distances and angles alone: each honest round is read once,
    and its sketch kept beside the run.

    [bold]Examples[/bold]

      encagg bench runs/mine -o bench.parquet

      encagg bench runs/mine --attack lie --ratio 0.2 --method encagg -o b.parquet

      encagg bench --recipe all --data-dir data
    """
    from encagg_cli.bench.against_oracle import gaps
    from encagg_cli.bench.plan import plan_bench
    from encagg_cli.bench.runner import read_results, run_bench
    from encagg_cli.bench.summary import summarise
    from encagg_cli.bench.text import as_markdown
    from encagg_cli.cli.progress import Bar
    from encagg_cli.engine.choice import available_cores
    from encagg_cli.kinds import expect_run, refuse_suffix
    from encagg_cli.outputs import published, refuse_existing

    if not run and not recipe:
        raise UsageError("there is nothing to bench on", hint="name a captured run, or a recipe: --recipe digits-iid")
    for path in run or []:
        expect_run(path)
    refuse_suffix(output, "results are Parquet", ".parquet")
    refuse_existing(output, force=force)
    if markdown is not None:
        refuse_existing(markdown, force=force)
    with Bar("training") as bar:
        bench = plan_bench(
            run or [],
            recipes=recipe or [],
            methods=method or [],
            attacks=attack or [],
            shares=ratio or [],
            seeds=seeds,
            known_benign=known_benign,
            alternatives=alternatives,
            data_dir=data_dir,
            runs_dir=runs_dir,
            progress=bar.show,
        )
    for line in bench.skipped:
        console.note(f"skipped: {line}")
    if bench.from_sketches:
        cells = console.counted(len(bench.cells), "cell")
        console.note(f"{bench.from_sketches} of {cells} need no crafted update: sketches of the honest rounds tell")
    with Bar("benching") as bar:
        run_bench(
            bench.cells,
            bench.subjects,
            bench.methods,
            output,
            workers=workers or available_cores(),
            force=force,
            progress=bar.show,
        )
    results = read_results(output)
    summaries, behind = summarise(results), gaps(results)
    if markdown is not None:
        with published(markdown, force=force) as partial:
            partial.write_text(as_markdown(summaries, behind), encoding="utf-8")
    if as_json:
        document = {
            "schema": "encagg-bench-1",
            "results": [summary.as_json() for summary in summaries],
            "against_oracle": [gap.as_json() for gap in behind],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(summaries, behind)
    console.note(f"results: {output}")


def _print(summaries: "list[MethodSummary]", behind: "list[Gap]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from encagg_cli.bench.text import sections

    for run in dict.fromkeys(summary.run for summary in summaries):
        of_run = [summary for summary in summaries if summary.run == run]
        for section in sections(of_run, [gap for gap in behind if gap.run == run]):
            console.stdout().print(console.plain(section.title), style="italic", markup=False, soft_wrap=True)
            table = Table(box=SIMPLE_HEAD, pad_edge=False)
            for index, heading in enumerate(section.headings):
                table.add_column(heading, justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0)
            for row in section.rows:
                table.add_row(*map(console.plain, row))
            console.stdout().print(table)
    console.note(
        "F1: mean over attacks and shares, ±: half its 95 % interval over rounds. worst: least F1 of an attack."
    )
    console.note(
        "clean: FPR in rounds without attack. *: told the true number of attackers. oracle: told who is honest."
    )
    console.note(
        "harm: the aggregate's distance from the honest mean, in lengths of that mean. gap: F1 of the best threshold "
        "on an oracle's score, less the method's."
    )
