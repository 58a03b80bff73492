"""Dropping the oldest rounds of a run, and what killed captures left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.outputs import sync, writing
from encagg_cli.rounds.directory import locked, partial_files, round_files
from encagg_cli.rounds.replacing import finish_replacements


@dataclass(frozen=True, slots=True)
class Doomed:
    """A round that would go, with its files and their size in bytes; or an unfinished one, left by a killed capture."""

    number: int
    files: tuple[Path, ...]
    n_bytes: int
    is_unfinished: bool = False


def plan_prune(directory: Path, keep_last: int) -> tuple[Doomed, ...]:
    """The rounds of a run's directory but the last `keep_last`, ascending, then unfinished ones that nobody writes.

    Raises UsageError for a packed file, UnusableInput where there is no run.
    """
    if keep_last < 0:
        raise UsageError(f"cannot keep {keep_last} rounds")
    if directory.is_file():
        raise UsageError(f"{directory} is a packed file, from which no round can be removed", hint="prune, then pack")
    if not directory.is_dir():
        raise UnusableInput(f"there is no run {directory}")
    rounds = {number: tuple(file.path for file in files) for number, files in round_files(directory).items()}
    numbers = list(rounds)[: max(0, len(rounds) - keep_last)]
    doomed = [Doomed(number, rounds[number], sum(map(_size, rounds[number]))) for number in numbers]
    dead = [partial for partial in partial_files(directory) if not partial.is_live]
    return (*doomed, *(Doomed(partial.number, (partial.path,), _size(partial.path), True) for partial in dead))


def prune(directory: Path, doomed: Sequence[Doomed]) -> None:
    """Remove the files of these rounds, in order. Raises OutputError (exit 6) where that is not permitted."""
    with writing(directory), locked(directory):
        finish_replacements(directory)
        for item in doomed:
            for path in item.files:
                path.unlink(missing_ok=True)
        sync(directory)


def _size(path: Path) -> int:
    return path.stat().st_size
