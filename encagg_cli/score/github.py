"""Workflow commands of GitHub Actions: one `::error` for each failed gate; and the job summary."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from encagg_cli import console
from encagg_cli.outputs import writing
from encagg_cli.score.gate import Outcome

SUMMARY_LIMIT: Final = 1024 * 1024
"""What GitHub takes of one step's summary, in bytes; a longer one is not shown at all."""


def annotations(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """One line for each gate that failed."""
    for outcome in outcomes:
        if not outcome.passed:
            yield annotation(f"{outcome.name}: {outcome.why}")


def annotation(message: str) -> str:
    """A message as an error annotation, one line."""
    return f"::error title=encagg score::{_escape(message)}"


def summary_file() -> Path | None:
    """Where this job's summary goes; None outside GitHub Actions."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(name) if name else None


def room_in(summary: Path) -> int:
    """How many bytes may still be added to a summary."""
    return SUMMARY_LIMIT - (summary.stat().st_size if summary.exists() else 0)


def append(summary: Path, text: str) -> None:
    """Add to the job's summary. Raises OutputError."""
    with writing(summary), summary.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text)


def _escape(text: str) -> str:
    """A message that ends where it should: percent signs and line breaks are encoded, as GitHub reads them."""
    return console.plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
