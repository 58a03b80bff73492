"""PyTorch files: a state dictionary or one tensor, loaded as weights only. Torch is imported when one is met."""

import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.capture.tensors import BARE_NAME, Entry, TensorFile, check_expansion
from encagg_cli.errors import UnusableInput

if TYPE_CHECKING:
    import torch

_SAVE_PLAIN = "save the tensors alone: torch.save(model.state_dict(), …)"


class TorchFile(TensorFile):
    """What torch.save wrote: a mapping of names to tensors in its own order, or one bare tensor. Read at once."""

    def load_entries(self) -> None:
        self._tensors = self._load()
        for name, tensor in self._tensors.items():
            self._check(name, tensor)
            n_bytes = tensor.numel() * tensor.element_size()
            self.entries[name] = Entry(tuple(tensor.shape), tensor.dtype.is_floating_point, n_bytes)

    def _load(self) -> "dict[str, torch.Tensor]":
        if not zipfile.is_zipfile(self.stream):
            # The formats before torch 1.6 say how much memory to take before they show that they have it.
            raise UnusableInput(
                f"{self.path} is cut short, or not in the format of torch 1.6 and later", hint="save it with torch.save"
            )
        unfolded = sum(member.file_size for member in zipfile.ZipFile(self.stream).infolist())
        check_expansion(self.path, unfolded, self.n_bytes)
        import torch

        self.stream.seek(0)
        try:
            content = torch.load(self.stream, map_location="cpu", weights_only=True)
        except Exception as error:
            if "weights_only" not in str(error).lower():
                raise
            raise UnusableInput(
                f"{self.path} holds Python objects, which are never loaded", hint=_SAVE_PLAIN
            ) from error
        if isinstance(content, torch.Tensor):
            self.is_bare = True
            return {BARE_NAME: content}
        if not isinstance(content, Mapping):
            raise UnusableInput(f"{self.path} holds a {type(content).__name__}, not tensors", hint=_SAVE_PLAIN)
        for name, value in content.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise UnusableInput(
                    f"{self.path} is not a state dictionary: {name!r} is a {type(value).__name__}", hint=_SAVE_PLAIN
                )
        return dict(content)

    def _check(self, name: str, tensor: "torch.Tensor") -> None:
        import torch

        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.is_complex():
            raise UnusableInput(f"{self.path}: tensor {name!r} is not a plain tensor of real numbers", hint=_SAVE_PLAIN)

    def _values(self, name: str) -> NDArray[Any]:
        import torch

        tensor = self._tensors[name].detach().resolve_neg()
        if tensor.dtype.is_floating_point and tensor.dtype not in {torch.float16, torch.float32, torch.float64}:
            tensor = tensor.to(torch.float32)  # exact: bfloat16 and the 8-bit types are narrower
        return np.asarray(tensor.numpy())
