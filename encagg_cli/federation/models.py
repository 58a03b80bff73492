"""The models that clients train, and how their parameters lie in an update's vector.

Initial parameters come from a seed alone: uniform in ±1/√fan-in, as in torch's own layers. No model has buffers (such
as batch normalisation's), so that the parameters are the whole state.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encagg_cli.errors import UsageError
from encagg_cli.federation.datasets import Dataset
from encagg_cli.rounds.layout import ROLE_OUTPUT, Parameter


def _logistic(dataset: Dataset) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(dataset.shape)), dataset.classes))


def _mlp(dataset: Dataset) -> nn.Module:
    hidden = 64
    inputs = int(np.prod(dataset.shape))
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, dataset.classes))


def _cnn(dataset: Dataset) -> nn.Module:
    """Two convolutions and one fully connected layer, as EnCAgg's paper uses for MNIST."""
    channels, height, width = dataset.shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), dataset.classes),
    )


_MODELS: dict[str, Callable[[Dataset], nn.Module]] = {"logistic": _logistic, "mlp": _mlp, "cnn": _cnn}
DEFAULT_MODEL = {"digits": "mlp", "mnist": "mlp", "cifar10": "cnn"}


def names() -> tuple[str, ...]:
    """Names of all models."""
    return tuple(_MODELS)


class Model:
    """A torch model seen as one float32 vector of its parameters, in the order of `parameters`."""

    def __init__(self, name: str, dataset: Dataset, device: torch.device | str = "cpu") -> None:
        if name not in _MODELS:
            raise UsageError(f"there is no model {name!r}", hint=f"choose from {', '.join(_MODELS)}")
        self.name = name
        self.device = torch.device(device)
        with torch.device("meta"):  # built without values: torch would draw them from its global generator
            module = _MODELS[name](dataset)
        self.module = module.to_empty(device=self.device)
        self.parameters = _layout(self.module)
        self.n_parameters = sum(parameter.size for parameter in self.parameters)

    def initial(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A fresh parameter vector, (n_parameters,)."""
        vector = np.empty(self.n_parameters, dtype=np.float32)
        bound = 0.0
        for parameter in self.parameters:
            if len(parameter.shape) > 1:  # a bias follows its weight and shares its bound
                bound = 1.0 / np.sqrt(np.prod(parameter.shape[1:]))
            vector[parameter.offset : parameter.offset + parameter.size] = rng.uniform(-bound, bound, parameter.size)
        return vector

    def load(self, vector: NDArray[np.float32]) -> None:
        """Set all parameters."""
        values = torch.from_numpy(vector).to(self.device)
        with torch.no_grad():
            for spec, tensor in zip(self.parameters, self.module.parameters(), strict=True):
                tensor.copy_(values[spec.offset : spec.offset + spec.size].view(spec.shape))

    def vector(self) -> NDArray[np.float32]:
        """All parameters, (n_parameters,)."""
        return _flat([tensor.detach() for tensor in self.module.parameters()])

    def gradient(self) -> NDArray[np.float32]:
        """The gradients of the last backward pass, (n_parameters,)."""
        gradients = [tensor.grad for tensor in self.module.parameters()]
        return _flat([gradient for gradient in gradients if gradient is not None])


def _flat(tensors: list[torch.Tensor]) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().numpy()
    return vector


def _layout(module: nn.Module) -> tuple[Parameter, ...]:
    """Names, shapes and offsets of the parameters; those of the last layer have the role "output"."""
    named = [(name, tuple(tensor.shape)) for name, tensor in module.named_parameters()]
    output_layer = named[-1][0].rpartition(".")[0]
    parameters: list[Parameter] = []
    offset = 0
    for name, shape in named:
        parameter = Parameter(name, shape, offset, ROLE_OUTPUT if name.rpartition(".")[0] == output_layer else "")
        parameters.append(parameter)
        offset += parameter.size
    return tuple(parameters)
