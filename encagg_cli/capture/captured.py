"""`encagg capture RUN -- COMMAND`: give a command what it needs to record, run it, and see what came of it.

Until the command has ended this imports no NumPy: its threads would take signals that are meant for the command.
"""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from encagg_cli.capture.command import run_command
from encagg_cli.capture.session_folder import CaptureSettings, Outcome, create, environment, read_outcome
from encagg_cli.console import counted
from encagg_cli.errors import EncaggError, NothingToDo, OutputError, UsageError
from encagg_cli.outputs import writing
from encagg_cli.rounds.directory import WRITING_LOCK

HOW_TO_RECORD: Final = """\
record from its training loop, after each client's upload:
    from encagg_cli import record
    record(round_number, client_id, update)"""
_SHOWN_FAILURES: Final = 3
_LOOKED_AT: Final = 20  # rounds: in some of them, a known-benign client should have been chosen


def run_captured(
    run: Path,
    command: Sequence[str],
    settings: CaptureSettings,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> int:
    """Run `command` so that `encagg_cli.record` in its processes writes to `run`; returns the command's exit code.

    Raises NothingToDo (exit 5) where the command ended well and recorded nothing, OutputError (exit 6) where it ended
    well and a recording failed, or where `run` cannot be recorded into: then the command is not started.
    """
    is_new = _prepare(run)
    try:
        with tempfile.TemporaryDirectory(prefix="encagg-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            create(folder, settings)
            variables = environment(run, secrets.token_hex(8), folder)
            code = run_command(command, {**os.environ, **variables})
            outcome = read_outcome(folder)
    finally:
        if is_new:
            with suppress(OSError):
                run.rmdir()  # only if it is empty
    if outcome.rounds:
        tell(f"{counted(len(outcome.rounds), 'round')}, {counted(outcome.n_uploads, 'upload')} recorded into {run}")
    if settings.trusted and outcome.rounds:
        _look_for(sorted(settings.trusted), run, sorted(outcome.rounds)[:_LOOKED_AT], warn)
    if code == 0:
        _judge(run, outcome)
    for failure in outcome.failures[:_SHOWN_FAILURES]:
        warn(f"recording failed: {failure}")
    return code


def _look_for(trusted: Sequence[str], run: Path, rounds: Sequence[int], warn: Callable[[str], None]) -> None:
    """Warn where these rounds have no known-benign client: each process sees only the clients that it records."""
    from encagg_cli.capture.doubts import unheard
    from encagg_cli.rounds.reader import Run

    with suppress(EncaggError):  # what cannot be read is told by whoever needs it
        stored = Run.open(run)
        if not any(stored.round(number).trusted.any() for number in rounds):
            warn(f"{run}: {unheard(trusted)}")


def _judge(run: Path, outcome: Outcome) -> None:
    """Raise where a command that ended well was not recorded as it should have been."""
    if outcome.failures:
        more = len(outcome.failures) - 1
        raise OutputError(
            f"recording failed: {outcome.failures[0]}" + (f" (and {counted(more, 'more failure')})" if more else ""),
            hint=f"{counted(len(outcome.rounds), 'round')} could be recorded into {run}; the command itself ended well",
        )
    if not outcome.rounds:
        if outcome.n_passed_over:
            raise NothingToDo("no round was recorded: --every passed over all of them", hint="give a smaller --every")
        raise NothingToDo("the command recorded nothing", hint=HOW_TO_RECORD)


def _prepare(run: Path) -> bool:
    """Make the run's folder; whether it is new. Fails now rather than after hours of training."""
    if run.is_file():
        raise UsageError(f"{run} is a file", hint="a run is recorded into a folder; encagg pack makes one file of it")
    is_new = not run.exists()
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
    if not os.access(run, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {run}", hint="record into another folder, or change its permissions")
    with suppress(FileNotFoundError):
        descriptor = os.open(run / WRITING_LOCK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{run} is being written by another session", hint="wait until it ends, or record into another folder"
            ) from None
        finally:
            os.close(descriptor)
    return is_new
