"""Which filters a run can be judged by: all whose needs it meets, and for the others, what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from encagg_cli.filters import Facts, Filter, Requirement, available, kind_of, unmet, what_to_do
from encagg_cli.filters.settings import build
from encagg_cli.rounds.reader import Run

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


def choose_all(facts: Facts, settings: Settings) -> tuple[list[Filter], dict[str, str]]:
    """Every filter that can run, and why each of the others cannot, by name."""
    chosen: list[Filter] = []
    skipped: dict[str, str] = {}
    for name in available():
        kind = kind_of(name)
        given = settings.get(name, {})
        missing = unmet(kind, replace(facts, attacker_count="f" in given))
        if missing:
            skipped[name] = _missing_text(missing)
        else:
            chosen.append(build(kind, given))
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
