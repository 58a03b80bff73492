"""What decides a simulation: every setting, as plain values that can be stored beside the run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from encagg_cli.errors import UsageError
from encagg_cli.federation import models
from encagg_cli.federation.partition import Partition
from encagg_cli.federation.training import Algorithm, LocalTraining
from encagg_cli.rounds.layout import STORED_TYPES, StoredType

# What the default models learn well with: epochs, batch size and learning rate (FedSGD's is the server's).
_TRAINING: dict[tuple[str, Algorithm], tuple[int, int, float]] = {
    ("digits", "fedavg"): (2, 16, 0.3),
    ("digits", "fedsgd"): (1, 32, 0.5),
    ("mnist", "fedavg"): (1, 32, 0.05),
    ("mnist", "fedsgd"): (1, 32, 0.1),
    ("cifar10", "fedavg"): (1, 32, 0.02),
    ("cifar10", "fedsgd"): (1, 32, 0.05),
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that decides a simulation's numbers.

    The first `trusted` of the `clients` are known-benign and never attack; which data they hold is up to the
    partition. `ratio` is the largest share of all clients that poisons in a round. `method` is the filter in the loop,
    None for the plain mean. `attacks`, `schedule` and `method` are canonical texts. Model, epochs, batch size and
    learning rate have defaults of each data set's own.
    """

    dataset: str = "digits"
    data_dir: Path | None = None
    model: str | None = None
    clients: int = 20
    rounds: int = 10
    trusted: int = 4
    partition: Partition = "dirichlet"
    alpha: float = 0.5
    algorithm: Algorithm = "fedavg"
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    attacks: tuple[str, ...] = ()
    ratio: float | None = None
    schedule: str = "bernoulli"
    method: str | None = None
    seed: int = 0
    dtype: StoredType = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raise UsageError for what cannot be meant."""
        for label, value, least in (("clients", self.clients, 1), ("rounds", self.rounds, 1), ("seed", self.seed, 0)):
            if value < least:
                raise UsageError(f"{label} must be at least {least}, not {value}")
        if not 0 <= self.trusted <= self.clients:
            raise UsageError(f"{self.trusted} of {self.clients} clients cannot be known-benign")
        if self.partition not in get_args(Partition):
            raise UsageError(f"there is no partition {self.partition!r}", hint="choose from iid, dirichlet")
        if self.dtype not in STORED_TYPES:
            raise UsageError(
                f"updates cannot be stored as {self.dtype!r}", hint=f"choose from {', '.join(STORED_TYPES)}"
            )
        _ = self.training  # which checks its own part
        try:
            torch.device(self.device)
        except RuntimeError:
            raise UsageError(f"there is no device {self.device!r}", hint="cpu, or cuda where there is one") from None
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise UsageError("there is no CUDA device here", hint="leave out --device cuda")

    @property
    def model_name(self) -> str:
        return self.model or models.DEFAULT_MODEL.get(self.dataset, "mlp")

    @property
    def share(self) -> float:
        """The share of attackers: 0.3 where attacks are named and no share is."""
        return self.ratio if self.ratio is not None else (0.3 if self.attacks else 0.0)

    @property
    def training(self) -> LocalTraining:
        """How clients train, the data set's own defaults filled in."""
        epochs, batch_size, rate = _TRAINING.get((self.dataset, self.algorithm), (1, 32, 0.1))
        return LocalTraining(
            self.algorithm,
            epochs if self.epochs is None else self.epochs,
            batch_size if self.batch_size is None else self.batch_size,
            rate if self.learning_rate is None else self.learning_rate,
        )

    def as_json(self) -> dict[str, Any]:
        """All settings as used, defaults filled in; the data's folder is left out, being this machine's own."""
        filled = {
            **asdict(self),
            "model": self.model_name,
            **asdict(self.training),
            "attacks": list(self.attacks),
            "ratio": self.share,
        }
        del filled["data_dir"]
        return filled
