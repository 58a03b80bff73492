"""What a report takes from elsewhere: figures from labels, facts from the run."""

import json
from pathlib import Path
from typing import Any

from encagg_cli.rounds.reader import Run
from encagg_cli.score import json as score_json
from encagg_cli.score.scorer import score_verdicts
from encagg_cli.verdicts.reader import Verdicts


def labelled_score(verdicts: Verdicts, run: Path | None) -> dict[str, Any] | None:
    """The figures that the labels give, those of the run where one is named; None where there are none."""
    from encagg_cli.score.labels import labels_of_run

    scored = score_verdicts(verdicts, None if run is None else labels_of_run(run))
    if not scored.has_labels:
        return None
    document: dict[str, Any] = json.loads(score_json.render(scored, ()))
    return document


def run_facts(path: Path) -> str:
    """A sentence about a run."""
    with Run.open(path) as run:
        first = run.round(run.rounds[0])
        kind = "gradients" if first.update_kind == "gradient" else "weight deltas"
        return (
            f"{path.name}: {len(run.rounds)} stored rounds ({run.rounds[0]} to {run.rounds[-1]}), {run.n_parameters:,} "
            f"parameters in {len(run.parameters)} tensors, {kind}, {first.stored_type}"
        )
