"""The folder of a run that is about to be written, and the settings that are stored beside its rounds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encagg_cli.errors import OutputExists, UsageError
from encagg_cli.outputs import published, writing
from encagg_cli.rounds.directory import round_files


def refuse_existing_run(run: Path, *, force: bool) -> None:
    """Raise OutputExists for a folder that holds anything, unless `force` is set; UsageError for a file."""
    if run.is_file():
        raise UsageError(f"{run} is a file", hint="a run is recorded into a folder; name another")
    if not force and run.is_dir() and any(run.iterdir()):
        raise OutputExists(f"{run} exists", hint="give another name, or --force to replace the rounds in it")


def remove_rounds(run: Path) -> None:
    """Remove the rounds that an earlier run has left; other files stay."""
    with writing(run):
        for files in round_files(run).values():
            for file in files:
                file.path.unlink(missing_ok=True)


def write_settings(path: Path, document: Mapping[str, Any]) -> None:
    """Store what decided a run's numbers beside its rounds, as JSON."""
    with published(path, force=True) as partial:
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
