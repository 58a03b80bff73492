"""Tensor files as updates: the tensors that count, less the global model where files hold whole models.

Nothing is read before its values are asked for, so that shapes can be compared first and one tensor at a time is in
memory.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from encagg_cli.capture.doubts import is_close, squares
from encagg_cli.capture.selection import Selection
from encagg_cli.capture.tensors import BARE_NAME, TensorFile
from encagg_cli.errors import UnusableInput

_MOST_DIGITS: Final = 18  # of a 64-bit integer


class LazyTensor:
    """A tensor that is read when NumPy makes an array of it."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]) -> None:
        self.shape = shape
        self._read = read

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self._read()
        return values if dtype is None else values.astype(dtype, copy=False)


FileUpdate: TypeAlias = "Mapping[str, LazyTensor] | LazyTensor"
"""An update by tensor names, or, of a file with one unnamed array, that array."""


class GlobalModel:
    """The values of a model file, kept while a round's updates are measured against it."""

    def __init__(self, tensors: TensorFile) -> None:
        self.tensors = tensors
        self._values: dict[str, NDArray[Any]] = {}

    def shape(self, name: str) -> tuple[int, ...] | None:
        entry = self.tensors.entries.get(name)
        return None if entry is None else entry.shape

    def values(self, name: str) -> NDArray[Any]:
        if name not in self._values:
            self._values[name] = self.tensors.read(name)
        return self._values[name]


def update_of(tensors: TensorFile, selection: Selection, base: GlobalModel | None = None) -> FileUpdate:
    """The update that a file holds; with a `base`, its tensors less those of the base, in float64.

    An unnamed array is taken whole, whatever the selection says. Raises UnusableInput where nothing is selected, and
    where the base lacks a tensor or has it in another shape.
    """
    names = [BARE_NAME] if tensors.is_bare else [*selection.taken(tensors.entries)]
    if not names:
        raise UnusableInput(
            f"{tensors.path} holds no tensor that belongs to an update",
            hint=f"it holds {', '.join(tensors.entries) or 'nothing'}; --include '*' takes all, --exclude leaves out",
        )
    if base is not None:
        for name in names:
            _check_base(tensors, base, name)
    update = {name: LazyTensor(tensors.entries[name].shape, _reader(tensors, base, name)) for name in names}
    return update[BARE_NAME] if tensors.is_bare else update


def _reader(tensors: TensorFile, base: GlobalModel | None, name: str) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        values = tensors.read(name)
        if base is None:
            return values
        with np.errstate(invalid="ignore"):  # infinity less infinity: stored as NaN, and rejected by the filters
            difference: NDArray[np.float64] = np.subtract(values, base.values(name), dtype=np.float64)
        return difference

    return read


def _check_base(tensors: TensorFile, base: GlobalModel, name: str) -> None:
    expected = base.shape(name)
    if expected is None or base.tensors.is_bare != tensors.is_bare:
        raise UnusableInput(f"{tensors.path}: tensor {name!r} is not in {base.tensors.path.name}")
    if expected != tensors.entries[name].shape:
        raise UnusableInput(
            f"{tensors.path}: tensor {name!r} has the shape {tensors.entries[name].shape}, "
            f"where {base.tensors.path.name} has {expected}"
        )


def looks_like_a_model(tensors: TensorFile, model: GlobalModel, selection: Selection) -> bool:
    """Whether a file holds something so close to the global model that it is a model itself, and no update of one."""
    if tensors.is_bare != model.tensors.is_bare:
        return False
    distance = size = 0.0
    for name, entry in tensors.entries.items():
        if (tensors.is_bare or selection.takes(name, entry)) and model.shape(name) == entry.shape:
            further = squares(tensors.read(name), model.values(name))
            distance, size = distance + further[0], size + further[1]
    return is_close(distance, size)


def num_examples_of(tensors: TensorFile) -> int | None:
    """The number of training examples that a .safetensors file names as `num_examples` in its metadata, if it does."""
    text = tensors.metadata.get("num_examples", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise UnusableInput(f"{tensors.path}: num_examples is {text!r}, not a number of examples")
    return int(text)
