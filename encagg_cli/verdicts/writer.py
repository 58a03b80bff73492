"""Writing verdicts: buffered into row groups of whole rounds, published whole or not at all."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.filters.base import Decision
from encagg_cli.outputs import published, writing
from encagg_cli.verdicts.schema import SCHEMA, SCHEMA_VERSION, SIGNATURE_KEY, VERSION_KEY

ROWS_IN_GROUP: Final = 65_536
_LAST_ROUND: Final = int(np.iinfo(np.int32).max)


class VerdictWriter:
    """Writes verdicts round by round; the file appears under its name only when it is whole.

    `signature` says what made the verdicts (methods, settings, seed, versions) and is kept as JSON in the file's
    metadata. Use as a context manager: it publishes at a normal end and leaves nothing behind after an exception.
    Raises OutputExists (exit 2) where `path` exists and `force` is not set, OutputError (exit 6) where it cannot be
    written, and UnusableInput (exit 4) for rounds and ids that the table cannot hold.
    """

    def __init__(self, path: str | Path, *, signature: Mapping[str, Any], force: bool = False) -> None:
        self.path = Path(path)
        metadata = {VERSION_KEY: SCHEMA_VERSION, SIGNATURE_KEY: json.dumps(signature, sort_keys=True)}
        self._schema = SCHEMA.with_metadata(metadata)
        self._last_round = -1
        self._buffer: list[dict[str, Any]] = []
        self._buffered = 0
        self._closed = False
        self._publication = published(self.path, force=force)
        partial = self._publication.__enter__()
        with self._undone_on_error():
            self._parquet = pq.ParquetWriter(partial, self._schema, compression="zstd")

    def add_round(
        self,
        number: int,
        decisions: Sequence[tuple[str, Decision]],
        trusted: AbstractSet[str],
        poisoned: Mapping[str, bool] | Mapping[str, bool | None],
        attack: Mapping[str, str],
    ) -> None:
        """Add a round: `decisions` are (method's canonical text, decision); facts are by client id, unknown if absent.

        Rounds come in ascending order, each once.
        """
        if self._closed:
            raise ValueError("the verdicts are closed")
        if not 0 <= number <= _LAST_ROUND:
            raise UnusableInput(f"round {number} does not fit the verdict table", hint="rounds are 0 to 2147483647")
        if number <= self._last_round:
            raise ValueError(f"round {number} comes after round {self._last_round}")
        if len({method for method, _ in decisions}) != len(decisions):
            raise ValueError(f"round {number}: two decisions of one method")
        self._last_round = number
        for method, decision in decisions:
            self._buffer.append(_columns(number, method, decision, trusted, poisoned, attack))
            self._buffered += len(decision.clients)
        if self._buffered >= ROWS_IN_GROUP:
            self._flush()

    def close(self) -> Path:
        """Write what is buffered and publish the file; returns its path."""
        if not self._closed:
            with self._undone_on_error():
                self._flush()
                self._parquet.close()
                self._closed = True
            self._publication.__exit__(None, None, None)
        return self.path

    def abort(self) -> None:
        """Give up: nothing is left behind."""
        if not self._closed:
            self._undo(_AbandonedError())

    def __enter__(self) -> "VerdictWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _flush(self) -> None:
        """Write the buffered rounds as one row group."""
        if not self._buffered:
            return
        parts, self._buffer, self._buffered = self._buffer, [], 0
        arrays = [_array(field, [part[field.name] for part in parts]) for field in self._schema]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        with writing(self.path):
            self._parquet.write_table(table, row_group_size=len(table))

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Where the body fails, leave nothing behind; a refusal of the operating system becomes an OutputError."""
        try:
            yield
        except BaseException as error:
            self._undo(error)
            raise

    def _undo(self, error: BaseException) -> None:
        self._closed = True
        with suppress(OSError, AttributeError):  # a full disk may refuse even this; it may not be open yet
            self._parquet.close()
        self._publication.__exit__(type(error), error, error.__traceback__)


class _AbandonedError(Exception):
    """Tells the publication that there will be no file."""


def _columns(
    number: int,
    method: str,
    decision: Decision,
    trusted: AbstractSet[str],
    poisoned: Mapping[str, bool] | Mapping[str, bool | None],
    attack: Mapping[str, str],
) -> dict[str, Any]:
    """One decision as columns by name: numbers as arrays (NaN is null), words as sequences, None for all null."""
    n = len(decision.clients)
    if np.isnan(decision.score).any():
        raise ValueError(f"round {number}, {method}: a score is NaN")
    plane = decision.plane
    return {
        "round": np.full(n, number, dtype=np.int32),
        "client_id": decision.clients,
        "method": (method,) * n,
        "accepted": np.asarray(decision.accepted, dtype=bool),
        "score": np.asarray(decision.score, dtype=np.float64),
        "statistic": _numbers(decision.statistic, n),
        "threshold": np.full(n, np.nan if decision.threshold is None else decision.threshold),
        "weight": _numbers(decision.weight, n),
        "reason": decision.reason,
        "cluster": (np.zeros(n, dtype=np.int32), np.ones(n, dtype=bool))
        if decision.cluster is None
        else (np.asarray(decision.cluster, dtype=np.int32), np.zeros(n, dtype=bool)),
        "x": _numbers(None if plane is None else plane[:, 0], n),
        "y": _numbers(None if plane is None or plane.shape[1] < 2 else plane[:, 1], n),
        "trusted": np.array([client in trusted for client in decision.clients], dtype=bool),
        "poisoned": [poisoned.get(client) for client in decision.clients],
        "attack": [attack.get(client) or None for client in decision.clients],
    }


def _numbers(values: NDArray[np.float64] | None, n: int) -> NDArray[np.float64]:
    return np.full(n, np.nan) if values is None else np.asarray(values, dtype=np.float64)


def _array(field: pa.Field, parts: list[Any]) -> pa.Array:
    """Join the parts of one column into an array of the field's type."""
    if pa.types.is_dictionary(field.type):
        return _words(field, chain.from_iterable(parts))
    if field.name == "poisoned":
        return pa.array(list(chain.from_iterable(parts)), type=field.type)
    if field.name == "cluster":
        values, missing = (np.concatenate(column) for column in zip(*parts, strict=True))
        return pa.array(values, type=field.type, mask=missing)
    values = np.concatenate(parts)
    return pa.array(values, type=field.type, mask=np.isnan(values) if field.nullable else None)


def _words(field: pa.Field, words: Iterable[str | None]) -> pa.DictionaryArray:
    """A dictionary column, its dictionary in order of first appearance."""
    codes: dict[str, int] = {}
    indices = [None if word is None else codes.setdefault(word, len(codes)) for word in words]
    try:
        dictionary = pa.array(list(codes), type=pa.string())
    except UnicodeEncodeError as error:
        raise UnusableInput(f"{field.name} {error.object!r} is not valid Unicode") from error
    return pa.DictionaryArray.from_arrays(pa.array(indices, type=pa.int32()), dictionary)
