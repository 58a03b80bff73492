"""An update as training has it, arrays or tensors by name, written into one vector of the stored type.

Tensors are known by what they can do (`detach`, `cpu`), so that recording imports no torch.
"""

import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from encagg_cli.capture.selection import by_name
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.rounds.encoding import decode, encode
from encagg_cli.rounds.layout import BARE_VECTOR, ROLE_OUTPUT, Parameter, StoredType

Update: TypeAlias = Any
"""A numpy array, a torch tensor, anything numpy understands as an array, or a mapping of names to those."""

_NUMBERS: Final = "fiub"
_NO_NUMBERS: Final = "cOSUmM"
_SAME_TENSORS: Final = "all updates of a run, and its global models, have the same tensors"


def bare_parameters(size: int) -> tuple[Parameter, ...]:
    """The one tensor of an update without names."""
    return (Parameter(BARE_VECTOR, (size,), 0),)


def parameters_of(
    tensors: Mapping[str, Any], *, keep_order: bool, output_layer: str | None = None
) -> tuple[Parameter, ...]:
    """The tensors of a model in flattening order: as given (`keep_order`) or by name.

    Those whose names begin with `output_layer` are marked as the output layer; without it, the last tensor and those
    before it that belong to the same module (`fc.weight`, `fc.bias`). Raises UsageError where none has that name.
    """
    names = list(tensors) if keep_order else by_name(tensors)
    shapes = {name: shape_of(tensors[name]) for name in names}
    output = output_names(names, output_layer)
    parameters = []
    offset = 0
    for name in names:
        parameters.append(Parameter(name, shapes[name], offset, ROLE_OUTPUT if name in output else ""))
        offset += parameters[-1].size
    return tuple(parameters)


def output_names(names: Iterable[str], output_layer: str | None) -> set[str]:
    """Which tensors make up the output layer (see `parameters_of`)."""
    names = list(names)
    if output_layer is not None:
        found = {name for name in names if name.startswith(output_layer)}
        if not found:
            raise UsageError(f"no tensor's name begins with {output_layer!r}", hint=f"there are {', '.join(names[:8])}")
        return found
    if not names or names == [BARE_VECTOR]:
        return set()
    module, dot, _ = names[-1].rpartition(".")
    found = set()
    for name in reversed(names):
        if name != names[-1] and not (dot and name.rpartition(".")[0] == module):
            break
        found.add(name)
    return found


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an array, a tensor, or what NumPy makes an array of; raises UnusableInput where it cannot."""
    try:
        return tuple(int(length) for length in (value.shape if hasattr(value, "shape") else np.shape(value)))
    except (TypeError, ValueError):
        raise UnusableInput(
            f"a {type(value).__name__} is no array",
            hint="an update is an array, a tensor, or a mapping of names to those",
        ) from None


def flatten(
    update: Update, parameters: tuple[Parameter, ...], stored_type: StoredType, out: NDArray[np.generic], whose: str
) -> bool:
    """Write an update into `out` (n_parameters,), of the stored type; whether a finite value became infinite there.

    Raises UnusableInput, naming `whose` update it is and the tensor, where it does not have these tensors.
    """
    check(update, parameters, whose)
    return fill(update, parameters, stored_type, out, whose)


def fill(
    update: Update, parameters: tuple[Parameter, ...], stored_type: StoredType, out: NDArray[np.generic], whose: str
) -> bool:
    """`flatten` of an update that has passed `check`."""
    if not isinstance(update, Mapping):
        return _encode(update, stored_type, out, whose)
    overflowed = False
    for parameter in parameters:
        part = out[parameter.offset : parameter.offset + parameter.size]
        overflowed |= _encode(update[parameter.name], stored_type, part, whose, parameter.name)
    return overflowed


def check(update: Update, parameters: tuple[Parameter, ...], whose: str) -> None:
    """Raise UnusableInput where an update has not exactly these tensors, or, as a bare vector, not their total size."""
    if not isinstance(update, Mapping):
        check_kinds(update, whose)
        size = prod(shape_of(update))
        expected = sum(parameter.size for parameter in parameters)
        if size != expected:
            raise UnusableInput(f"{whose}: {size} values, where {expected} were expected")
        return
    has_values = parameters and parameters[-1].offset + parameters[-1].size
    if has_values and len(update) == len(parameters) and all(_is_as_expected(update, one) for one in parameters):
        return
    check_kinds(update, whose)
    for parameter in parameters:
        if parameter.name not in update:
            raise UnusableInput(f"{whose}: there is no tensor {parameter.name!r}", hint=_SAME_TENSORS)
        shape = shape_of(update[parameter.name])
        if shape != parameter.shape:
            raise UnusableInput(
                f"{whose}: tensor {parameter.name!r} has the shape {shape}, where {parameter.shape} was expected"
            )
    if len(update) != len(parameters):
        extra = next(name for name in update if name not in {parameter.name for parameter in parameters})
        raise UnusableInput(f"{whose}: tensor {extra!r} was not expected", hint=_SAME_TENSORS)


def _is_as_expected(update: Mapping[str, Any], parameter: Parameter) -> bool:
    """Whether a tensor is there, of its shape, and says that it holds real numbers: nearly always, so this is short."""
    tensor = update.get(parameter.name)
    kind = getattr(tensor, "dtype", None)
    return kind is not None and getattr(tensor, "shape", None) == parameter.shape and _holds_real_numbers(kind)


@lru_cache(maxsize=64)
def _holds_real_numbers(kind: Any) -> bool:
    """Whether a NumPy or tensor type is one of real numbers, as far as it says."""
    letter = getattr(kind, "kind", None)
    return "complex" not in str(kind) if letter is None else letter not in _NO_NUMBERS


def check_kinds(update: Update, whose: str) -> None:
    """Raise UnusableInput where an update holds nothing, or something that is no real number.

    So nothing is decided by an upload that cannot be stored. What does not say what it holds is seen when it is read.
    """
    tensors = update if isinstance(update, Mapping) else {"": update}
    if not all(isinstance(name, str) for name in tensors):
        raise UnusableInput(f"{whose}: the tensors of an update are named by texts")
    if not any(prod(shape_of(tensor)) for tensor in tensors.values()):
        raise UnusableInput(f"{whose}: the update holds no values")
    for name, tensor in tensors.items():
        kind = getattr(tensor, "dtype", None)
        if not _holds_real_numbers(kind):
            where = f"{whose}: tensor {name!r}" if name else whose
            raise UnusableInput(f"{where}: {kind} cannot be stored, only real numbers")


def _encode(value: Any, stored_type: StoredType, out: NDArray[np.generic], whose: str, name: str = "") -> bool:
    array, is_bfloat16 = as_array(value)
    if is_bfloat16:
        if stored_type == "bfloat16":
            out[...] = array.reshape(-1)
            return False
        single = np.empty(array.size, dtype=np.float32)
        decode(array.reshape(-1), "bfloat16", single)
        array = single
    if array.dtype.kind not in _NUMBERS:
        where = f"{whose}: tensor {name!r}" if name else whose
        raise UnusableInput(f"{where}: {array.dtype} cannot be stored, only real numbers")
    return encode(array.reshape(-1), stored_type, out)


def as_array(value: Any) -> tuple[NDArray[Any], bool]:
    """The values as a numpy array, copied only where needed; (bits as uint16, True) where they are bfloat16."""
    if type(value) is np.ndarray and value.dtype.isbuiltin == 1:
        return value, False
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        tensor = value.detach().cpu()
        if getattr(tensor, "is_sparse", False):
            tensor = tensor.to_dense()
        kind = str(tensor.dtype)
        if kind == "torch.bfloat16":
            return tensor.contiguous().view(sys.modules["torch"].int16).numpy().view(np.uint16), True
        if "float8" in kind:
            tensor = tensor.float()
        return tensor.numpy(), False
    array = np.asarray(value)
    if array.dtype.type.__name__ == "bfloat16":  # of ml_dtypes, as JAX has it
        return np.ascontiguousarray(array).view(np.uint16), True
    return array, False
