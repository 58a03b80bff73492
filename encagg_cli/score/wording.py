"""Words that the text and the Markdown form of a score share."""

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from encagg_cli.console import counted
from encagg_cli.errors import UsageError

if TYPE_CHECKING:
    from encagg_cli.score.gate import Outcome
    from encagg_cli.score.metrics import Figures
    from encagg_cli.score.scorer import Breakdown, MethodScore, Score

UNDEFINED: Final = "-"
NO_NAME: Final = "(no name)"
AGGREGATES: Final = "aggregates only, and rejects nobody"


def about(score: "Score") -> str:
    """What was scored, in one sentence."""
    counts = score.methods[0].total.whole_counts()
    text = f"{counted(counts['uploads'], 'upload')} in {counted(counts['rounds'], 'round')}"
    if score.has_labels:
        text += f": {counts['poisoned']} poisoned, {counts['honest']} honest"
        if counts["unlabelled"]:
            text += f", {counts['unlabelled']} without label"
    else:
        text += ", none with a label"
    if counts["known_benign"]:
        text += f"; not counted: {counts['known_benign']} of known-benign clients"
    return text


def filters_and_aggregates(score: "Score") -> "tuple[list[MethodScore], list[MethodScore]]":
    """The methods that have a verdict, then those that only aggregate and reject nobody; each in the file's order."""
    fewest = min(one.total.count("rejected") for one in score.methods)
    aggregates = [
        one for one in score.methods if one.total.count("rejected") == fewest and _only_aggregates(one.method)
    ]
    return [one for one in score.methods if one not in aggregates], aggregates


def _only_aggregates(method: str) -> bool:
    """Asked only of the methods that reject fewest: it imports the filter."""
    from encagg_cli.filters import get

    try:
        return not get(method).rejects
    except UsageError:  # a method that this version does not have
        return False


def verdict_on(outcomes: "Sequence[Outcome]") -> str:
    """How the gates came out, in a few words."""
    failed = sum(not outcome.passed for outcome in outcomes)
    if failed:
        return f"{failed} of {counted(len(outcomes), 'gate')} failed"
    return f"{counted(len(outcomes), 'gate')} passed" if outcomes else "no gates"


def next_step(score: "Score", outcomes: "Sequence[Outcome]", verdicts: str) -> str:
    """What to do next, as a command where there is one."""
    verdicts = shlex.quote(verdicts)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed and score.has_labels:
        by = "client" if failed[0].metric in {"fpr", "clean_fpr", "precision", "benign_retention"} else "attack"
        return f"next: encagg score {verdicts} --by {by}    shows where it fell short"
    if failed:
        return f"next: encagg score {verdicts} --by round    shows when it fell short"
    if not outcomes:
        return f"next: encagg score {verdicts} --min-recall 0.9 --max-fpr 0.05    makes it a gate"
    return f"next: encagg score {verdicts} --json > score.json    keeps it, for --baseline score.json --max-drop 0.02"


def cell(value: float | None) -> str:
    """A share as three decimals; never rounded to 1 or 0 that it is not."""
    if value is None:
        return UNDEFINED
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        return "0.999+"
    return "0.000+" if text == "0.000" and value > 0 else text


def interval(pair: tuple[float, float] | None) -> str:
    """A 95 % interval."""
    return UNDEFINED if pair is None else f"{pair[0]:.2f}-{pair[1]:.2f}"


def rows_by(one: "MethodScore", by: str) -> Iterator[tuple[str, dict[str, int], "Figures"]]:
    """The rows of a table by round, attack or client: name, counts, figures."""
    if by == "attack":
        for attack, section in one.attacks.items():
            yield attack or NO_NAME, section.whole_counts(), section.figures
        return
    table: Breakdown | None = one.rounds if by == "round" else one.clients
    for name, section in table or ():
        yield str(name), section.whole_counts(), section.figures
