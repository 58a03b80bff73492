"""Running a bench: cells on all cores, finished ones kept, so that an interrupted bench goes on where it stopped."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from encagg_cli import __version__
from encagg_cli.bench.cells import Cell
from encagg_cli.bench.from_sketches import keep_sketches, needs_of
from encagg_cli.bench.run_cell import Row, run_cell
from encagg_cli.bench.table import SCHEMA, SCHEMA_VERSION, SETTINGS_KEY, VERSION_KEY
from encagg_cli.engine.base import in_order
from encagg_cli.engine.local import Processes
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.filters import get
from encagg_cli.outputs import published, writing
from encagg_cli.sketch import Need

_CELLS_A_WORKER = 4  # that are under way or wait for an earlier one to end

_Task = tuple[Cell, Path, Sequence[str], Path | None]


@dataclass(frozen=True)
class Subject:
    """A run to bench on: its name in the results, its path, and the updates trained on flipped labels, if any."""

    name: str
    path: Path
    alternatives: Path | None
    digest: str


def run_bench(
    cells: Sequence[Cell],
    subjects: Mapping[str, Subject],
    methods: Sequence[str],
    output: Path,
    *,
    workers: int,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Run all cells and write `output`. Finished cells are kept beside it until then, and are not run again.

    Raises UsageError where the kept cells are those of another bench and `force` is not set.
    """
    settings = {
        "version": __version__,
        "methods": list(methods),
        "runs": {name: subject.digest for name, subject in sorted(subjects.items())},
    }
    folder = output.with_name(f"{output.name}.cells")
    _prepare(folder, settings, force=force)
    waiting = [cell for cell in cells if not _file(folder, cell).is_file()]
    filters = [get(text) for text in methods]
    known: dict[str, dict[Need, None]] = {}
    for cell in waiting:
        known.setdefault(cell.run, {}).update(dict.fromkeys(needs_of(cell.attack, filters) or ()))
    for name, needs in known.items():
        if needs:
            keep_sketches(subjects[name].path, needs)
    done = len(cells) - len(waiting)
    progress(done, len(cells))
    for cell, rows in _results(waiting, subjects, methods, workers):
        with published(_file(folder, cell), force=True) as partial:
            pq.write_table(_table(rows), partial)
        done += 1
        progress(done, len(cells))
    metadata = {VERSION_KEY: SCHEMA_VERSION, SETTINGS_KEY: json.dumps(settings, sort_keys=True)}
    with published(output, force=force) as partial, pq.ParquetWriter(partial, SCHEMA.with_metadata(metadata)) as writer:
        for cell in cells:
            writer.write_table(pq.read_table(_file(folder, cell), schema=SCHEMA).replace_schema_metadata(metadata))
    shutil.rmtree(folder)
    return output


def _results(
    cells: Sequence[Cell], subjects: Mapping[str, Subject], methods: Sequence[str], workers: int
) -> "Iterable[tuple[Cell, list[Row]]]":
    def arguments(cell: Cell) -> _Task:
        subject = subjects[cell.run]
        return cell, subject.path, methods, subject.alternatives

    if workers == 1:
        for cell in cells:
            yield cell, run_cell(*arguments(cell))
        return
    with Processes(workers) as engine:
        tasks = ((arguments(cell), 1) for cell in cells)
        for task, rows in in_order(engine, _run, tasks, _CELLS_A_WORKER * workers):
            assert task is not None
            assert rows is not None
            yield task[0], rows


def _run(task: _Task) -> list[Row]:
    return run_cell(*task)


def _prepare(folder: Path, settings: Mapping[str, Any], *, force: bool) -> None:
    kept = folder / "settings.json"
    text = json.dumps(settings, sort_keys=True, indent=2)
    if folder.is_dir() and kept.is_file() and kept.read_text(encoding="utf-8") != text:
        if not force:
            raise UsageError(
                f"{folder} holds the cells of another bench (other methods, runs or version)",
                hint="--force begins anew; another --output keeps them",
            )
        shutil.rmtree(folder)
    with writing(folder):
        folder.mkdir(exist_ok=True)
        kept.write_text(text, encoding="utf-8")


def _file(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.key}.parquet"


def _table(rows: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def read_results(path: Path) -> pa.Table:
    """The table that `run_bench` wrote; raises UnusableInput."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UnusableInput(f"cannot read {path} as the results of a bench: {error}") from error
    metadata = table.schema.metadata or {}
    if metadata.get(VERSION_KEY) != SCHEMA_VERSION.encode():
        raise UnusableInput(f"{path} does not hold the results of a bench of this version")
    return table
