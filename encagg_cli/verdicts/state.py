"""What filters carry from round to round, in a file: `--state FILE` lets a later replay go on where one stopped."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.filters import Filter
from encagg_cli.outputs import published

FORMAT = "encagg-state"
FORMAT_VERSION = 1


def save_state(path: Path, methods: Mapping[str, Filter], *, last_round: int) -> None:
    """Write every method's state; an existing file is replaced, whole or not at all."""
    with published(path, force=True) as partial, h5py.File(partial, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["last_round"] = last_round
        for index, (text, chosen) in enumerate(methods.items()):
            group = file.create_group(f"{index:03d}")
            group.attrs["method"] = text
            for name, value in chosen.state_dict().items():
                group.create_dataset(name, data=value)


def load_state(path: Path, methods: Mapping[str, Filter], *, first_round: int) -> list[str]:
    """Restore the methods' states; returns the texts of the methods that the file does not know.

    Raises UnusableInput where the file is not one of ours, UsageError where it already saw `first_round`.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
                raise UnusableInput(f"{path} is not a state file of this version")
            last_round = int(file.attrs["last_round"])
            states = {str(group.attrs["method"]): _read(group) for group in file.values()}
    except (OSError, KeyError, AttributeError) as error:
        raise UnusableInput(f"cannot read the state file {path}: {error}") from error
    if first_round <= last_round:
        raise UsageError(
            f"{path} has already seen round {last_round}, and round {first_round} is to be filtered",
            hint=f"--rounds {last_round + 1}: goes on from there; another --state file starts afresh",
        )
    for text, chosen in methods.items():
        if text in states:
            chosen.load_state_dict(states[text])
    return [text for text in methods if text not in states]


def _read(group: h5py.Group) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, dataset in group.items():
        if math.prod(dataset.shape) > 2**31:
            raise UnusableInput(f"{group.file.filename}: {dataset.name} is too large to be a state")
        value = dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()]
        state[name] = value.item() if isinstance(value, np.generic) else value
    return state
