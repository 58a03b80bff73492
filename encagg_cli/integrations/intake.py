"""What every adapter does with a round's uploads: record them, and let a filter judge exactly what was recorded."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.capture.selection import is_untrained
from encagg_cli.errors import UsageError

if TYPE_CHECKING:
    from encagg_cli.capture.recorder import Recorder
    from encagg_cli.filters import Filter
    from encagg_cli.verdicts.replay import RoundVerdicts

logger = logging.getLogger("encagg")

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Upload:
    """One client's reply: its id, the tensors it sent, those it had been sent, and the sample count that it claims.

    Where a client sends an update and not a model, `sent` is None.
    """

    client_id: str
    reply: Tensors
    sent: Tensors | None
    num_examples: int = -1

    def update(self, like: Tensors) -> dict[str, NDArray[np.float64]] | None:
        """The tensors named by `like` as `reply - sent`, in float64; None where names or shapes disagree with it."""
        update: dict[str, NDArray[np.float64]] = {}
        for name, tensor in like.items():
            before = np.zeros(np.shape(tensor)) if self.sent is None else self.sent.get(name)
            after = self.reply.get(name)
            if before is None or after is None or not np.shape(after) == np.shape(before) == np.shape(tensor):
                return None
            update[name] = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
        return update


@dataclass
class Intake:
    """Records rounds and judges them. Either part may be absent.

    `verdicts` holds the verdicts of every round judged so far; `write_verdicts` puts them into a Parquet file.
    """

    recorder: "Recorder | None" = None
    method: "Filter | None" = None
    trusted: frozenset[str] = frozenset()
    verdicts: "list[RoundVerdicts]" = field(default_factory=list)
    _names: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        *,
        recorder: "Recorder | str | Path | None",
        method: "Filter | str | None",
        trusted: Collection[object],
    ) -> "Intake":
        """Build an intake from what users write: a recorder or a path for one, a filter or its text.

        Raises UsageError where the method needs known-benign clients and too few are named.
        """
        from encagg_cli.capture.recorder import Recorder

        names = frozenset(str(client) for client in trusted)
        if isinstance(recorder, str | Path):
            recorder = Recorder(recorder, trusted=sorted(names), on_error="warn")
        if method is None:
            return cls(recorder, None, names)
        from encagg_cli import filters
        from encagg_cli.verdicts.replay import check_requirements

        chosen = filters.get(method) if isinstance(method, str) else method
        if chosen.aggregate != "linear":
            raise UsageError(
                f"{filters.canonical(chosen)} rejects no client, so it cannot choose whose updates are aggregated",
                hint="use a wrapped strategy that aggregates coordinate by coordinate, such as Flower's FedMedian",
            )
        check_requirements({filters.canonical(chosen): chosen}, names)
        return cls(recorder, chosen, names)

    def take(self, number: int, uploads: Sequence[Upload], global_model: Tensors) -> frozenset[str]:
        """Record a round and judge it; returns the ids of the accepted clients (without a filter, all that count).

        A client that speaks twice is heard once, and one whose tensors are not those of the model is left out; both
        are logged.
        """
        trained = self._trained(global_model)
        updates: dict[str, Tensors] = {}
        num_examples: dict[str, int] = {}
        for upload in uploads:
            if upload.client_id in updates:
                logger.warning("round %d: a second upload of client %r is left out", number, upload.client_id)
                continue
            change = upload.update(trained)
            if change is None:
                logger.warning("round %d: client %r sent other tensors; left out", number, upload.client_id)
                continue
            updates[upload.client_id] = change
            num_examples[upload.client_id] = upload.num_examples
        if self.recorder is not None:
            with self.recorder.round(number, global_model=trained) as stored:
                for client, update in updates.items():
                    stored.add(client, update, num_examples=num_examples[client], trusted=client in self.trusted)
        if self.method is None:
            return frozenset(updates)
        return self._judge(number, updates, num_examples, trained)

    def _trained(self, global_model: Tensors) -> Tensors:
        """The model's tensors that training learns; which ones is settled by the run, or by its first round.

        Later rounds do not decide it anew: frameworks average BatchNorm's integer counters into fractions.
        """
        if self._names is None and self.recorder is not None and self.recorder.parameters:
            self._names = tuple(spec.name for spec in self.recorder.parameters)
        if self._names is None:
            floating = {name: np.issubdtype(np.asarray(t).dtype, np.floating) for name, t in global_model.items()}
            self._names = tuple(name for name in global_model if not is_untrained(name, is_floating=floating[name]))
            left_out = sorted(set(global_model) - set(self._names))
            if left_out:
                logger.info("not part of an update, since training does not learn them: %s", ", ".join(left_out))
        return {name: global_model[name] for name in self._names if name in global_model}

    def write_verdicts(self, path: str | Path, *, force: bool = False) -> None:
        """Write the verdicts of all rounds so far, as `encagg filter` would."""
        from encagg_cli.filters import canonical
        from encagg_cli.verdicts.signature import filter_signature
        from encagg_cli.verdicts.writer import VerdictWriter

        if self.method is None or not self.verdicts:
            raise UsageError("no round has been judged, so there are no verdicts to write")
        numbers = [round_.number for round_ in self.verdicts]
        signature = filter_signature({canonical(self.method): self.method}, self.trusted, numbers, ())
        with VerdictWriter(path, signature=signature, force=force) as writer:
            for round_ in self.verdicts:
                writer.add_round(
                    round_.number, list(round_.decisions.items()), round_.trusted, round_.poisoned, round_.attack
                )

    def close(self) -> None:
        """Publish what the recorder still holds."""
        if self.recorder is not None:
            self.recorder.close()

    def _judge(
        self, number: int, updates: Mapping[str, Tensors], num_examples: Mapping[str, int], global_model: Tensors
    ) -> frozenset[str]:
        from encagg_cli.filters import canonical
        from encagg_cli.rounds.memory import MemoryRound
        from encagg_cli.verdicts.replay import judge_source

        assert self.method is not None
        text = canonical(self.method)
        held = MemoryRound.of(
            number,
            updates,
            trusted=self.trusted,
            num_examples=num_examples,
            global_model=global_model,
            stored_type="float32" if self.recorder is None else self.recorder.stored_type,
        )
        verdicts = judge_source(held, held, {text: self.method}, self.trusted)
        self.verdicts.append(verdicts)
        decision = verdicts.decisions[text]
        accepted = frozenset(client for client, kept in zip(decision.clients, decision.accepted, strict=True) if kept)
        logger.info("round %d: %s accepts %d of %d uploads", number, text, len(accepted), len(updates))
        return accepted
