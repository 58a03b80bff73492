"""Reading verdicts: a file is checked before it is believed, and read in batches, never as a whole by default."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from encagg_cli.errors import UnusableInput
from encagg_cli.verdicts.schema import SCHEMA, SCHEMA_VERSION, SIGNATURE_KEY, VERSION_KEY

ROWS_IN_BATCH: Final = 65_536


class Verdicts:
    """An open verdict file. `signature` says what made it; `n_rows` counts verdicts.

    Everything read is checked: columns, types, nulls, the order of rounds, finite text. What does not hold raises
    UnusableInput (exit 4) that names the file and what is wrong. Columns that this version does not know are left out.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UnusableInput(f"there is no verdict file {self.path}", hint="`encagg filter RUN -o FILE` writes one")
        with self._reading():
            self._file = pq.ParquetFile(self.path)
        try:
            with self._reading():
                self.n_rows: int = self._file.metadata.num_rows
                self.signature = self._check_schema()
        except BaseException:
            self.close()
            raise

    def batches(self, columns: Sequence[str] | None = None, *, rows: int = ROWS_IN_BATCH) -> Iterator[pa.RecordBatch]:
        """Verdicts in order, at most `rows` at a time: the given columns (default: all), of `SCHEMA`'s types."""
        names = list(SCHEMA.names if columns is None else columns)
        schema = pa.schema([SCHEMA.field(name) for name in names])
        last_round: int | None = None
        with self._reading():
            for batch in self._file.iter_batches(batch_size=rows, columns=names):
                checked = self._check_batch(batch, schema)
                if "round" in names and len(checked):
                    last_round = self._check_order(checked.column("round"), last_round)
                yield checked

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All verdicts at once, for small files."""
        schema = pa.schema([SCHEMA.field(name) for name in SCHEMA.names if columns is None or name in columns])
        table = pa.Table.from_batches(self.batches(schema.names), schema=schema)
        return table.unify_dictionaries()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Verdicts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_schema(self) -> dict[str, Any]:
        """Refuse what is not a verdict file of this version; returns its signature."""
        schema = self._file.schema_arrow
        metadata = schema.metadata or {}
        version = metadata.get(VERSION_KEY)
        if version is None:
            raise UnusableInput(
                f"{self.path} is Parquet, but not a table of verdicts (no encagg.schema_version)",
                hint="verdicts are what `encagg filter RUN -o FILE` writes",
            )
        if version != SCHEMA_VERSION.encode():
            text = version.decode("utf-8", "backslashreplace")
            raise UnusableInput(
                f"{self.path} has verdicts of schema version {text}; this encagg reads version {SCHEMA_VERSION}",
                hint="read it with the version of encagg that wrote it, or filter again",
            )
        for field in SCHEMA:
            places = schema.get_all_field_indices(field.name)
            if len(places) != 1:
                raise UnusableInput(f"{self.path} has {len(places) or 'no'} columns {field.name!r}, not one")
            found = schema.field(places[0]).type
            if found != field.type and not (_is_text(field.type) and _is_text(found)):
                raise UnusableInput(f"{self.path}: column {field.name!r} is {found}, not {field.type}")
        try:
            signature = json.loads(metadata[SIGNATURE_KEY])
        except (KeyError, ValueError, RecursionError) as error:
            raise UnusableInput(f"{self.path} has no readable encagg.signature") from error
        if not isinstance(signature, dict):
            raise UnusableInput(f"{self.path}: encagg.signature is not a JSON object")
        return signature

    def _check_batch(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        batch.validate(full=True)  # text that is not UTF-8, dictionary indices out of range
        arrays = []
        for field in schema:
            column = batch.column(field.name)
            if not field.nullable and column.null_count:
                raise UnusableInput(f"{self.path}: column {field.name!r} has empty cells")
            if _is_text(field.type):
                column = _as_words(column, field.type)
            arrays.append(column)
        if "score" in schema.names and pc.any(pc.is_nan(batch.column("score"))).as_py():
            raise UnusableInput(f"{self.path}: a score is not a number")
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _check_order(self, rounds: pa.Array, last_round: int | None) -> int:
        falls = pc.any(pc.less(rounds[1:], rounds[:-1])).as_py()
        if falls or (last_round is not None and rounds[0].as_py() < last_round):
            raise UnusableInput(f"{self.path} is not sorted by round")
        return int(rounds[-1].as_py())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except UnusableInput:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: column names that are not UTF-8
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = "`encagg filter RUN -o FILE` writes verdicts"
            raise UnusableInput(f"{self.path} cannot be read as verdicts: {reason}", hint=hint) from error


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _as_words(column: pa.Array, kind: pa.DataType) -> pa.DictionaryArray:
    """A text column, plain or dictionary-encoded, as the dictionary type of the schema."""
    if column.type == kind:
        return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()).dictionary_encode()
