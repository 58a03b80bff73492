"""Which filters a run can be judged by: all whose needs it meets, and for the others, what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from encagg_cli.errors import UsageError
from encagg_cli.filters import Facts, Filter, Requirement, available, kind_of, unmet, what_to_do
from encagg_cli.rounds.reader import Run
from encagg_cli.settings import build
from encagg_cli.verdicts.replay import check_requirements

Settings = Mapping[str, Mapping[str, str]]
"""Settings as text, by filter name."""


def facts_of(run: Run, rounds: Sequence[int], trusted: frozenset[str]) -> Facts:
    """What some rounds of a run offer, from their headers alone."""
    stored = [run.round(number) for number in rounds]
    return Facts(
        known_benign=len(trusted),
        rounds=len(rounds),
        parameters=run.parameters,
        global_model=all(round_.has_global_model for round_ in stored),
        root_gradient=all(round_.has_root_gradient for round_ in stored),
        sample_counts=all(bool((round_.num_examples >= 0).all()) for round_ in stored),
    )


def check_run(methods: Mapping[str, Filter], run: Run, rounds: Sequence[int], trusted: frozenset[str]) -> None:
    """Raise UsageError, before any update is read, for a method that these rounds do not allow."""
    check_requirements(methods, trusted)
    facts = replace(
        facts_of(run, rounds, trusted), attacker_count=True
    )  # a filter that needs it cannot be made without
    uploads = finite_uploads(run, rounds)
    for text, chosen in methods.items():
        missing = unmet(chosen, facts)
        if missing:
            needed = " and ".join(requirement.value for requirement in missing)
            raise UsageError(f"{text} needs {needed}, which these rounds lack", hint=what_to_do(missing[0]))
        for number, count in uploads.items():
            chosen.check_round(number, count)


def finite_uploads(run: Run, rounds: Sequence[int]) -> dict[int, int]:
    """How many uploads of each round hold neither NaN nor infinity."""
    return {number: int(np.isfinite(run.round(number).norms).sum()) for number in rounds}


def choose_all(
    facts: Facts, settings: Settings, uploads: Mapping[int, int] | None = None
) -> tuple[list[Filter], dict[str, str]]:
    """Every filter that can run, and why each of the others cannot, by name. `uploads` counts those of each round."""
    chosen: list[Filter] = []
    skipped: dict[str, str] = {}
    for name in available():
        kind = kind_of(name)
        given = settings.get(name, {})
        missing = unmet(kind, replace(facts, attacker_count="f" in given))
        if missing:
            skipped[name] = _missing_text(missing)
            continue
        made = build(kind, given)
        try:
            for number, count in (uploads or {}).items():
                made.check_round(number, count)
        except UsageError as error:
            skipped[name] = f"cannot judge {error.message}"
        else:
            chosen.append(made)
    return chosen, skipped


def told_the_truth() -> dict[str, dict[str, str]]:
    """Settings that tell every filter which must be told it the true number of attackers, within its theory or not."""
    return {
        name: {"f": "oracle", "relaxed": "true"}
        for name in available()
        if Requirement.ATTACKER_COUNT in kind_of(name).requires
    }


def _missing_text(missing: Sequence[Requirement]) -> str:
    return f"needs {' and '.join(requirement.value for requirement in missing)} ({what_to_do(missing[0])})"
