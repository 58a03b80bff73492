"""`encagg attacks`: what can attack, with source, needs and settings."""

import json
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer

from encagg_cli import console


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the attacks and schedules: what each does and needs, its settings and their defaults.

    [bold]Examples[/bold]

      encagg attacks

      encagg attacks --json
    """
    from encagg_cli.attacks import available
    from encagg_cli.attacks.schedule import SCHEDULES

    attacks = [describe(name) for name in available()]
    schedules: list[dict[str, Any]] = [
        {"name": name, "summary": kind.summary, "settings": _settings(kind)} for name, kind in SCHEDULES.items()
    ]
    if as_json:
        document = {"schema": "encagg-attacks-1", "attacks": attacks, "schedules": schedules}
        typer.echo(json.dumps(document, indent=2))
        return
    from rich.table import Table

    table = Table(show_lines=True)
    for heading in ("attack", "what it does", "needs", "settings"):
        table.add_column(heading, overflow="fold")
    for attack in attacks:
        table.add_row(
            attack["name"],
            f"{attack['summary']}\n{attack['source']}",
            "\n".join(attack["needs"]),
            "\n".join(f"{s['name']}={s['default']}" for s in attack["settings"]),
        )
    for schedule in schedules:
        settings = "\n".join(f"{s['name']}={s['default']}" for s in schedule["settings"])
        table.add_row(f"--schedule {schedule['name']}", schedule["summary"], "", settings)
    console.stdout().print(table)


def describe(name: str) -> dict[str, Any]:
    """An attack as data; its needs are those of its default settings."""
    from encagg_cli.attacks import get, kind_of

    kind = kind_of(name)
    return {
        "name": name,
        "summary": kind.summary,
        "source": kind.source,
        "grade": kind.grade,
        "colluding": kind.colluding,
        "needs": sorted(need.value for need in get(name).requires()),
        "settings": _settings(kind),
    }


def _settings(kind: type) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "default": None if spec.default is MISSING else spec.default,
            "help": spec.metadata.get("help", ""),
        }
        for spec in fields(kind)
    ]
