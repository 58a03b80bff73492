"""How `encagg capture RUN -- COMMAND` and the command's processes speak to each other: a private temporary folder.

The environment names the run, the session and the folder. The folder holds the settings, and one report a process, to
which that process appends a line whenever it begins, publishes or loses a round. So a process that was killed in the
middle of a round is known by its report: what it began, it never ended.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from encagg_cli.rounds.layout import StoredType, UpdateKind

RUN_VARIABLE: Final = "ENCAGG_CAPTURE_RUN"
SESSION_VARIABLE: Final = "ENCAGG_CAPTURE_SESSION"
FOLDER_VARIABLE: Final = "ENCAGG_CAPTURE_FOLDER"

_SETTINGS: Final = "settings.json"
_REPORT_SUFFIX: Final = ".report"

Event = Literal["begun", "published", "passed over", "refused", "failed"]
"""Of a round: it was begun, then published, passed over (`--every`) or failed. Of an upload in it: it was refused."""


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """What `encagg capture` was told, for every way in."""

    trusted: tuple[str, ...] = ()
    update_kind: UpdateKind = "delta"
    dtype: StoredType = "float32"
    compression: Literal["gzip"] | None = None
    every: int = 1
    pseudonyms: str | None = None
    output_layer: str | None = None
    force: bool = False
    strict: bool = False


@dataclass(slots=True)
class Outcome:
    """What the processes of a session did, from their reports."""

    rounds: set[int] = field(default_factory=set)
    n_uploads: int = 0
    failures: list[str] = field(default_factory=list)
    n_passed_over: int = 0


def create(folder: Path, settings: CaptureSettings) -> None:
    """Put the settings where the command's processes find them."""
    (folder / _SETTINGS).write_text(json.dumps(asdict(settings)), encoding="utf-8")


def environment(run: Path, session: str, folder: Path) -> dict[str, str]:
    """The variables by which a process finds its capture."""
    return {RUN_VARIABLE: str(run.absolute()), SESSION_VARIABLE: session, FOLDER_VARIABLE: str(folder.absolute())}


def read_settings(folder: Path) -> CaptureSettings:
    values: dict[str, Any] = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    return CaptureSettings(**{**values, "trusted": tuple(values["trusted"])})


def report(folder: Path, process: str, event: Event, round_number: int | str, **facts: object) -> None:
    """Append one line to the report of a process. What is no round number is reported as text."""
    line = json.dumps({"event": event, "round": round_number, **facts}) + "\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(folder / f"{process}{_REPORT_SUFFIX}", flags, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_outcome(folder: Path) -> Outcome:
    """Sum up the reports of all processes; call it when they have ended."""
    outcome = Outcome()
    for path in sorted(folder.glob(f"*{_REPORT_SUFFIX}")):
        open_rounds: dict[int | str, None] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):  # cut short: then the round it speaks of counts as lost
                _count(json.loads(line), outcome, open_rounds)
        for number in open_rounds:
            outcome.failures.append(f"round {number}: its process ended while it was recorded")
    return outcome


def _count(entry: Mapping[str, Any], outcome: Outcome, open_rounds: dict[int | str, None]) -> None:
    number = entry["round"]
    match entry["event"]:
        case "begun":
            open_rounds[number] = None
            return
        case "refused":
            outcome.failures.append(entry["error"])
            return
        case "published":
            outcome.rounds.add(number)
            outcome.n_uploads += int(entry["uploads"])
        case "passed over":
            outcome.n_passed_over += 1
        case _:
            outcome.failures.append(entry["error"])
    open_rounds.pop(number, None)
