"""`encagg attacks`: what can attack and when, with source, needs and settings."""

import json
from typing import Annotated, Any

import typer

from encagg_cli import console
from encagg_cli.cli.catalogue import Entry, description_of, print_list, print_one, settings_as_data

_WHO_KNOWS = {
    "all": "all honest uploads of the round (knowledge=own: the attackers' own honest updates alone)",
    "own": "the attackers' own honest updates (knowledge=all: all honest uploads of the round)",
    None: "nothing of other clients' updates",
}


def command(
    name: Annotated[
        str | None, typer.Argument(help="Tell all about this attack or schedule.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the attacks and schedules: what each does and needs, its settings and their defaults.

    Grade A: the definition is complete and checked; B: complete, in part from third-party code; C: our reading of what
    is public.

    [bold]Examples[/bold]

      encagg attacks

      encagg attacks min-max

      encagg attacks --json
    """
    from encagg_cli.attacks import available
    from encagg_cli.attacks.schedule import SCHEDULES

    attacks = [describe(each) for each in available() if name in (None, each)]
    schedules = [describe_schedule(each) for each in SCHEDULES if name in (None, each)]
    if name and not schedules:
        attacks = [describe(name)]  # which says so, where there is none
    if as_json:
        document = {"schema": "encagg-attacks-1", "attacks": attacks, "schedules": schedules}
        typer.echo(json.dumps(document, indent=2))
    elif name:
        for attack in attacks:
            _print_attack(attack)
        for schedule in schedules:
            facts = [f"who poisons when: --schedule {name}"]
            print_one(name, schedule["summary"], facts, schedule["description"], schedule["settings"])
    else:
        _print_list(attacks, schedules)


def describe(name: str) -> dict[str, Any]:
    """An attack as data; its needs are those of its default settings."""
    from encagg_cli.attacks import get, kind_of

    kind = kind_of(name)
    settings = settings_as_data(kind)
    return {
        "name": name,
        "summary": kind.summary,
        "source": kind.source,
        "grade": kind.grade,
        "colluding": kind.colluding,
        "knowledge": next((spec["default"] for spec in settings if spec["name"] == "knowledge"), None),
        "needs": sorted(need.value for need in get(name).requires()),
        "settings": settings,
        "description": description_of(kind),
    }


def describe_schedule(name: str) -> dict[str, Any]:
    """A schedule as data."""
    from encagg_cli.attacks.schedule import SCHEDULES

    kind = SCHEDULES[name]
    return {
        "name": name,
        "summary": kind.summary,
        "settings": settings_as_data(kind),
        "description": description_of(kind),
    }


def _print_list(attacks: list[dict[str, Any]], schedules: list[dict[str, Any]]) -> None:
    entries = [
        Entry(
            attack["name"],
            attack["grade"],
            attack["summary"],
            attack["source"],
            [f"needs {', '.join(attack['needs'])}"] if attack["needs"] else [],
            attack["settings"],
        )
        for attack in attacks
    ]
    entries += [
        Entry(schedule["name"], "", schedule["summary"], "", ["a schedule: --schedule"], schedule["settings"])
        for schedule in schedules
    ]
    print_list(entries)
    console.note("all about one: encagg attacks NAME")


def _print_attack(attack: dict[str, Any]) -> None:
    facts = [
        f"{attack['source']} (grade {attack['grade']})",
        f"knows {_WHO_KNOWS[attack['knowledge']]}",
        f"needs {', '.join(attack['needs']) or 'nothing but the updates'}",
    ]
    if attack["colluding"]:
        facts.append("colluding: the uploads of a round are made together")
    print_one(attack["name"], attack["summary"], facts, attack["description"], attack["settings"])
