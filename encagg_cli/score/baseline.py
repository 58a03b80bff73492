"""An earlier score, as `encagg score --json` printed it, to hold a new one against."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encagg_cli.errors import UnusableInput
from encagg_cli.score.json import SCHEMA
from encagg_cli.score.metrics import METRICS
from encagg_cli.score.scorer import Score
from encagg_cli.score.signature import Signature, must_agree


@dataclass(frozen=True)
class Baseline:
    """The figures of an earlier score by method, as they are named now, and what is to be known of its signature."""

    metrics: Mapping[str, Mapping[str, float | None]]
    remarks: tuple[str, ...]


def read_baseline(path: Path, score: Score, *, allow_different: bool) -> Baseline:
    """Read an earlier score for the methods of this one.

    Raises UnusableInput where it is no score, lacks a method, or was decided by something else (other settings,
    another schema) and `allow_different` is not set; then a method of the same name stands in for one with other
    settings. What two builds may differ in (data, version) is said in `remarks`, as is all that was allowed.
    """
    document = _load(path)
    there = {one["method"]: one["metrics"] for one in document["methods"]}
    pairs = {one.method: _counterpart(one.method, there, allow_different, path) for one in score.methods}
    signature = Signature(document["signature"])
    methods = {name for pair in pairs.items() for name in pair}
    refused: list[str] = []
    natural: list[str] = []
    for name, here, was in score.signature.differences(signature):
        if name.startswith("filter.methods.") and not must_agree(name, methods):
            continue  # of a method that is not compared
        (refused if must_agree(name, methods) else natural).append(
            f"{name}: {was or 'none'} then, {here or 'none'} now"
        )
    if refused and not allow_different:
        raise UnusableInput(
            f"{path} is not comparable with this score; {'; '.join(refused)}",
            hint="make a new baseline, or compare all the same: --allow-different-signature",
        )
    remarks = [f"compared with a baseline of another kind; {difference}" for difference in refused]
    if natural:
        names = ", ".join(difference.partition(":")[0] for difference in natural)
        remarks.append(f"this score and its baseline differ in {names}")
    return Baseline({method: there[other] for method, other in pairs.items()}, tuple(remarks))


def _counterpart(method: str, there: Mapping[str, object], allow_different: bool, path: Path) -> str:
    if method in there:
        return method
    same_name = [other for other in there if other.partition("(")[0] == method.partition("(")[0]]
    if allow_different and len(same_name) == 1:
        return same_name[0]
    raise UnusableInput(
        f"{path} has no score of {method}; it has: {', '.join(there) or 'none'}",
        hint="choose what to compare with --method, or make a new baseline",
    )


def _load(path: Path) -> dict[str, Any]:
    """The document, as far as it is used here, with its types checked."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableInput(f"cannot read the baseline {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"the baseline {path} is not JSON: {error}") from error
    hint = "a baseline is what `encagg score VERDICTS.parquet --json` prints"
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UnusableInput(f"{path} is not a score of schema {SCHEMA}", hint=hint)
    methods, signature = document.get("methods"), document.get("signature")
    sound = (
        isinstance(methods, list)
        and all(isinstance(one, dict) and isinstance(one.get("method"), str) for one in methods)
        and all(_is_metrics(one.get("metrics")) for one in methods)
        and isinstance(signature, dict)
        and all(isinstance(value, str) for value in signature.values())
    )
    if not sound:
        raise UnusableInput(f"{path} is a damaged score: its methods or its signature cannot be read", hint=hint)
    return document


def _is_metrics(metrics: object) -> bool:
    return isinstance(metrics, dict) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
        for name, value in metrics.items()
        if name in METRICS
    )
