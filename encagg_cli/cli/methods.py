"""`encagg methods`: what can filter, with source, grade, needs and settings."""

import json
from typing import Annotated, Any

import typer

from encagg_cli import console
from encagg_cli.cli.catalogue import Entry, description_of, print_list, print_one, settings_as_data

_AGGREGATES_ONLY = "aggregates only: rejects nobody, as it is set"


def command(
    name: Annotated[str | None, typer.Argument(help="Tell all about this one.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the filters: what each needs, its settings and their defaults, and where it is published.

    Grade A: the definition is complete and checked; B: complete, in part from third-party code; C: our reading of what
    is public. Filters that need a model and data beside the updates (Zeno, FLShield, DeepSight, CrowdGuard) are not
    offered; nor is RSA, which is a training protocol.

    [bold]Examples[/bold]

      encagg methods

      encagg methods flame

      encagg methods --json
    """
    from encagg_cli.filters import available

    described = [describe(each) for each in ((name,) if name else available())]
    if as_json:
        typer.echo(json.dumps({"schema": "encagg-methods-1", "methods": described}, indent=2))
    elif name:
        _print_one(described[0])
    else:
        _print_list(described)


def describe(name: str) -> dict[str, Any]:
    """A filter as data."""
    from encagg_cli.filters import Requirement, kind_of

    kind = kind_of(name)
    return {
        "name": name,
        "summary": kind.summary,
        "source": kind.source,
        "grade": kind.grade,
        "needs": sorted(requirement.value for requirement in kind.requires),
        "uses": sorted(requirement.value for requirement in kind.uses),
        "aggregate": kind.aggregate,
        "rejects": Requirement.ATTACKER_COUNT in kind.requires or kind().rejects,
        "settings": settings_as_data(kind),
        "description": description_of(kind),
    }


def _print_list(described: list[dict[str, Any]]) -> None:
    entries = []
    for method in described:
        needs = [*method["needs"], *(f"({uses})" for uses in method["uses"])]
        facts = [f"needs {', '.join(needs)}"] if needs else []
        if not method["rejects"]:
            facts.append(_AGGREGATES_ONLY)
        entries.append(
            Entry(method["name"], method["grade"], method["summary"], method["source"], facts, method["settings"])
        )
    print_list(entries)
    console.note("(in brackets: made use of where it is there)  all about one: encagg methods NAME")


def _print_one(method: dict[str, Any]) -> None:
    facts = [
        f"{method['source']} (grade {method['grade']}; {method['aggregate']} aggregate)",
        f"needs {', '.join(method['needs']) or 'nothing but the updates'}",
    ]
    if not method["rejects"]:
        facts.append(_AGGREGATES_ONLY)
    if method["uses"]:
        facts.append(f"uses where it is there: {', '.join(method['uses'])}")
    print_one(method["name"], method["summary"], facts, method["description"], method["settings"])
