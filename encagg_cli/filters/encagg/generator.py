"""The pseudo-gradient generator: one small network, three losses, one gradient step a round (eqs. 12-13, 17-20).

Everything is in units of ε and relative to the benign centre, so it does not depend on the scale of the updates. The
network is float64 and runs on one thread, so a seed gives the same points on any number of threads. Importing this
module loads torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from encagg_cli.errors import UnusableInput

_TINY = 1e-24  # keeps the gradient of a square root finite at zero
_ADAM = (0.9, 0.999, 1e-8)  # decay of the mean, decay of the square, floor: Adam's usual constants


@dataclass(frozen=True)
class GeneratorSettings:
    """Sizes, rate and the constants of the losses; lengths (`tau`, `rho`) are in units of ε."""

    n_gen: int
    noise_dim: int
    width: int
    learning_rate: float
    w0: float
    w1: float
    tau: float
    rho: float
    alpha: float
    beta: float
    seed: int

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the three shared layers, then of the two heads."""
        sizes = (self.noise_dim, self.width, self.width, self.width)
        return (*pairwise(sizes), (self.width, 2), (self.width, 1))


@dataclass(frozen=True)
class Proposal:
    """One round's draw: noise (n_gen, noise_dim), points (n_gen, 2) in (-1, 1)², confidence (n_gen,) in (0, 1)."""

    noise: NDArray[np.float64]
    points: NDArray[np.float64]
    confidence: NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """Eqs. 17-20: `total = clust + α dir + β dis`."""

    total: torch.Tensor
    clust: torch.Tensor
    dir: torch.Tensor
    dis: torch.Tensor

    def values(self) -> NDArray[np.float64]:
        """(4,) total, clust, dir, dis."""
        return np.array([float(part.detach()) for part in (self.total, self.clust, self.dir, self.dis)])


class Generator:
    """The network, its optimiser and its source of noise, carried from round to round."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self.settings = settings
        self.rounds = 0
        self._random = torch.Generator().manual_seed(settings.seed)
        self.parameters = _initial(settings, self._random)
        self._mean = torch.zeros_like(self.parameters)
        self._square = torch.zeros_like(self.parameters)

    def propose(self) -> Proposal:
        """Draw this round's noise and run it through the network."""
        shape = (self.settings.n_gen, self.settings.noise_dim)
        with _one_thread(), torch.no_grad():
            noise = torch.randn(shape, generator=self._random, dtype=torch.float64)
            points, logits = forward(self.parameters, noise, self.settings)
            return Proposal(noise.numpy(), points.numpy(), torch.sigmoid(logits).numpy())

    def learn(self, proposal: Proposal, inside: NDArray[np.bool_], extent: NDArray[np.float64]) -> Losses:
        """One step of Adam on the losses of that proposal.

        `inside` (n_gen,) tells which points fell into the benign cluster; `extent` (2,) is how far from the benign
        centre, in ε, a point of 1 was placed on each axis.
        """
        with _one_thread():
            parameters = self.parameters.clone().requires_grad_()
            points, logits = forward(parameters, torch.from_numpy(proposal.noise), self.settings)
            offsets = points * torch.from_numpy(extent)
            losses = losses_of(offsets, logits, torch.from_numpy(inside), self.settings)
            losses.total.backward()  # type: ignore[no-untyped-call]
            assert parameters.grad is not None
            self._step(parameters.grad)
        return losses

    def _step(self, gradient: torch.Tensor) -> None:
        """Adam, written out: `torch.optim` takes seconds to import its compiler."""
        self.rounds += 1
        mean_decay, square_decay, floor = _ADAM
        self._mean = mean_decay * self._mean + (1 - mean_decay) * gradient
        self._square = square_decay * self._square + (1 - square_decay) * gradient**2
        mean = self._mean / (1 - mean_decay**self.rounds)
        square = self._square / (1 - square_decay**self.rounds)
        self.parameters = self.parameters - self.settings.learning_rate * mean / (square.sqrt() + floor)

    def state_dict(self) -> dict[str, Any]:
        """Arrays and numbers from which `load_state_dict` goes on, bit for bit."""
        return {
            "rounds": self.rounds,
            "parameters": self.parameters.numpy().copy(),
            "adam_mean": self._mean.numpy().copy(),
            "adam_square": self._square.numpy().copy(),
            "random": self._random.get_state().numpy().copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; raises UnusableInput where it is not one of a generator of this shape."""
        own = self.state_dict()
        if set(state) != set(own):
            raise UnusableInput(f"not a state of encagg's generator: it holds {', '.join(sorted(state))}")
        try:
            arrays = {name: np.array(state[name], dtype=np.asarray(value).dtype) for name, value in own.items()}
        except (TypeError, ValueError) as error:
            raise UnusableInput(f"the stored state of encagg's generator is not made of numbers: {error}") from error
        for name, value in own.items():
            if arrays[name].shape != np.shape(value) or not np.isfinite(arrays[name]).all():
                raise UnusableInput(
                    f"the stored {name} of encagg's generator does not fit: shape {arrays[name].shape}",
                    hint="width and noise_dim must be those that the state was made with",
                )
        try:
            self._random.set_state(torch.from_numpy(arrays["random"]))
        except RuntimeError as error:
            raise UnusableInput("the stored source of noise of encagg's generator is damaged") from error
        self.rounds = int(arrays["rounds"])
        self.parameters, self._mean, self._square = (
            torch.from_numpy(arrays[name]) for name in ("parameters", "adam_mean", "adam_square")
        )


def forward(
    parameters: torch.Tensor, noise: torch.Tensor, settings: GeneratorSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points `ĝ = tanh(W_g h + b_g)`, (n, 2), and the logits of the confidence `ŷ = σ(W_y h + b_y)`, (n,)."""
    layers = []
    start = 0
    for inputs, outputs in settings.shapes:
        weight = parameters[start : start + inputs * outputs].view(inputs, outputs)
        start += inputs * outputs
        layers.append((weight, parameters[start : start + outputs]))
        start += outputs
    hidden = noise
    for weight, bias in layers[:3]:
        hidden = torch.tanh(hidden @ weight + bias)
    (point_weight, point_bias), (logit_weight, logit_bias) = layers[3:]
    return torch.tanh(hidden @ point_weight + point_bias), (hidden @ logit_weight + logit_bias).squeeze(1)


def losses_of(offsets: torch.Tensor, logits: torch.Tensor, inside: torch.Tensor, settings: GeneratorSettings) -> Losses:
    """The three losses and their sum.

    `offsets` (n_gen, 2) of the pseudo-points from the benign centre, in ε; `logits` (n_gen,) of the confidence;
    `inside` (n_gen,) whether each fell into the benign cluster.
    """
    target = inside.to(torch.float64)
    weight = settings.w1 * target + settings.w0 * (1 - target)
    clust = functional.binary_cross_entropy_with_logits(logits, target, weight=weight)
    deviation = (offsets.var(dim=0, correction=0) + _TINY).sqrt()
    direction = offsets.mean(dim=0).abs().sum() + functional.relu(settings.tau - deviation).sum()
    apart = functional.relu(settings.rho - functional.pdist(offsets))
    dispersion = apart.square().sum() / len(offsets)
    return Losses(clust + settings.alpha * direction + settings.beta * dispersion, clust, direction, dispersion)


def _initial(settings: GeneratorSettings, random: torch.Generator) -> torch.Tensor:
    """Uniform in ±1/√inputs, layer after layer, as torch's own linear layers."""
    return torch.cat(
        [
            (2 * torch.rand(inputs * outputs + outputs, generator=random, dtype=torch.float64) - 1) / inputs**0.5
            for inputs, outputs in settings.shapes
        ]
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums split over threads differ in their last bits with the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
