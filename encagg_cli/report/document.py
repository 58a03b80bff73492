"""Everything that a report shows, as plain values: the page's script does the rest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli import __version__
from encagg_cli.errors import NothingToDo, UnusableInput
from encagg_cli.verdicts.reader import Verdicts

if TYPE_CHECKING:
    import pyarrow as pa

_DIGITS = 4  # of scores and coordinates: a picture needs no more, and a page with 10,000 rows stays small


def make_document(
    verdicts: Verdicts,
    *,
    trace: Path | None = None,
    score: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Verdicts by method as columns, with what a trace, a score and a run add.

    Raises NothingToDo for an empty file, UnusableInput for a trace that is not one of ours.
    """
    table = verdicts.read()
    if not table.num_rows:
        raise NothingToDo(f"{verdicts.path} holds no verdicts", hint="`encagg filter` writes them")
    clients = sorted(set(table.column("client_id").combine_chunks().dictionary.to_pylist()))
    rounds = np.unique(table.column("round").to_numpy()).tolist()
    return {
        "version": __version__,
        "title": verdicts.path.name,
        "clients": clients,
        "rounds": rounds,
        "methods": [_method(name, part, clients, rounds) for name, part in _by_method(table)],
        "traces": {} if trace is None else read_traces(trace),
        "score": score,
        "run": run,
        "signature": verdicts.signature,
    }


def _by_method(table: "pa.Table") -> "list[tuple[str, pa.Table]]":
    import pyarrow.compute as pc

    methods = table.column("method").cast("string")
    names = list(dict.fromkeys(methods.to_pylist()))
    return [(name, table.filter(pc.equal(methods, name))) for name in names]


def _method(name: str, table: "pa.Table", clients: Sequence[str], rounds: Sequence[int]) -> dict[str, Any]:
    reasons = table.column("reason").cast("string").to_pylist()
    words = list(dict.fromkeys(reasons))
    attacks = table.column("attack").cast("string").to_pylist()
    names = [attack for attack in dict.fromkeys(attacks) if attack is not None]
    place = {client: index for index, client in enumerate(clients)}
    round_place = {number: index for index, number in enumerate(rounds)}
    threshold = _numbers(table, "threshold")
    known = threshold[np.isfinite(threshold)]
    return {
        "name": name,
        "reasons": words,
        "attacks": names,
        "threshold": _short(known[0]) if len(known) and (known == known[0]).all() else None,
        "round": [round_place[number] for number in table.column("round").to_pylist()],
        "client": [place[client] for client in table.column("client_id").cast("string").to_pylist()],
        "accepted": [int(kept) for kept in table.column("accepted").to_pylist()],
        "trusted": [int(flag) for flag in table.column("trusted").to_pylist()],
        "poisoned": [None if label is None else int(label) for label in table.column("poisoned").to_pylist()],
        "attack": [None if attack is None else names.index(attack) for attack in attacks],
        "reason": [words.index(reason) for reason in reasons],
        "score": [_short(value) for value in _numbers(table, "score")],
        "cluster": table.column("cluster").to_pylist(),
        "x": [_short(value) for value in _numbers(table, "x")],
        "y": [_short(value) for value in _numbers(table, "y")],
    }


def _numbers(table: "pa.Table", column: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = table.column(column).to_numpy().astype(np.float64)
    return values


def _short(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None


def read_traces(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Radius and pseudo-gradients by round and method, from a trace file."""
    import h5py

    from encagg_cli.verdicts.trace import FORMAT, FORMAT_VERSION

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
                raise UnusableInput(f"{path} is not a trace of this version", hint="`encagg filter --trace` writes one")
            return {
                str(int(number)): {method.replace("∕", "/"): _trace(group) for method, group in methods.items()}
                for number, methods in file.get("rounds", {}).items()
            }
    except (OSError, ValueError, AttributeError) as error:
        raise UnusableInput(f"cannot read the trace {path}: {error}") from error


def _trace(group: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if "radius" in group:
        shown["radius"] = _short(float(np.asarray(group["radius"]).reshape(-1)[0]))
    for name in ("pseudo", "second_pseudo"):
        if name in group and np.ndim(group[name]) == 2:
            points = np.asarray(group[name])[:, :2]
            shown[name] = [[_short(value) for value in point] for point in points]
    return shown
