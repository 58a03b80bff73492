"""Attacks on captured honest rounds: what a run would look like, had some of its clients poisoned.

The clients' training is not repeated, so a poisoned round does not change the rounds that follow. The original run is
only read.
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli import __version__
from encagg_cli.attacks import Attack, AttackNeed, canonical
from encagg_cli.attacks.campaign import Campaign, RoundPlan
from encagg_cli.attacks.schedule import Schedule
from encagg_cli.attacks.watching import Watching
from encagg_cli.errors import RoundNotFound, UnusableInput, UsageError
from encagg_cli.federation.fresh import refuse_existing_run, remove_rounds, write_settings
from encagg_cli.outputs import writing
from encagg_cli.rounds.reader import Run, StoredRound
from encagg_cli.rounds.writer import RoundWriter
from encagg_cli.verdicts.replay import resolve_trusted

SETTINGS_FILE = "attack.json"  # in the poisoned run: what decided it
_IN_MEMORY_BYTES = 2**26  # of a round's crafted uploads; larger ones are kept in a file until they are written


@dataclass(frozen=True)
class PoisonedRound:
    """What was made of one round."""

    number: int
    clients: int
    poisoned: int
    attacks: tuple[str, ...]


@dataclass(frozen=True)
class InjectionResult:
    """A poisoned run: its rounds, and those of the original that were left out because they are poisoned already."""

    run: Path
    rounds: tuple[PoisonedRound, ...]
    left_out: tuple[int, ...]
    settings: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Settings and rounds, as plain values."""
        return {
            "schema": "encagg-attack-1",
            "version": __version__,
            "settings": self.settings,
            "left_out": list(self.left_out),
            "rounds": [
                {
                    "round": poisoned.number,
                    "clients": poisoned.clients,
                    "poisoned": poisoned.poisoned,
                    "attacks": list(poisoned.attacks),
                }
                for poisoned in self.rounds
            ],
        }


def inject(
    run: Run,
    output: Path,
    *,
    attacks: Sequence[Attack],
    ratio: float | Sequence[float],
    schedule: Schedule,
    seed: int,
    trusted: Iterable[str] | None = None,
    rounds: Sequence[int] | None = None,
    alternatives: Run | None = None,
    force: bool = False,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> InjectionResult:
    """Write `output`: the run's honest rounds, in which the attackers have poisoned.

    `rounds` are those to use (all by default); rounds that hold poisoned uploads already are left out, and uploads of
    unknown truth are taken to be honest. `trusted` names the known-benign clients (the run's own flags by default),
    which never attack. `alternatives` is a run of updates trained to harm, by round and client. `progress` may wrap
    the rounds as they are worked on. Honest rows are copied bit for bit, and every upload is labelled. Number type
    and compression are those of the original.

    Raises UsageError for settings that cannot be meant, UnusableInput where the run holds no honest round or lacks what
    an attack needs, OutputExists where the output exists and `force` is not set. A failure leaves no output behind.
    """
    refuse_existing_run(output, force=force)
    numbers = run.rounds if rounds is None else tuple(rounds)
    honest, left_out = _honest_rounds(run, numbers)
    known_benign = resolve_trusted((run.round(number) for number in honest), trusted)
    campaign = Campaign(
        attacks,
        ratio=ratio,
        schedule=schedule,
        seed=seed,
        clients={client for number in honest for client in run.round(number).client_ids},
        trusted=known_benign,
    )
    _check_needs(run, honest, campaign, alternatives)
    settings = {
        "attacks": [canonical(attack) for attack in campaign.attacks],
        "ratios": list(campaign.ratios),
        "schedule": canonical(schedule),
        "seed": seed,
        "trusted": sorted(known_benign),
        "digests": {number: run.round(number).digest for number in honest},
    }
    session = secrets.token_hex(8)
    with _folder_for(output) as folder:
        done = [
            _poison(run.round(number), folder, campaign, known_benign, session, alternatives)
            for number in progress(honest)
        ]
        result = InjectionResult(output, tuple(done), left_out, settings)
        write_settings(folder / SETTINGS_FILE, result.as_json())
    return result


def _honest_rounds(run: Run, numbers: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The rounds without any upload known to be poisoned, and the others."""
    poisoned = tuple(number for number in numbers if bool((run.round(number).poisoned == 1).any()))
    honest = tuple(number for number in numbers if number not in poisoned)
    if not honest:
        raise UnusableInput(
            f"{run.path} holds no honest round to start from: poisoned uploads are in all {len(numbers)} of them",
            hint="name a run, or with --rounds the rounds, in which nobody attacked",
        )
    return honest, poisoned


def _check_needs(run: Run, numbers: Sequence[int], campaign: Campaign, alternatives: Run | None) -> None:
    if AttackNeed.GLOBAL_MODEL in campaign.requires:
        for number in numbers:
            if run.round(number).update_kind == "gradient":
                _check_learning_rates(campaign)
            if not run.round(number).has_global_model:
                needing = next(a for a in campaign.attacks if AttackNeed.GLOBAL_MODEL in a.requires())
                raise UnusableInput(
                    f"{run.path}, round {number}: no global model is stored, and {canonical(needing)} needs one",
                    hint="record rounds with their global_model, or leave this attack out",
                )
    if AttackNeed.TRAINED_TO_HARM in campaign.requires and alternatives is None:
        needing = next(a for a in campaign.attacks if AttackNeed.TRAINED_TO_HARM in a.requires())
        raise UsageError(
            f"{canonical(needing)} needs updates that were trained on changed labels",
            hint="name a run that holds them with --alternatives, or let `encagg simulate` train them",
        )


def _check_learning_rates(campaign: Campaign) -> None:
    """Where updates are gradients, a step of the model is one only up to the server's learning rate."""
    for attack in campaign.attacks:
        if isinstance(attack, Watching) and attack.requires() and attack.learning_rate is None:
            raise UsageError(
                f"{attack.name} must know the server's learning rate, because the run's updates are gradients",
                hint=f"state it: {attack.name}(learning_rate=0.1)",
            )


def _poison(
    stored: StoredRound,
    folder: Path,
    campaign: Campaign,
    trusted: frozenset[str],
    session: str,
    alternatives: Run | None,
) -> PoisonedRound:
    """Write one round of the poisoned run."""
    model = stored.global_model()
    if AttackNeed.GLOBAL_MODEL in campaign.requires:
        campaign.observe(stored.number, model)
    plan = campaign.plan(stored.number, stored.client_ids)
    with stored, _crafted(stored, folder, campaign, plan, alternatives) as crafted:
        writer = RoundWriter(
            folder,
            stored.number,
            session=session,
            parameters=stored.parameters,
            update_kind=stored.update_kind,
            stored_type=stored.stored_type,
            compression="gzip" if any(shard.is_compressed for shard in stored.shards) else None,
            global_model=model,
            root_gradient=stored.root_gradient(),
            expected_clients=len(stored.client_ids),
        )
        with writer:
            place = {client: row for row, client in enumerate(plan.poisoning)}
            for row, client in enumerate(stored.client_ids):
                writer.add(
                    client,
                    crafted[place[client]] if client in place else stored.rows([row])[0],
                    num_examples=int(stored.num_examples[row]),
                    trusted=client in trusted,
                    poisoned=client in place,
                    attack=plan.attack_name(client),
                )
    names = {plan.attack_name(client) for client in plan.poisoning}
    return PoisonedRound(stored.number, len(stored.client_ids), len(plan.poisoning), tuple(sorted(names)))


@contextmanager
def _crafted(
    stored: StoredRound, folder: Path, campaign: Campaign, plan: RoundPlan, alternatives: Run | None
) -> Iterator[NDArray[np.float32]]:
    """The round's poisoned uploads, (m, parameters), in the order of `plan.poisoning`: in memory, or in a file."""
    shape = (len(plan.poisoning), stored.n_parameters)
    with tempfile.TemporaryFile(dir=folder) as spool:
        crafted: NDArray[np.float32]
        if 4 * shape[0] * shape[1] <= _IN_MEMORY_BYTES:
            crafted = np.empty(shape, dtype=np.float32)
        else:
            with writing(folder):
                crafted = np.memmap(spool, dtype=np.float32, mode="w+", shape=shape)
        harmful = _alternative_round(alternatives, stored.number, plan)
        for start, stop, values in campaign.craft(stored, plan, alternatives=harmful):
            crafted[:, start:stop] = values
        yield crafted
        del crafted


def _alternative_round(alternatives: Run | None, number: int, plan: RoundPlan) -> StoredRound | None:
    if alternatives is None or not any(AttackNeed.TRAINED_TO_HARM in a.requires() for a in plan.attacks.values()):
        return None
    try:
        return alternatives.round(number)
    except RoundNotFound as missing:
        raise UnusableInput(f"{alternatives.path} holds no updates trained to harm for round {number}") from missing


@contextmanager
def _folder_for(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its place when the body ends well, and is removed otherwise."""
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
    try:
        yield folder
        with writing(output):
            if output.is_dir():  # empty, or to be replaced
                remove_rounds(output)
                for path in sorted(folder.iterdir()):
                    path.replace(output / path.name)
            else:
                folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
