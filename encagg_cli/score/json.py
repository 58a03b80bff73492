"""A score as one JSON document (normative: SCHEMA.md beside this file)."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from encagg_cli.score.gate import Outcome
    from encagg_cli.score.scorer import Breakdown, MethodScore, Score, Section

SCHEMA: Final = "encagg-score-1"


def as_document(score: "Score", outcomes: "Sequence[Outcome]", by: Sequence[str] = ()) -> dict[str, Any]:
    """The document as JSON-ready data; `by` adds the tables by round or by client, which can be long."""
    return {
        "schema": SCHEMA,
        "passed": all(outcome.passed for outcome in outcomes) if outcomes else None,
        "signature": dict(score.signature.facts),
        "signature_text": str(score.signature),
        "labels": {"source": score.labels, **score.disagreement.as_document()},
        "methods": [_method(one, by) for one in score.methods],
        "gates": [_gate(outcome) for outcome in outcomes],
    }


def render(score: "Score", outcomes: "Sequence[Outcome]", by: Sequence[str] = ()) -> str:
    """The document as text: ASCII, and without NaN or infinity, which JSON does not have.

    Of two number signs one is escaped: `##[command]` would be obeyed by a CI server that sees this on stdout.
    """
    text = json.dumps(as_document(score, outcomes, by), indent=2, allow_nan=False)
    return text.replace("##", "#\\u0023")


def _method(one: "MethodScore", by: Sequence[str]) -> dict[str, Any]:
    document = {
        "method": one.method,
        **_section(one.total),
        "attacks": [{"attack": name, **_section(section)} for name, section in one.attacks.items()],
    }
    if "round" in by:
        document["rounds"] = _table("round", one.rounds)
    if "client" in by and one.clients is not None:
        document["clients"] = _table("client_id", one.clients)
    return document


def _section(section: "Section") -> dict[str, Any]:
    return {
        "metrics": section.figures,
        "intervals": {name: None if pair is None else list(pair) for name, pair in section.intervals.items()},
        "counts": section.whole_counts(),
    }


def _table(key: str, breakdown: "Breakdown") -> list[dict[str, Any]]:
    return [{key: name, "metrics": section.figures, "counts": section.whole_counts()} for name, section in breakdown]


def _gate(outcome: "Outcome") -> dict[str, Any]:
    return {
        "method": outcome.method,
        "metric": outcome.metric,
        "attack": outcome.attack,
        "relation": outcome.relation,
        "figure": outcome.figure,
        "bound": outcome.bound,
        "baseline": outcome.baseline,
        "drop": outcome.drop,
        "passed": outcome.passed,
        "why": outcome.why,
    }
