"""`encagg methods`: what can filter, with source, needs and settings."""

import json
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer

from encagg_cli import console


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the filters: what each needs, its settings and their defaults, and where it is published."""
    from encagg_cli.filters import available

    described = [describe(name) for name in available()]
    if as_json:
        typer.echo(json.dumps({"schema": "encagg-methods-1", "methods": described}, indent=2))
        return
    from rich.table import Table

    table = Table(show_lines=True)
    for heading in ("method", "what it does", "needs", "settings"):
        table.add_column(heading, overflow="fold")
    for method in described:
        settings = "\n".join(f"{s['name']}={s['default']}" for s in method["settings"])
        table.add_row(method["name"], f"{method['summary']}\n{method['source']}", "\n".join(method["needs"]), settings)
    console.stdout().print(table)


def describe(name: str) -> dict[str, Any]:
    """A filter as data."""
    from encagg_cli.filters import kind_of

    kind = kind_of(name)
    return {
        "name": name,
        "summary": kind.summary,
        "source": kind.source,
        "grade": kind.grade,
        "needs": sorted(requirement.value for requirement in kind.requires),
        "aggregate": kind.aggregate,
        "settings": [
            {
                "name": spec.name,
                "default": None if spec.default is MISSING else spec.default,
                "help": spec.metadata.get("help", ""),
            }
            for spec in fields(kind)  # type: ignore[arg-type]
        ],
    }
