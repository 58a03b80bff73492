"""Safetensors files, bfloat16 included, without torch.

The safetensors library checks the file (header, types, that the tensors fill the data without holes or overlaps). It
cannot hand bfloat16 to NumPy, so the values are then read from the places that the checked header names.
"""

import json
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from encagg_cli.capture.tensors import Entry, TensorFile
from encagg_cli.errors import UnusableInput

_BFLOAT16: Final = "BF16"
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


class SafetensorsFile(TensorFile):
    """The tensors in the order of their data."""

    has_order = False

    def load_entries(self) -> None:
        with safe_open(self.path, framework="numpy") as checked:
            self.metadata = checked.metadata() or {}
        header_bytes = int.from_bytes(self.stream.read(8), "little")
        header: dict[str, Any] = json.loads(self.stream.read(header_bytes))
        header.pop("__metadata__", None)
        self._start = 8 + header_bytes
        self._places: dict[str, tuple[str, int]] = {}
        # A tensor without values begins where the next one does: the end decides, then the name.
        for name, tensor in sorted(header.items(), key=lambda item: (*item[1]["data_offsets"], item[0])):
            kind = tensor["dtype"]
            if kind not in _DTYPES:
                raise UnusableInput(f"{self.path}: tensor {name!r} is of type {kind}, which cannot be read")
            begin, end = tensor["data_offsets"]
            shape = tuple(tensor["shape"])
            if prod(shape) * _DTYPES[kind].itemsize != end - begin or self._start + end > self.n_bytes:
                raise UnusableInput(f"{self.path} changed while it was read")
            self.entries[name] = Entry(shape, kind.startswith(("F", "BF")), end - begin)
            self._places[name] = (kind, self._start + begin)

    def _values(self, name: str) -> NDArray[Any]:
        kind, place = self._places[name]
        entry = self.entries[name]
        self.stream.seek(place)
        values = np.fromfile(self.stream, dtype=_DTYPES[kind], count=entry.size)
        if values.size != entry.size:
            raise UnusableInput(f"{self.path} was cut short while it was read")
        if kind == _BFLOAT16:  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(entry.shape)
