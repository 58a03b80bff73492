"""`encagg methods`: what can filter, with source, grade, needs and settings."""

import json
import re
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer

from encagg_cli import console

_FILE_NAMES = re.compile(r" \([a-z_]+\.py\)")


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
        "settings": [
            {
                "name": spec.name,
                "default": None if spec.default is MISSING else spec.default,
                "help": spec.metadata.get("help", ""),
            }
            for spec in fields(kind)  # type: ignore[arg-type]
        ],
        "description": _description(kind.__doc__ or ""),
    }


def _description(docstring: str) -> str:
    """A docstring's paragraphs, each on one line; files that it names in brackets are for readers of the code."""
    paragraphs = _FILE_NAMES.sub("", docstring).strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs)


def _print_list(described: list[dict[str, Any]]) -> None:
    """Three lines or so a method: a table with a column for everything does not fit a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for method in described:
        text = Text(method["summary"])
        text.append(f"\n{method['source']}", style="dim")
        needs = [*method["needs"], *(f"({uses})" for uses in method["uses"])]
        if needs:
            text.append(f"\nneeds {', '.join(needs)}", style="cyan")
        if not method["rejects"]:
            text.append("\naggregates only: rejects nobody, as it is set", style="cyan")
        if method["settings"]:
            defaults = " ".join(f"{spec['name']}={_shown(spec['default'])}" for spec in method["settings"])
            text.append(f"\n{defaults}", style="green")
        table.add_row(Text(method["name"], style="bold"), method["grade"], text)
    console.stdout().print(table)
    console.note("(in brackets: made use of where it is there)  all about one: encagg methods NAME")


def _print_one(method: dict[str, Any]) -> None:
    from rich.table import Table

    out = console.stdout()
    out.print(f"[bold]{method['name']}[/bold]: {method['summary']}")
    out.print(f"{method['source']} (grade {method['grade']}; {method['aggregate']} aggregate)")
    out.print(f"needs {', '.join(method['needs']) or 'nothing but the updates'}")
    if not method["rejects"]:
        out.print("aggregates only: rejects nobody, as it is set")
    if method["uses"]:
        out.print(f"uses where it is there: {', '.join(method['uses'])}")
    out.print()
    out.print(method["description"], markup=False)
    if method["settings"]:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("setting", "default"):
            table.add_column(heading, no_wrap=True)
        table.add_column("what it is", overflow="fold")
        for spec in method["settings"]:
            table.add_row(spec["name"], _shown(spec["default"]), spec["help"])
        out.print()
        out.print(table)


def _shown(default: Any) -> str:
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)
