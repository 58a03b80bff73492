"""`encagg score`: hold verdicts against the truth, and let gates decide."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encagg_cli import console
from encagg_cli.errors import GateFailed, NothingToDo, UnusableInput, UsageError
from encagg_cli.outputs import published, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from encagg_cli.score.gate import Bound, Outcome
    from encagg_cli.score.labels import LabelTable
    from encagg_cli.score.scorer import Score


class By(StrEnum):
    """What the figures can be broken down by."""

    ROUND = "round"
    ATTACK = "attack"
    METHOD = "method"
    CLIENT = "client"


_LABELS, _GATES, _OUTPUTS = "Labels", "Gates", "Outputs"
_BOUND = "0.9, or lie=0.9 for one attack; may be repeated."


def command(
    verdicts: Annotated[
        Path, typer.Argument(metavar="VERDICTS", help="What `encagg filter` wrote.", show_default=False)
    ],
    method: Annotated[
        list[str] | None, typer.Option(help="Score only this method; may be repeated. Default: all that are there.")
    ] = None,
    by: Annotated[list[By] | None, typer.Option(help="Break the figures down; may be repeated.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Truth from a CSV, Parquet or JSON file: round,client_id,poisoned[,attack].", rich_help_panel=_LABELS
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Truth from a stored run. Default: as it was filtered.", rich_help_panel=_LABELS)
    ] = None,
    allow_missing: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="How much of verdicts and labels may be without a counterpart.",
            rich_help_panel=_LABELS,
        ),
    ] = "0",
    min_precision: Annotated[
        list[str] | None, typer.Option(metavar="X", help=f"Precision at least {_BOUND}", rich_help_panel=_GATES)
    ] = None,
    min_recall: Annotated[
        list[str] | None, typer.Option(metavar="X", help=f"Recall at least {_BOUND}", rich_help_panel=_GATES)
    ] = None,
    min_f1: Annotated[
        list[str] | None, typer.Option(metavar="X", help=f"F1 at least {_BOUND}", rich_help_panel=_GATES)
    ] = None,
    min_auroc: Annotated[
        list[str] | None, typer.Option(metavar="X", help=f"AUROC at least {_BOUND}", rich_help_panel=_GATES)
    ] = None,
    max_fpr: Annotated[
        list[str] | None, typer.Option(metavar="X", help="Honest uploads rejected, at most.", rich_help_panel=_GATES)
    ] = None,
    max_clean_fpr: Annotated[
        list[str] | None,
        typer.Option(metavar="X", help="The same, in rounds that nobody poisoned.", rich_help_panel=_GATES),
    ] = None,
    max_rejected: Annotated[
        list[str] | None,
        typer.Option(metavar="X", help="Uploads rejected, at most. Needs no labels.", rich_help_panel=_GATES),
    ] = None,
    require_rounds: Annotated[
        int | None, typer.Option(min=1, help="At least so many rounds are scored.", rich_help_panel=_GATES)
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="An earlier score: what --json printed.", rich_help_panel=_GATES)
    ] = None,
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X",
            help="No figure worse than the baseline's by more: 0.02, or recall=0.02; may be repeated.",
            rich_help_panel=_GATES,
        ),
    ] = None,
    allow_different_signature: Annotated[
        bool,
        typer.Option("--allow-different-signature", help="Compare with any baseline.", rich_help_panel=_GATES),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=_OUTPUTS)] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in words what decided the figures.", rich_help_panel=_OUTPUTS)
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the gates as JUnit XML.", rich_help_panel=_OUTPUTS)] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the score as Markdown.", rich_help_panel=_OUTPUTS)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write every verdict with its label as CSV.", rich_help_panel=_OUTPUTS)
    ] = None,
    github: Annotated[
        bool,
        typer.Option(
            "--github",
            help="In GitHub Actions: an annotation for each failed gate, and the job's summary.",
            rich_help_panel=_OUTPUTS,
        ),
    ] = False,
    resamples: Annotated[
        int, typer.Option(min=0, max=100_000, help="For 95 % intervals; 0 for none.", rich_help_panel=_OUTPUTS)
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.", rich_help_panel=_OUTPUTS)] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace outputs that exist.", rich_help_panel=_OUTPUTS)
    ] = False,
) -> None:
    """Hold verdicts against the truth: who was caught, who was wronged; exit 3 where a gate fails.

    [bold]Examples[/bold]

      encagg score verdicts.parquet

      encagg score verdicts.parquet --labels labels.csv --by attack

      encagg score verdicts.parquet --min-recall 0.9 --min-recall lie=0.8

      encagg score verdicts.parquet --max-clean-fpr 0.02 --junit gates.xml

      encagg score verdicts.parquet --max-rejected 0.3   (no labels: production)

      encagg score verdicts.parquet --json > score.json

      encagg score newer.parquet --baseline score.json --max-drop 0.02
    """
    from encagg_cli.kinds import expect_run, expect_verdicts
    from encagg_cli.score.gate import Bound, parse_bounds, parse_drops, parse_share

    if labels is not None and run is not None:
        raise UsageError("--labels and --run both say where the truth is", hint="give one of them")
    if (baseline is None) != (not max_drop):
        raise UsageError("--baseline and --max-drop go together", hint="--baseline score.json --max-drop 0.02")
    bounds = [
        *parse_bounds("precision", "min", min_precision or ()),
        *parse_bounds("recall", "min", min_recall or ()),
        *parse_bounds("f1", "min", min_f1 or ()),
        *parse_bounds("auroc", "min", min_auroc or ()),
        *parse_bounds("fpr", "max", max_fpr or ()),
        *parse_bounds("clean_fpr", "max", max_clean_fpr or ()),
        *parse_bounds("rejected", "max", max_rejected or ()),
        *([Bound("rounds", ">=", require_rounds)] if require_rounds is not None else ()),
    ]
    drops = parse_drops(max_drop or ())
    allowed = parse_share(allow_missing, "--allow-missing")
    for path in (junit, markdown, csv):
        if path is not None:
            refuse_existing(path, force=force)
    breakdowns = list(by or ())
    try:
        expect_verdicts(verdicts)
        if run is not None:
            expect_run(run)
        truth = _read_truth(labels, run)
        score = _score(verdicts, truth, method or [], bounds, breakdowns, resamples, seed, allowed)
        outcomes = _judge(score, bounds, baseline, drops, allow_different=allow_different_signature)
    except (UnusableInput, NothingToDo) as error:
        _report_error(error, junit, github=github, force=force)
        raise
    if junit is not None:
        from encagg_cli.score import junit as junit_format

        with published(junit, force=force) as partial:
            partial.write_bytes(junit_format.render(outcomes, str(score.signature)))
    if markdown is not None:
        from encagg_cli.score import markdown as markdown_format

        with published(markdown, force=force) as partial:
            partial.write_text(markdown_format.render(score, outcomes, breakdowns), encoding="utf-8")
    if csv is not None:
        _write_sheet(verdicts, truth, csv, force=force)
    _print(score, outcomes, breakdowns, verdicts, as_json=as_json, explain=explain)
    if github:
        _tell_github(score, outcomes, breakdowns)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise GateFailed(f"gate failed: {failed[0].name}: {failed[0].why}{more}")


def _read_truth(labels: Path | None, run: Path | None) -> "LabelTable | None":
    from encagg_cli.score.labels import labels_of_run, read_labels

    if labels is not None:
        return read_labels(labels)
    return labels_of_run(run) if run is not None else None


def _score(
    path: Path,
    truth: "LabelTable | None",
    methods: list[str],
    bounds: "list[Bound]",
    by: list[By],
    resamples: int,
    seed: int,
    allowed: float,
) -> "Score":
    from encagg_cli.score.gate import refuse_nothing
    from encagg_cli.score.scorer import score_verdicts
    from encagg_cli.verdicts.reader import Verdicts

    with Verdicts(path) as verdicts:
        score = score_verdicts(
            verdicts, truth, methods=methods, by_client=By.CLIENT in by, resamples=resamples, seed=seed
        )
    if truth is not None:
        score.disagreement.check(allowed)
    refuse_nothing(score, bounds)
    for line in (*(score.disagreement.problems() if score.has_labels else ()), *score.disagreement.remarks()):
        console.warn(line)
    return score


def _judge(
    score: "Score", bounds: "list[Bound]", baseline: Path | None, drops: dict[str, float], *, allow_different: bool
) -> "list[Outcome]":
    from encagg_cli.score.baseline import read_baseline
    from encagg_cli.score.gate import judge

    if baseline is None:
        return judge(score, bounds)
    earlier = read_baseline(baseline, score, allow_different=allow_different)
    for remark in earlier.remarks:
        console.warn(remark)
    return judge(score, bounds, earlier, drops)


def _print(
    score: "Score", outcomes: "Sequence[Outcome]", by: list[By], verdicts: Path, *, as_json: bool, explain: bool
) -> None:
    """The document or the tables to stdout; what to do next to stderr."""
    from encagg_cli.score.signature import explain as in_words

    if as_json:
        from encagg_cli.score import json as json_format

        typer.echo(json_format.render(score, outcomes, by))
    else:
        from encagg_cli.score import text, wording

        for part in text.render(score, outcomes, by, console.stdout()):
            console.stdout().print(part)
    if explain:
        for line in in_words(score.signature):
            typer.echo(line, err=as_json)
    if not as_json:
        console.note(wording.next_step(score, outcomes, str(verdicts)))


def _write_sheet(verdicts: Path, truth: "LabelTable | None", path: Path, *, force: bool) -> None:
    from encagg_cli.score.sheet import write_sheet
    from encagg_cli.verdicts.reader import Verdicts

    with Verdicts(verdicts) as opened:
        write_sheet(opened, truth, path, force=force)


def _tell_github(score: "Score", outcomes: "Sequence[Outcome]", by: list[By]) -> None:
    """Annotations go to stderr, which GitHub reads as well, so that stdout stays what was asked for."""
    from encagg_cli.score import github
    from encagg_cli.score import markdown as markdown_format

    for line in github.annotations(outcomes):
        typer.echo(line, err=True)
    summary = github.summary_file()
    if summary is not None:
        github.append(summary, markdown_format.render(score, outcomes, by, limit=github.room_in(summary)))


def _report_error(error: UnusableInput | NothingToDo, junit: Path | None, *, github: bool, force: bool) -> None:
    """Where nothing could be scored: a report that says so, since a missing one is taken for no news."""
    if junit is not None:
        from encagg_cli.score import junit as junit_format

        with published(junit, force=force) as partial:
            partial.write_bytes(junit_format.render([], error=error.message))
    if github:
        from encagg_cli.score.github import annotation

        typer.echo(annotation(error.message), err=True)
