"""The federation's rounds: honest training, the attackers' poison, an aggregate, and the next model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks import Attack
from encagg_cli.attacks import get as get_attack
from encagg_cli.attacks.base import TrainedToHarm
from encagg_cli.attacks.campaign import Campaign, RoundPlan
from encagg_cli.attacks.schedule import get_schedule
from encagg_cli.attacks.watching import Watching
from encagg_cli.federation import datasets
from encagg_cli.federation.models import Model
from encagg_cli.federation.partition import dirichlet, iid
from encagg_cli.federation.setup import Setup
from encagg_cli.federation.training import Clients, one_thread
from encagg_cli.rounds.memory import MemoryRound, as_stored
from encagg_cli.sketch import ArraySource

Update = NDArray[np.float32]
Aggregate = Callable[[MemoryRound], Update | None]


@dataclass(frozen=True)
class TrainedRound:
    """A round's uploads, and the test accuracy of the model (parameters,) that their aggregate led to."""

    uploads: MemoryRound
    model: Update
    accuracy: float

    @property
    def diverged(self) -> bool:
        """Whether there is nothing left to train: the model, or every single upload, holds NaN or infinity."""
        return not (bool(np.isfinite(self.model).all()) and bool(np.isfinite(self.uploads.norms).any()))


def _informed(attack: Attack, setup: Setup) -> Attack:
    """An attack that must know the server's learning rate is told, as every client of a federation is."""
    if isinstance(attack, Watching) and attack.learning_rate is None and setup.algorithm == "fedsgd":
        return replace(attack, learning_rate=setup.training.learning_rate)
    return attack


def as_source(uploads: MemoryRound, previous_model: Update | None) -> ArraySource:
    """A round with the vectors that a replay of the recorded run has: the global model, and the last step."""
    vectors: dict[str, NDArray[np.floating]] = {"global_model": uploads.global_model}
    if previous_model is not None:
        vectors["last_step"] = uploads.global_model - previous_model
    return ArraySource(
        uploads.updates,
        uploads.client_ids,
        uploads.trusted,
        number=uploads.number,
        vectors=vectors,
        examples=[int(examples) for examples in uploads.num_examples],
        layout=uploads.parameters,
        update_kind=uploads.update_kind,
    )


class Federation:
    """The clients, data, model and attackers that a setup describes, before the first round.

    Raises UsageError or UnusableInput for a setup that cannot be run.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        dataset = datasets.load(setup.dataset, setup.data_dir)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([setup.seed, 1])))
        shards = (
            iid(dataset.train_y, setup.clients, rng)
            if setup.partition == "iid"
            else dirichlet(dataset.train_y, setup.clients, setup.alpha, rng)
        )
        digits = max(2, len(str(setup.clients - 1)))
        self.client_ids = tuple(f"client-{number:0{digits}d}" for number in range(setup.clients))
        self.trusted = self.client_ids[: setup.trusted]
        self.classes = dataset.classes
        self.model = Model(setup.model_name, dataset, setup.device)
        self.clients = Clients(dataset, shards, self.model, setup.training, seed=setup.seed)
        self.campaign = Campaign(
            [_informed(get_attack(text), setup) for text in setup.attacks],
            ratio=setup.share,
            schedule=get_schedule(setup.schedule),
            seed=setup.seed,
            clients=self.client_ids,
            trusted=self.trusted,
        )
        self.initial = self.model.initial(np.random.Generator(np.random.PCG64(np.random.SeedSequence([setup.seed, 2]))))

    def accuracy(self, model: Update) -> float:
        """Test accuracy of a model."""
        with one_thread():
            return self.clients.accuracy(model)

    def rounds(self, aggregate: Aggregate) -> Iterator[TrainedRound]:
        """Train round after round; `aggregate` gives a round's aggregated update, or None to leave the model as it is.

        Ends early, after the round in which it showed, when the training has diverged.
        """
        model, previous = self.initial, None
        rate = np.float32(1.0 if self.setup.algorithm == "fedavg" else -self.setup.training.learning_rate)
        for number in range(self.setup.rounds):
            uploads = self.uploads(number, model, previous)
            previous = model
            step = aggregate(uploads)
            if step is not None:
                with np.errstate(over="ignore", invalid="ignore"):
                    model = (model + rate * step).astype(np.float32)
            trained = TrainedRound(uploads, model, self.accuracy(model))
            yield trained
            if trained.diverged:
                return

    def uploads(self, number: int, model: Update, previous: Update | None = None) -> MemoryRound:
        """What all clients upload for this global model: honest training, then the attackers' poison.

        `previous` is the model of the round before, which some filters look at, and so attackers who rehearse them.
        """
        with one_thread():
            updates = np.stack([self.clients.update(client, number, model) for client in range(len(self.clients))])
            honest = self._round(number, model, as_stored(updates, self.setup.dtype), RoundPlan(number, (), {}))
            plan = self.campaign.plan(number, self.client_ids)
            self.campaign.observe(number, model)
            if not plan.attacks:
                return honest
            source = as_source(honest, previous)
            poisoned = honest.updates.copy()
            rows = [self.client_ids.index(client) for client in plan.poisoning]
            trained_to_harm = self._trained_to_harm(number, model, plan)
            for start, stop, values in self.campaign.craft(source, plan, alternatives=trained_to_harm):
                poisoned[rows, start:stop] = values
        return self._round(number, model, as_stored(poisoned, self.setup.dtype), plan)

    def _trained_to_harm(self, number: int, model: Update, plan: RoundPlan) -> MemoryRound | None:
        """The honest clients' round, in which those whose attack flips labels have trained on flipped ones."""
        flipped = {c: a for c, a in plan.attacks.items() if isinstance(a, TrainedToHarm)}
        if not flipped:
            return None
        updates = np.zeros((len(self.client_ids), self.model.n_parameters), dtype=np.float32)
        for client, attack in flipped.items():
            row = self.client_ids.index(client)
            updates[row] = self.clients.update(row, number, model, partial(attack.relabel, classes=self.classes))
        return self._round(number, model, updates, plan)

    def _round(self, number: int, model: Update, updates: Update, plan: RoundPlan) -> MemoryRound:
        return MemoryRound(
            number=number,
            client_ids=self.client_ids,
            updates=updates,
            trusted=np.array([client in self.trusted for client in self.client_ids]),
            num_examples=self.clients.num_examples,
            poisoned=np.array([client in plan.attacks for client in self.client_ids], dtype=np.int8),
            attack=tuple(plan.attack_name(client) for client in self.client_ids),
            global_model=model,
            parameters=self.model.parameters,
            update_kind=self.setup.training.update_kind,
        )
