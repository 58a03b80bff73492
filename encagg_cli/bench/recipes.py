"""The public bench: recipes that make their honest rounds from scratch, so that anybody can make the same ones.

Digits decide settings; MNIST and CIFAR-10 (from the user's own copies) are there to report on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from encagg_cli.attacks.label_flip import LabelFlip
from encagg_cli.capture.recorder import Recorder
from encagg_cli.errors import UsageError
from encagg_cli.federation import datasets
from encagg_cli.federation.loop import Federation
from encagg_cli.federation.setup import Setup
from encagg_cli.federation.simulate import plain_mean, record
from encagg_cli.federation.training import one_thread
from encagg_cli.rounds.memory import MemoryRound


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Honest rounds: who trains what, and which rounds are kept. `known_benign` are drawn anew for every seed."""

    name: str
    summary: str
    known_benign: int
    kept: tuple[int, ...]
    dataset: str = "digits"
    model: str | None = None
    clients: int = 50
    alpha: float | None = None  # of the Dirichlet partition; None: IID
    algorithm: str = "fedavg"
    epochs: int | None = None
    seed: int = 0

    def check_data(self, data_dir: Path | None) -> None:
        """Raise UsageError or UnusableInput where the recipe's data set is not there."""
        if self.dataset != "digits" and data_dir is None:
            raise UsageError(f"the recipe {self.name} needs {self.dataset}", hint="name its folder: --data-dir DIR")
        datasets.load(self.dataset, data_dir)

    @property
    def learning_rate(self) -> float:
        """The server's, where updates are gradients."""
        return self.setup(None).training.learning_rate

    def setup(self, data_dir: Path | None) -> Setup:
        """The federation to train."""
        return Setup(
            dataset=self.dataset,
            data_dir=data_dir,
            model=self.model,
            clients=self.clients,
            rounds=max(self.kept) + 1,
            trusted=0,
            partition="iid" if self.alpha is None else "dirichlet",
            alpha=self.alpha or 0.5,
            algorithm="fedsgd" if self.algorithm == "fedsgd" else "fedavg",
            epochs=self.epochs,
            seed=self.seed,
        )


_DIGITS = tuple(range(2, 8))
_EARLY_AND_LATE = (1, 2, 3, 4, 17, 18, 19, 20)
_STEPS = (5, 6, 7, 8, 120, 121, 122, 123)

FLIPPED = LabelFlip()  # by which the updates beside the honest ones are trained

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="digits-iid", summary="digits, IID, 50 clients", known_benign=5, kept=_DIGITS),
        Recipe(
            name="digits-dirichlet",
            summary="digits, Dirichlet 0.5, 50 clients",
            known_benign=5,
            kept=_DIGITS,
            alpha=0.5,
        ),
        Recipe(
            name="digits-small",
            summary="digits, Dirichlet 0.5, 20 clients, 3 known-benign",
            known_benign=3,
            kept=_DIGITS,
            alpha=0.5,
            clients=20,
        ),
        Recipe(
            name="mnist-dirichlet-a",
            summary="MNIST, Dirichlet 0.3, 50 clients, MLP",
            known_benign=5,
            kept=_EARLY_AND_LATE,
            dataset="mnist",
            model="mlp",
            alpha=0.3,
            seed=1,
        ),
        Recipe(
            name="mnist-dirichlet-b",
            summary="MNIST, Dirichlet 0.3, another partition, CNN",
            known_benign=5,
            kept=_EARLY_AND_LATE,
            dataset="mnist",
            model="cnn",
            alpha=0.3,
            seed=2,
        ),
        Recipe(
            name="mnist-dirichlet-0.1",
            summary="MNIST, Dirichlet 0.1, 50 clients, MLP",
            known_benign=5,
            kept=_EARLY_AND_LATE,
            dataset="mnist",
            model="mlp",
            alpha=0.1,
            seed=3,
        ),
        Recipe(
            name="mnist-fedsgd-iid",
            summary="MNIST, one-batch FedSGD, IID, 20 clients, 4 known-benign",
            known_benign=4,
            kept=_STEPS,
            dataset="mnist",
            model="mlp",
            clients=20,
            algorithm="fedsgd",
            seed=4,
        ),
        Recipe(
            name="mnist-fedsgd-dirichlet",
            summary="MNIST, one-batch FedSGD, Dirichlet 0.5, 50 clients",
            known_benign=5,
            kept=_STEPS,
            dataset="mnist",
            model="mlp",
            alpha=0.5,
            algorithm="fedsgd",
            seed=5,
        ),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe of that name; raises UsageError."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}", hint=f"choose from {', '.join(RECIPES)}")
    return RECIPES[name]


def is_made(chosen: Recipe, folder: Path) -> bool:
    """Whether its runs are there already."""
    return _finished(chosen, folder).is_file()


def _finished(chosen: Recipe, folder: Path) -> Path:
    return folder / f"{chosen.name}.done"


def make(
    chosen: Recipe, folder: Path, data_dir: Path | None, progress: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Path, Path]:
    """Train the recipe's federation; returns the run of honest rounds and that of updates trained on flipped labels.

    Runs that are there already are used as they are.
    """
    honest, flipped = folder / chosen.name, folder / f"{chosen.name}.flipped"
    if is_made(chosen, folder):
        return honest, flipped
    federation = Federation(chosen.setup(data_dir))
    folder.mkdir(parents=True, exist_ok=True)
    kind = federation.setup.training.update_kind
    with (
        Recorder(honest, update_kind=kind, force=True) as keep,
        Recorder(flipped, update_kind=kind, force=True) as keep_flipped,
    ):
        model = federation.initial
        rate = np.float32(1.0 if chosen.algorithm == "fedavg" else -federation.setup.training.learning_rate)
        previous = None
        for number in range(federation.setup.rounds):
            uploads = federation.uploads(number, model, previous)
            if number in chosen.kept:
                record(keep, uploads)
                record(keep_flipped, _flipped(federation, uploads))
            step = plain_mean(uploads, np.isfinite(uploads.norms))
            previous, model = model, model if step is None else (model + rate * step).astype(np.float32)
            progress(number + 1, federation.setup.rounds)
    _finished(chosen, folder).touch()
    return honest, flipped


def _flipped(federation: Federation, uploads: MemoryRound) -> MemoryRound:
    """What every client would have uploaded, had it trained on reversed labels."""
    relabel = partial(FLIPPED.relabel, classes=federation.classes)
    with one_thread():
        updates = np.stack(
            [
                federation.clients.update(client, uploads.number, uploads.global_model, relabel)
                for client in range(len(uploads.client_ids))
            ]
        )
    return MemoryRound(
        number=uploads.number,
        client_ids=uploads.client_ids,
        updates=updates,
        trusted=uploads.trusted,
        num_examples=uploads.num_examples,
        poisoned=uploads.poisoned,
        attack=uploads.attack,
        global_model=uploads.global_model,
        parameters=uploads.parameters,
        update_kind=uploads.update_kind,
    )
