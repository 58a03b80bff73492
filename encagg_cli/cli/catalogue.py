"""What `encagg methods` and `encagg attacks` have in common: a list that fits a terminal, and all about one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from encagg_cli import console

_FILE_NAMES = re.compile(r" \([a-z_]+\.py\)")


@dataclass(frozen=True)
class Entry:
    """A line or two of a list: what it is, where it is published, and what else must be known, by style."""

    name: str
    mark: str
    summary: str
    source: str
    facts: Sequence[str]
    settings: Sequence[Mapping[str, Any]]


def settings_as_data(kind: type) -> list[dict[str, Any]]:
    """The settings of a filter, an attack or a schedule, with default and meaning."""
    return [
        {
            "name": spec.name,
            "default": None if spec.default is MISSING else spec.default,
            "help": spec.metadata.get("help", ""),
        }
        for spec in fields(kind)
    ]


def description_of(kind: type) -> str:
    """A docstring's paragraphs, each on one line; files that it names in brackets are for readers of the code."""
    paragraphs = _FILE_NAMES.sub("", kind.__doc__ or "").strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs)


def print_list(entries: Iterable[Entry]) -> None:
    """Three lines or so each: a table with a column for everything does not fit a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for entry in entries:
        text = Text(entry.summary)
        if entry.source:
            text.append(f"\n{entry.source}", style="dim")
        for fact in entry.facts:
            text.append(f"\n{fact}", style="cyan")
        if entry.settings:
            defaults = " ".join(f"{spec['name']}={_shown(spec['default'])}" for spec in entry.settings)
            text.append(f"\n{defaults}", style="green")
        table.add_row(Text(entry.name, style="bold"), entry.mark, text)
    console.stdout().print(table)


def print_one(
    name: str, summary: str, facts: Iterable[str], description: str, settings: Sequence[Mapping[str, Any]]
) -> None:
    """All about one: facts a line each, then the description, then what can be set."""
    from rich.table import Table

    out = console.stdout()
    out.print(f"[bold]{name}[/bold]: {summary}")
    for fact in facts:
        out.print(fact, markup=False)
    out.print()
    out.print(description, markup=False)
    if settings:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("setting", "default"):
            table.add_column(heading, no_wrap=True)
        table.add_column("what it is", overflow="fold")
        for spec in settings:
            table.add_row(spec["name"], _shown(spec["default"]), spec["help"])
        out.print()
        out.print(table)


def _shown(default: Any) -> str:
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)
