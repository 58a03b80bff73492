"""What a spool says of its clients: labels.csv (who poisoned when) and trusted.txt (who is known to be benign)."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from encagg_cli.capture.tensors import open_regular
from encagg_cli.errors import UnusableInput

_TRUTH: Final = {"1": True, "true": True, "0": False, "false": False, "": None}
_LABEL_COLUMNS: Final = ("poisoned", "malicious")  # the first that is there counts
_MOST_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class Label:
    """Whether an upload was crafted or trained to harm (None: unknown), and by which attack ("": unknown or none)."""

    poisoned: bool | None = None
    attack: str = ""


UNLABELLED: Final = Label()


def read_labels(path: Path) -> Mapping[tuple[int, str], Label]:
    """The labels by round and client, from a CSV file with the columns `round,client_id,poisoned[,attack]`.

    `poisoned` may be called `malicious`, and is 0, 1, true, false, or empty for unknown. Further columns are ignored.
    Raises UnusableInput with the line where a value cannot be read, or where two lines say different things.
    """
    rows = csv.reader(_lines(path), strict=True)
    labels: dict[tuple[int, str], Label] = {}
    try:
        columns = _columns(next(rows, []), path)
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) < max(columns.values()) + 1:
                raise UnusableInput(f"{where}: {len(row)} values where the heading has more")
            values = {name: row[position].strip() for name, position in columns.items()}
            key = (_round_number(values["round"], where), values["client_id"])
            label = Label(_truth(values["poisoned"], where), values.get("attack", ""))
            if labels.setdefault(key, label) != label:
                raise UnusableInput(f"{where}: round {key[0]}, client {key[1]} is labelled twice, and differently")
    except csv.Error as error:
        raise UnusableInput(f"{path}, line {rows.line_num}: {error}") from error
    return labels


def read_trusted(path: Path) -> tuple[str, ...]:
    """The client ids in a file with one a line; blank lines and lines that begin with # are skipped."""
    ids = (line.strip() for line in _lines(path))
    return tuple(dict.fromkeys(line for line in ids if line and not line.startswith("#")))


def _lines(path: Path) -> Iterator[str]:
    with open_regular(path) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableInput(f"{path} is not UTF-8 text: {error}") from error
    yield from io.StringIO(text, newline="")


def _columns(heading: list[str], path: Path) -> dict[str, int]:
    positions = {name.strip().lower(): position for position, name in reversed(list(enumerate(heading)))}
    named = [name for name in _LABEL_COLUMNS if name in positions]
    if not named or not {"round", "client_id"} <= positions.keys():
        raise UnusableInput(
            f"{path}, line 1: the columns are {', '.join(heading) or 'missing'}",
            hint="the first line must be: round,client_id,poisoned[,attack]",
        )
    columns = {"round": positions["round"], "client_id": positions["client_id"], "poisoned": positions[named[0]]}
    return columns | ({"attack": positions["attack"]} if "attack" in positions else {})


def _round_number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise UnusableInput(f"{where}: {text!r} is not a round number")
    return int(text)


def _truth(text: str, where: str) -> bool | None:
    if text.lower() not in _TRUTH:
        raise UnusableInput(f"{where}: {text!r} says neither poisoned nor honest", hint="write 1 or 0, true or false")
    return _TRUTH[text.lower()]
