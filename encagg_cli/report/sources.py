"""What a report takes from elsewhere: figures and gates from a score, facts from the run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encagg_cli.console import counted
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.rounds.reader import Run
from encagg_cli.score import json as score_json
from encagg_cli.score.scorer import score_verdicts
from encagg_cli.verdicts.reader import Verdicts

_PARTS_OF_A_METHOD = {"method": str, "metrics": dict, "intervals": dict}
_PARTS_OF_A_GATE = {"method": str, "metric": str, "relation": str, "passed": bool, "why": str}


def labelled_score(verdicts: Verdicts, run: Path | None) -> dict[str, Any] | None:
    """The figures that the labels give, those of the run where one is named; None where there are none."""
    from encagg_cli.score.labels import labels_of_run

    scored = score_verdicts(verdicts, None if run is None else labels_of_run(run))
    if not scored.has_labels:
        return None
    document: dict[str, Any] = json.loads(score_json.render(scored, ()))
    return document


def read_score(path: Path, verdicts: Verdicts) -> dict[str, Any]:
    """What `encagg score --json` printed of these verdicts. Raises UnusableInput for anything else."""
    hint = "`encagg score --json` prints one"
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableInput(f"cannot read {path} as a score: {error}", hint=hint) from error
    if not isinstance(document, dict) or document.get("schema") != score_json.SCHEMA:
        raise UnusableInput(f"{path} is not what `encagg score --json` prints")
    methods, gates, signature = (document.get(name) for name in ("methods", "gates", "signature"))
    if not (_has_parts(methods, _PARTS_OF_A_METHOD) and _has_parts(gates, _PARTS_OF_A_GATE)):
        raise UnusableInput(f"{path} is damaged: its methods or gates lack something", hint=hint)
    digest = signature.get("verdicts.digest") if isinstance(signature, dict) else None
    if digest != _digest(verdicts, [one["method"] for one in document["methods"]]):
        raise UnusableInput(
            f"{path} is the score of other verdicts than {verdicts.path}", hint="score these, then report"
        )
    return document


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _has_parts(entries: Any, parts: Mapping[str, type]) -> bool:
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in parts.items())
        for entry in entries
    )


def _digest(verdicts: Verdicts, methods: list[str]) -> str | None:
    """The digest of the verdicts of these methods, as a score's signature has it; None where they are not there."""
    try:
        return score_verdicts(verdicts, methods=methods, resamples=1).signature.facts["verdicts.digest"]
    except UsageError:
        return None


def run_facts(path: Path) -> str:
    """A sentence about a run."""
    with Run.open(path) as run:
        first = run.round(run.rounds[0])
        kind = "gradients" if first.update_kind == "gradient" else "weight deltas"
        rounds, tensors = counted(len(run.rounds), "stored round"), counted(len(run.parameters), "tensor")
        return (
            f"{path.name}: {rounds} ({run.rounds[0]} to {run.rounds[-1]}), {run.n_parameters:,} parameters "
            f"in {tensors}, {kind}, {first.stored_type}"
        )
