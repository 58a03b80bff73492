"""Clients' local training: FedAvg (local epochs, the update is a weight delta) and FedSGD (one batch's gradient).

Every client's batches in every round come from a generator of its own, keyed by the seed, the round and the client, and
training runs on one CPU thread: the same updates, bit for bit, whatever else was trained and however many cores work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from encagg_cli.errors import UsageError
from encagg_cli.federation.datasets import Dataset
from encagg_cli.federation.models import Model
from encagg_cli.federation.partition import Shard
from encagg_cli.rounds.layout import UpdateKind

Algorithm = Literal["fedavg", "fedsgd"]
Relabel = Callable[[NDArray[np.int64]], NDArray[np.int64]]
_EVALUATION_BATCH = 2000


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains. FedSGD uses `batch_size` alone: its one gradient is taken at the global model.

    `learning_rate` is the clients' in FedAvg, the server's in FedSGD.
    """

    algorithm: Algorithm = "fedavg"
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.algorithm not in ("fedavg", "fedsgd"):
            raise UsageError(f"there is no algorithm {self.algorithm!r}", hint="choose from fedavg, fedsgd")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', ' ')} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"the learning rate must be above 0, not {self.learning_rate}")

    @property
    def update_kind(self) -> UpdateKind:
        return "delta" if self.algorithm == "fedavg" else "gradient"


class Clients:
    """The clients of a federation: their data, and what each of them uploads for a given global model."""

    def __init__(
        self,
        dataset: Dataset,
        shards: Sequence[Shard],
        model: Model,
        training: LocalTraining,
        *,
        seed: int,
    ) -> None:
        self.model = model
        self.training = training
        self.seed = seed
        self.num_examples = np.array([len(shard) for shard in shards], dtype=np.int64)
        self._x = [torch.from_numpy(dataset.train_x[shard]).to(model.device) for shard in shards]
        self._y = [dataset.train_y[shard] for shard in shards]
        self._test_x = torch.from_numpy(dataset.test_x).to(model.device)
        self._test_y = torch.from_numpy(dataset.test_y).to(model.device)

    def __len__(self) -> int:
        return len(self._x)

    def update(
        self, client: int, round_number: int, global_model: NDArray[np.float32], relabel: Relabel | None = None
    ) -> NDArray[np.float32]:
        """What one client uploads, (n_parameters,): a weight delta (FedAvg) or a gradient (FedSGD).

        `relabel` replaces its labels first (label-flip); its batches are those of its honest training.
        """
        x = self._x[client]
        labels = self._y[client] if relabel is None else relabel(self._y[client])
        y = torch.from_numpy(labels).to(self.model.device)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, round_number, client])))
        self.model.load(global_model)
        if self.training.algorithm == "fedsgd":
            batch = torch.from_numpy(np.sort(rng.permutation(len(y))[: self.training.batch_size])).to(self.model.device)
            self._backward(x[batch], y[batch])
            return self.model.gradient()
        for _ in range(self.training.epochs):
            order = torch.from_numpy(rng.permutation(len(y))).to(self.model.device)
            for batch in torch.split(order, self.training.batch_size):
                self._backward(x[batch], y[batch])
                self._step()
        return self.model.vector() - global_model

    def accuracy(self, global_model: NDArray[np.float32]) -> float:
        """Share of the test samples that a model classifies rightly."""
        self.model.load(global_model)
        with torch.no_grad():
            logits = torch.cat([self.model.module(part) for part in torch.split(self._test_x, _EVALUATION_BATCH)])
        return float((logits.argmax(dim=1) == self._test_y).double().mean())

    def _backward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.model.module.zero_grad(set_to_none=True)
        cross_entropy(self.model.module(x), y).backward()  # type: ignore[no-untyped-call]

    def _step(self) -> None:
        with torch.no_grad():
            for tensor in self.model.module.parameters():
                if tensor.grad is not None:
                    tensor.sub_(tensor.grad, alpha=self.training.learning_rate)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in torch on one CPU thread, in one order; the earlier number of threads comes back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
