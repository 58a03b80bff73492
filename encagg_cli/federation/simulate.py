"""`simulate`: real federated training under attack, with a filter in the loop or none, recorded as it goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from encagg_cli import filters
from encagg_cli.federation.fresh import refuse_existing_run, remove_rounds, write_settings
from encagg_cli.federation.loop import Federation, Update, as_source
from encagg_cli.federation.setup import Setup
from encagg_cli.filters import Filter, canonical
from encagg_cli.filters.passes import aggregate_pieces, sketch_for
from encagg_cli.rounds.memory import MemoryRound, by_name
from encagg_cli.verdicts.replay import check_requirements, judge_round

if TYPE_CHECKING:
    from encagg_cli.capture.recorder import Recorder

SETTINGS_FILE = "simulation.json"  # in the run: what decided it, and what came of it


@dataclass(frozen=True)
class RoundReport:
    """One round of a simulation: who poisoned, what the filter made of it, and the test accuracy after it.

    `poisoned` uploads of `clients`; `rejected` by the filter (or for NaN or infinity, where there is none), of which
    `caught` were poisoned, `lost` honest and `known_benign_lost` of known-benign clients, who are not counted as lost.
    """

    number: int
    accuracy: float
    clients: int
    poisoned: int
    attacks: tuple[str, ...]
    rejected: int
    caught: int
    lost: int

    @property
    def known_benign_lost(self) -> int:
        return self.rejected - self.caught - self.lost


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation came to. `final_model` (parameters,); `diverged` if the training ended in NaN or infinity."""

    setup: Setup
    method: str | None
    initial_accuracy: float
    rounds: tuple[RoundReport, ...]
    final_model: NDArray[np.float32]
    diverged: bool

    @property
    def final_accuracy(self) -> float:
        """Test accuracy after the last round."""
        return self.rounds[-1].accuracy

    def as_json(self) -> dict[str, Any]:
        """All but the model, as plain values."""
        return {
            "schema": "encagg-simulation-1",
            "settings": {**self.setup.as_json(), "method": self.method},
            "initial_accuracy": self.initial_accuracy,
            "final_accuracy": self.final_accuracy,
            "diverged": self.diverged,
            "rounds": [
                {
                    "round": report.number,
                    "accuracy": report.accuracy,
                    "clients": report.clients,
                    "poisoned": report.poisoned,
                    "attacks": list(report.attacks),
                    "rejected": report.rejected,
                    "caught": report.caught,
                    "lost": report.lost,
                    "known_benign_lost": report.known_benign_lost,
                }
                for report in self.rounds
            ],
        }


class Server:
    """The server's side of the loop: records a round's uploads, filters them, aggregates what is left.

    `accepted` (clients,) holds the verdicts on the last round, in the order of its `client_ids`.
    """

    def __init__(self, method: Filter | None, recorder: "Recorder | None", seed: int = 0) -> None:
        self._method = method
        self._recorder = recorder
        self._seed = seed
        self._model: Update | None = None  # from which the round before started
        self._aggregate: NDArray[np.float64] | None = None  # of the round before
        self.accepted = np.zeros(0, dtype=bool)

    def aggregate(self, uploads: MemoryRound) -> Update | None:
        """The aggregated update, (parameters,); None where nothing was accepted."""
        if self._recorder is not None:
            record(self._recorder, uploads)
        # One thread: the same sums, whatever the number of cores.
        with threadpool_limits(limits=1, user_api="blas"), np.errstate(over="ignore"):
            if self._method is not None:
                return self._filtered(self._method, uploads)
            self.accepted = np.isfinite(uploads.norms)
            return plain_mean(uploads, self.accepted)

    def _filtered(self, method: Filter, uploads: MemoryRound) -> Update | None:
        text = canonical(method)
        source = as_source(uploads, self._model)
        self._model = uploads.global_model
        trusted = frozenset(c for c, flag in zip(uploads.client_ids, uploads.trusted, strict=True) if flag)
        decision = judge_round(sketch_for(source, [method]), uploads, {text: method}, trusted).decisions[text]
        self.accepted = decision.in_order(uploads.client_ids).accepted
        if not self.accepted.any():
            return None
        prior = source.vectors.get("last_step") if decision.prior == "last_step" else self._aggregate
        self._aggregate = np.concatenate(list(aggregate_pieces(method, decision, source, prior=prior, seed=self._seed)))
        if method.wants_aggregate():
            method.see_aggregate([self._aggregate])
        return self._aggregate.astype(np.float32)


def plain_mean(uploads: MemoryRound, finite: NDArray[np.bool_]) -> Update | None:
    """The unweighted mean of the finite uploads, (parameters,); None where there is none."""
    if not finite.any():
        return None
    mean: Update = uploads.updates[finite].mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def record(recorder: "Recorder", uploads: MemoryRound) -> None:
    """Store a round, with its global model and the truth about every upload."""
    model = by_name(uploads.parameters, uploads.global_model)
    with recorder.round(uploads.number, global_model=model) as stored:
        for row, client in enumerate(uploads.client_ids):
            stored.add(
                client,
                uploads.named(row),
                num_examples=int(uploads.num_examples[row]),
                trusted=bool(uploads.trusted[row]),
                poisoned=bool(uploads.poisoned[row]),
                attack=uploads.attack[row],
            )


def simulate(
    setup: Setup,
    *,
    run: Path | None = None,
    force: bool = False,
    progress: Callable[[RoundReport], None] | None = None,
) -> SimulationResult:
    """Train as `setup` says; record every round in `run` where one is given; call `progress` after every round.

    Raises UsageError or UnusableInput for a setup that cannot be run, OutputExists for a run that exists already.
    """
    method = None if setup.method is None else filters.get(setup.method)
    federation = Federation(setup)
    if method is not None:
        check_requirements({canonical(method): method}, frozenset(federation.trusted))
    if run is not None:
        refuse_existing_run(run, force=force)
    reports: list[RoundReport] = []
    final_model, diverged = federation.initial, False
    with _recording(run, federation, force) as recorder:
        server = Server(method, recorder, setup.seed)
        for trained in federation.rounds(server.aggregate):
            final_model, diverged = trained.model, trained.diverged
            reports.append(_report(trained.uploads, server.accepted, trained.accuracy))
            if progress is not None:
                progress(reports[-1])
    result = SimulationResult(
        setup=setup,
        method=None if method is None else canonical(method),
        initial_accuracy=federation.accuracy(federation.initial),
        rounds=tuple(reports),
        final_model=final_model,
        diverged=diverged,
    )
    if run is not None:
        write_settings(run / SETTINGS_FILE, result.as_json())
    return result


def _report(uploads: MemoryRound, accepted: NDArray[np.bool_], accuracy: float) -> RoundReport:
    poisoned = uploads.poisoned == 1
    return RoundReport(
        number=uploads.number,
        accuracy=accuracy,
        clients=len(uploads.client_ids),
        poisoned=int(poisoned.sum()),
        attacks=tuple(sorted(set(uploads.attack) - {""})),
        rejected=int((~accepted).sum()),
        caught=int((~accepted & poisoned).sum()),
        lost=int((~accepted & ~poisoned & ~uploads.trusted).sum()),
    )


@contextmanager
def _recording(run: Path | None, federation: Federation, force: bool) -> "Iterator[Recorder | None]":
    if run is None:
        yield None
        return
    from encagg_cli.capture.recorder import Recorder

    remove_rounds(run)
    with Recorder(
        run,
        trusted=federation.trusted,
        update_kind=federation.setup.training.update_kind,
        dtype=federation.setup.dtype,
        force=force,
    ) as recorder:
        yield recorder
