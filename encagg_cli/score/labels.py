"""Ground truth from a file or a run: which upload, (round, client), was poisoned, and by which attack.

A label file has the columns `round`, `client_id`, `poisoned` (or `malicious`) and, if it likes, `attack`: as CSV with a
heading, as Parquet, or as JSON: an array of objects, `{"labels": [objects]}`, or one object a line. `poisoned` is
0 or 1, true or false, and empty, null or -1 where the truth is not known. Other columns are ignored.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput

Source = Literal["csv", "parquet", "json", "run", "verdicts", "none"]
Upload = tuple[int, str]
"""Round and client id."""

MISSING: Final = -1
_TRUTH: Final = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": -1, "-1": -1, "-1.0": -1}
_LABEL_COLUMNS: Final = ("poisoned", "malicious")  # the first that is there counts
_COLUMNS_HINT: Final = "labels have the columns round,client_id,poisoned[,attack]"
_CODE_BITS: Final = 32
_CODE_MASK: Final = 2**_CODE_BITS - 1
_LAST_ROUND: Final = 2**31 - 1


@dataclass(frozen=True)
class LabelTable:
    """Known labels, sorted by round and client; rows without a known truth are left out.

    keys        (labels,) int64, unique and ascending: round and client code
    poisoned    (labels,) bool
    attack      (labels,) index into `attacks`
    attacks     names, "" for an attack without one
    clients     client id to client code
    names_attacks  whether the source says anything of attacks
    duplicates  how many labels repeat another one
    """

    source: Source
    keys: NDArray[np.int64]
    poisoned: NDArray[np.bool_]
    attack: NDArray[np.int64]
    attacks: tuple[str, ...]
    clients: dict[str, int]
    names_attacks: bool
    duplicates: int

    def __len__(self) -> int:
        return len(self.keys)

    def rounds(self) -> NDArray[np.int64]:
        """The round of each label."""
        return self.keys >> _CODE_BITS

    def find(self, rounds: NDArray[np.int64], clients: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each upload's label, `MISSING` where it has none; `clients` are codes or `MISSING`."""
        if not len(self):
            return np.full(len(rounds), MISSING, dtype=np.int64)
        wanted = (rounds << _CODE_BITS) + np.maximum(clients, 0)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self) - 1)
        return np.where((self.keys[place] == wanted) & (clients != MISSING), place, MISSING)

    def client_names(self, rows: NDArray[np.int64]) -> set[str]:
        """The clients of some labels."""
        codes = set(np.unique(self.keys[rows] & _CODE_MASK).tolist())
        return {name for name, code in self.clients.items() if code in codes}

    def describe(self, rows: Iterable[int]) -> list[Upload]:
        """Round and client id of some labels."""
        names = {code: name for name, code in self.clients.items()}
        keys = [int(self.keys[row]) for row in rows]
        return [(key >> _CODE_BITS, names[key & _CODE_MASK]) for key in keys]


def read_labels(path: Path) -> LabelTable:
    """Labels from a CSV, Parquet or JSON file, told apart by what is in it. Raises UnusableInput."""
    if not path.is_file():
        hint = (
            f"of a run, say --run {path}" if path.is_dir() else "a CSV, Parquet or JSON file: round,client_id,poisoned"
        )
        raise UnusableInput(f"there is no label file {path}", hint=hint)
    try:
        with path.open("rb") as stream:
            head = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        if head[:4] == b"PAR1":
            return _tabulate("parquet", _parquet_columns(path), str(path))
        if head[:1] in (b"[", b"{"):
            return _tabulate("json", _json_columns(path), str(path))
        return _tabulate("csv", _csv_columns(path), str(path))
    except UnusableInput:
        raise
    except (pa.ArrowException, OSError, ValueError, RecursionError, csv.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnusableInput(f"{path} cannot be read as labels: {reason}", hint=_COLUMNS_HINT) from error


def labels_of_run(path: Path) -> LabelTable:
    """The labels that are stored with a run. Raises UnusableInput."""
    from encagg_cli.rounds.reader import Run  # HDF5 is loaded only for those who need it

    rounds: list[NDArray[np.int64]] = []
    clients: list[str] = []
    truths: list[NDArray[np.int8]] = []
    attacks: list[str] = []
    with Run.open(path) as run:
        for stored in run:
            rounds.append(np.full(len(stored.client_ids), stored.number, dtype=np.int64))
            clients.extend(stored.client_ids)
            truths.append(np.asarray(stored.poisoned, dtype=np.int8))
            attacks.extend(stored.attack)
    columns = {
        "round": pa.array(np.concatenate(rounds)),
        "client_id": pa.array(clients, type=pa.string()),
        "poisoned": pa.array(np.concatenate(truths)),
        "attack": pa.array(attacks, type=pa.string()),
    }
    return _tabulate("run", columns, str(path))


def _csv_columns(path: Path) -> dict[str, pa.Array]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, strict=True)
        heading = next(rows, [])
        lines = rows.line_num
    places = _places(heading, str(path))
    numbered = {name: f"c{place}" for name, place in places.items()}
    table = arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(
            column_names=[f"c{place}" for place in range(len(heading))], skip_rows=lines
        ),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=list(numbered.values()), column_types=dict.fromkeys(numbered.values(), pa.string())
        ),
    )
    return {name: _whole(table.column(column)) for name, column in numbered.items()}


def _parquet_columns(path: Path) -> dict[str, pa.Array]:
    with pq.ParquetFile(path) as file:
        heading = file.schema_arrow.names
        places = _places(heading, str(path))
        table = file.read(columns=[heading[place] for place in places.values()])
        columns = {name: _whole(table.column(heading[place])) for name, place in places.items()}
    for column in columns.values():
        column.validate(full=True)
    return {
        name: column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for name, column in columns.items()
    }


def _json_columns(path: Path) -> dict[str, pa.Array]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(content, dict):
        content = content.get("labels", [content])
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UnusableInput(f"{path} is JSON, but not a list of labels", hint=_COLUMNS_HINT)
    places = _places(list(dict.fromkeys(key for row in content for key in row)), str(path))
    keys = list(dict.fromkeys(key for row in content for key in row))
    return {name: _json_column(name, [row.get(keys[place]) for row in content], path) for name, place in places.items()}


def _json_column(name: str, values: list[Any], path: Path) -> pa.Array:
    if name == "round":
        for row, value in enumerate(values, start=1):
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LAST_ROUND:
                raise UnusableInput(f"{path}, label {row}: {value!r} is not a round number")
        return pa.array(values, type=pa.int64())
    if name == "poisoned":
        return pa.array([None if value is None else str(value) for value in values], type=pa.string())
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str | None):
            raise UnusableInput(f"{path}, label {row}: {name} is {value!r}, not text")
    return pa.array(values, type=pa.string())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    combined = column.unify_dictionaries().combine_chunks() if column.num_chunks else column.combine_chunks()
    return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined


def _places(heading: Sequence[str], where: str) -> dict[str, int]:
    """Where the columns are, by their names in `LabelTable`."""
    found = {name.strip().lower(): place for place, name in reversed(list(enumerate(heading)))}
    label = next((name for name in _LABEL_COLUMNS if name in found), None)
    if label is None or not {"round", "client_id"} <= found.keys():
        columns = ", ".join(heading) if heading else "missing"
        raise UnusableInput(f"{where}: the columns are {columns[:200]}", hint=_COLUMNS_HINT)
    places = {"round": found["round"], "client_id": found["client_id"], "poisoned": found[label]}
    return places | ({"attack": found["attack"]} if "attack" in found else {})


def _tabulate(source: Source, columns: dict[str, pa.Array], where: str) -> LabelTable:
    """Check the columns of a source and sort them into a table."""
    truth = _truths(columns["poisoned"], where)
    known = truth != MISSING
    rounds = _rounds(columns["round"], where)
    if columns["client_id"].null_count:
        raise UnusableInput(f"{where}: a label has no client id", hint=_COLUMNS_HINT)
    clients = columns["client_id"].cast(pa.string()).dictionary_encode()
    names_attacks = "attack" in columns
    attack_names: list[str] = [""]
    attack_codes = np.zeros(len(truth), dtype=np.int64)
    if names_attacks:
        attacks = pc.fill_null(columns["attack"].cast(pa.string()), "").dictionary_encode()
        attack_names = attacks.dictionary.to_pylist()
        attack_codes = attacks.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    keys = (rounds << _CODE_BITS) + clients.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.flatnonzero(known)[np.argsort(keys[known], kind="stable")]
    keys, poisoned, attack = keys[order], truth[order] == 1, attack_codes[order]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[1:] = keys[1:] == keys[:-1]
    names = clients.dictionary.to_pylist()
    differs = np.flatnonzero(repeated[1:] & ((poisoned[1:] != poisoned[:-1]) | (attack[1:] != attack[:-1])))
    if len(differs):
        key = int(keys[differs[0]])
        raise UnusableInput(
            f"{where}: round {key >> _CODE_BITS}, client {names[key & _CODE_MASK]} is labelled twice, and differently"
        )
    return LabelTable(
        source=source,
        keys=keys[~repeated],
        poisoned=poisoned[~repeated],
        attack=attack[~repeated],
        attacks=tuple(attack_names),
        clients={name: code for code, name in enumerate(names)},
        names_attacks=names_attacks,
        duplicates=int(repeated.sum()),
    )


def _truths(column: pa.Array, where: str) -> NDArray[np.int8]:
    """1 poisoned, 0 honest, `MISSING`."""
    encoded = pc.fill_null(column.cast(pa.string()), "").dictionary_encode()
    texts = [text.strip().lower() for text in encoded.dictionary.to_pylist()]
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    for code, text in enumerate(texts):
        if text not in _TRUTH:
            row = int(np.flatnonzero(codes == code)[0]) + 1
            raise UnusableInput(
                f"{where}, label {row}: {text[:60]!r} says neither poisoned nor honest",
                hint="write 1 or 0, true or false",
            )
    return np.asarray(np.array([_TRUTH[text] for text in texts], dtype=np.int8)[codes])


def _rounds(column: pa.Array, where: str) -> NDArray[np.int64]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        digits = pc.fill_null(pc.match_substring_regex(text, r"^[0-9]{1,18}$"), False)
        if not pc.all(digits, min_count=0).as_py():
            row = pc.index(digits, False).as_py()
            raise UnusableInput(f"{where}, label {row + 1}: {str(text[row].as_py())[:60]!r} is not a round number")
        column = text
    if column.null_count:
        raise UnusableInput(f"{where}: a label has no round", hint=_COLUMNS_HINT)
    rounds = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    if len(rounds) and not 0 <= rounds.min() <= rounds.max() <= _LAST_ROUND:
        bad = int(rounds.min()) if rounds.min() < 0 else int(rounds.max())
        raise UnusableInput(f"{where}: there can be no round {bad}")
    return np.asarray(rounds, dtype=np.int64)
