"""What `encagg filter --trace` kept, as far as a picture needs it: radii, both planes, pseudo-gradients."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encagg_cli.errors import UnusableInput

_DIGITS = 4  # of scores and coordinates: a picture needs no more, and a page with 10,000 rows stays small


def short(value: float) -> float | None:
    """A number as a picture needs it; None for NaN and infinities."""
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None


def read_traces(
    path: Path, rounds: Sequence[int], methods: Sequence[str], clients: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """By round and method: the radius, and the second clustering with its pseudo-gradients where there was one.

    Only the given rounds and methods are read; clients become their place in `clients`. Raises UnusableInput for a
    file that is not a trace, or not one of these verdicts.
    """
    import h5py

    from encagg_cli.verdicts.trace import FORMAT, FORMAT_VERSION

    place = {client: index for index, client in enumerate(clients)}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
                raise UnusableInput(f"{path} is not a trace of this version", hint="`encagg filter --trace` writes one")
            stored = file.get("rounds", {})
            for number in rounds:
                kept = stored.get(f"{number:06d}", {})
                by_method = {name: kept[stored_name] for name in methods if (stored_name := _stored(name)) in kept}
                if by_method:
                    found[str(number)] = {name: _trace(group, place) for name, group in by_method.items()}
    except UnusableInput:
        raise
    except (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnusableInput(f"cannot read the trace {path}: {reason}") from error
    if not found:
        raise UnusableInput(
            f"{path} traces none of the rounds and methods of these verdicts",
            hint="give the trace that the same `encagg filter` wrote",
        )
    return found


def _stored(method: str) -> str:
    return method.replace("/", "∕")  # as the trace writer does: HDF5 would make a group of what is before a slash


def _trace(group: Any, place: Mapping[str, int]) -> dict[str, Any]:
    _clients(group, "clients", place)  # all of them must be clients of the verdicts
    shown: dict[str, Any] = {"radius": _number(group, "radius")}
    if "second_plane" in group:
        clients = _clients(group, "second_clients", place)
        points = _points(group, "second_plane", len(clients))
        clusters = np.asarray(group["second_cluster"])
        if clusters.shape != (len(clients),):
            raise ValueError(f"{group.name}: clusters and clients of the second plane differ in number")
        pseudo = _points(group, "pseudo") if "pseudo" in group else []
        inside = np.asarray(group["pseudo_inside"]) if "pseudo_inside" in group else np.zeros(len(pseudo), dtype=bool)
        if inside.shape != (len(pseudo),):
            raise ValueError(f"{group.name}: pseudo_inside is not one value for every pseudo-gradient")
        shown["second"] = {
            "radius": _number(group, "second_radius"),
            "client": clients,
            "x": [x for x, _ in points],
            "y": [y for _, y in points],
            "cluster": [int(label) for label in clusters],
            "pseudo": [[*point, int(flag)] for point, flag in zip(pseudo, inside, strict=True)],
        }
    return shown


def _clients(group: Any, name: str, place: Mapping[str, int]) -> list[int]:
    clients = [client.decode("utf-8") for client in group[name][()]]
    for client in clients:
        if client not in place:
            raise UnusableInput(
                f"the trace {group.file.filename} is of other clients: {client[:60]!r} has no verdict",
                hint="give the trace that the same `encagg filter` wrote",
            )
    return [place[client] for client in clients]


def _number(group: Any, name: str) -> float | None:
    return short(float(group[name][()])) if name in group else None


def _points(group: Any, name: str, rows: int | None = None) -> list[tuple[float | None, float | None]]:
    """The first two columns of a table of coordinates; a missing second one is 0."""
    values = np.asarray(group[name], dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0 or (rows is not None and len(values) != rows):
        raise ValueError(f"{group.name}/{name} is not a table of coordinates")
    second = values[:, 1] if values.shape[1] > 1 else np.zeros(len(values))
    return [(short(x), short(y)) for x, y in zip(values[:, 0], second, strict=True)]
