"""A campaign: some attacks, a share of the clients, a schedule and a seed, from which every round's poison follows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from encagg_cli.attacks.base import Attack, AttackNeed, as_stored
from encagg_cli.attacks.mixture import SketchedRound
from encagg_cli.attacks.scene import Matrix, Scene, column_blocks, columns_of, generator, read_columns
from encagg_cli.attacks.schedule import Schedule, check_share
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.settings import canonical
from encagg_cli.sketch import ColumnSource, RoundSketch


@dataclass(frozen=True)
class RoundPlan:
    """Who poisons in a round, and how: `attacks` maps the poisoning clients, in id order, to their attack.

    `malicious` are the clients of this round that the attackers control, whether or not they poison.
    """

    number: int
    malicious: tuple[str, ...]
    attacks: Mapping[str, Attack]

    @property
    def poisoning(self) -> tuple[str, ...]:
        return tuple(self.attacks)

    def attack_name(self, client: str) -> str:
        """The canonical text of the client's attack in this round, "" where it uploads honestly."""
        return canonical(self.attacks[client]) if client in self.attacks else ""


class Campaign:
    """Plans and crafts the poisoned uploads of a run, round by round in order.

    `clients` are all clients that the run ever has and `trusted` the known-benign ones, which never attack. `ratio` is
    the share of `clients` that is malicious; of several shares, one is drawn in every round, and the malicious clients
    of a smaller one are among those of a larger. Attacks that remember earlier rounds do so in themselves.

    Raises UsageError for a share that cannot be, and for attacks without a share or the reverse.
    """

    def __init__(
        self,
        attacks: Sequence[Attack],
        *,
        ratio: float | Sequence[float],
        schedule: Schedule,
        seed: int,
        clients: Collection[str],
        trusted: Collection[str] = (),
    ) -> None:
        self.attacks = tuple(attacks)
        self.ratios = (ratio,) if isinstance(ratio, int | float) else tuple(ratio)
        self.schedule = schedule
        self.seed = seed
        self._counts = [check_share(share, clients, trusted) for share in self.ratios]
        if any(self._counts) and not self.attacks:
            raise UsageError("attackers need an attack", hint="name one with --attack, or set --ratio 0")
        if self.attacks and not any(self._counts):
            raise UsageError("an attack needs attackers", hint="set --ratio, the share of malicious clients, above 0")
        if AttackNeed.KNOWN_BENIGN in self.requires and not trusted:
            needing = next(attack for attack in self.attacks if AttackNeed.KNOWN_BENIGN in attack.requires())
            raise UsageError(
                f"{canonical(needing)} aims at a filter that needs known-benign clients, and there are none",
                hint="name them with --trusted, or aim at another filter",
            )
        self._candidates = sorted(set(clients) - set(trusted))
        self._trusted = frozenset(trusted)

    @cached_property
    def requires(self) -> frozenset[AttackNeed]:
        """What the run must offer for all attacks of the campaign."""
        return frozenset().union(*(attack.requires() for attack in self.attacks))

    def plan(self, number: int, present: Collection[str]) -> RoundPlan:
        """Who poisons in round `number`, among the clients that are `present` in it."""
        here = set(present)
        drawn = generator(self.seed, "ratio", number).integers(len(self._counts))
        everyone = self.schedule.malicious(number, self._candidates, self._counts[drawn], self.seed)
        poisoning = [c for c in self.schedule.poisoning(number, everyone, self.seed) if c in here]
        if len(poisoning) == len(here):
            raise UnusableInput(
                f"round {number}: all {len(here)} clients of the round would poison, and none be honest",
                hint="lower the share of attackers",
            )
        chosen = self.schedule.choose(number, poisoning, len(self.attacks), self.seed) if poisoning else {}
        return RoundPlan(
            number=number,
            malicious=tuple(client for client in everyone if client in here),
            attacks={client: self.attacks[chosen[client]] for client in poisoning},
        )

    def observe(self, number: int, global_model: NDArray[np.float32] | None) -> None:
        """Show the attacks the model from which a round starts; call it for every round, in order, before crafting."""
        for attack in self.attacks:
            if AttackNeed.GLOBAL_MODEL in attack.requires():
                if global_model is None:
                    raise UnusableInput(
                        f"round {number} stores no global model, and {attack.name} needs one",
                        hint="record rounds with their global_model, or leave this attack out",
                    )
                attack.observe(number, global_model)

    def craft(
        self,
        source: ColumnSource,
        plan: RoundPlan,
        *,
        alternatives: ColumnSource | None = None,
    ) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """Yield `(start, stop, values)` for every block of columns: the poisoning clients' uploads, (m, stop - start).

        `source` holds what every client would have uploaded honestly; it is read once to craft, and as often before as
        the attacks need. Nothing is yielded for a round without poison.
        """
        scenes = self._scenes(source, plan, alternatives)
        if not scenes:
            return
        place = {client: row for row, client in enumerate(plan.poisoning)}
        # One thread: the same sums, whatever the number of cores.
        with threadpool_limits(limits=1, user_api="blas"):
            surveys = [attack.survey(scene) for attack, scene in scenes]
        for start, stop in column_blocks(source.n_parameters):
            values = read_columns(source, start, stop)
            crafted = np.empty((len(place), stop - start), dtype=np.float32)
            with threadpool_limits(limits=1, user_api="blas"):
                for (attack, scene), survey in zip(scenes, surveys, strict=True):
                    rows = [place[client] for client in scene.poisoning]
                    columns = columns_of(scene, attack.knows(), start, stop, values)
                    crafted[rows] = as_stored(attack.columns(columns, survey))
            yield start, stop, crafted

    def is_linear(self) -> bool:
        """Whether all poisoned uploads are linear combinations of the honest ones."""
        return all(attack.is_linear() for attack in self.attacks)

    def weigh(self, source: ColumnSource, plan: RoundPlan, honest: RoundSketch) -> Matrix:
        """What `craft` would craft, as weights of the honest updates: (poisoning clients, clients of the source).

        `honest` is the sketch of the source, with what the attacks ask of it (`sketch_needs`). No column is read.
        """
        weights = np.zeros((len(plan.poisoning), len(source.client_ids)))
        place = {client: row for row, client in enumerate(plan.poisoning)}
        for attack, scene in self._scenes(source, plan, None):
            mixture = attack.mixture(scene, SketchedRound(scene, honest))
            weights[[place[client] for client in scene.poisoning]] = mixture.of_clients(scene, attack.knows())
        return weights

    def _scenes(
        self,
        source: ColumnSource,
        plan: RoundPlan,
        alternatives: ColumnSource | None,
    ) -> list[tuple[Attack, Scene]]:
        honest = tuple(client for client in sorted(source.client_ids) if client not in plan.attacks)
        scenes = []
        for attack in self.attacks:
            poisoning = tuple(client for client in plan.poisoning if plan.attacks[client] is attack)
            if poisoning:
                scene = Scene(
                    source=source,
                    poisoning=poisoning,
                    malicious=plan.malicious,
                    honest_clients=honest,
                    trusted=self._trusted & set(source.client_ids),
                    seed=self.seed,
                    alternatives=alternatives,
                )
                scenes.append((attack, scene))
        return scenes
