"""What every adapter does with a round's uploads: record them, and let a filter judge exactly what was recorded."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError

if TYPE_CHECKING:
    from encagg_cli.capture.recorder import Recorder
    from encagg_cli.filters import Filter
    from encagg_cli.verdicts.replay import RoundVerdicts

logger = logging.getLogger("encagg")

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Upload:
    """One client's reply: its id, the update it stands for by tensor name, and the sample count that it claims."""

    client_id: str
    update: Tensors
    num_examples: int = -1


def differences(reply: Tensors, sent: Tensors) -> dict[str, NDArray[np.float64]] | None:
    """`reply - sent` by tensor, in float64 and in the order of `sent`; None where names or shapes disagree.

    Only floating-point tensors are compared: counters such as BatchNorm's `num_batches_tracked` are no update.
    """
    if reply.keys() != sent.keys():
        return None
    update: dict[str, NDArray[np.float64]] = {}
    for name, before in sent.items():
        after = reply[name]
        if np.shape(after) != np.shape(before):
            return None
        if np.issubdtype(np.asarray(before).dtype, np.floating):
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
        """Record a round and judge it; returns the ids of the accepted clients (all of them without a filter)."""
        uploads = list(_first_of_each(number, uploads))
        floating = {name: t for name, t in global_model.items() if np.issubdtype(np.asarray(t).dtype, np.floating)}
        if self.recorder is not None:
            self._record(number, uploads, floating)
        if self.method is None:
            return frozenset(upload.client_id for upload in uploads)
        return self._judge(number, uploads, floating)

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

    def _record(self, number: int, uploads: Iterable[Upload], global_model: Tensors) -> None:
        assert self.recorder is not None
        with self.recorder.round(number, global_model=global_model) as stored:
            for upload in uploads:
                stored.add(
                    upload.client_id,
                    upload.update,
                    num_examples=upload.num_examples,
                    trusted=upload.client_id in self.trusted,
                )

    def _judge(self, number: int, uploads: Sequence[Upload], global_model: Tensors) -> frozenset[str]:
        from encagg_cli.filters import canonical
        from encagg_cli.rounds.memory import MemoryRound
        from encagg_cli.sketch import sketch_round
        from encagg_cli.verdicts.replay import judge_round

        assert self.method is not None
        text = canonical(self.method)
        dtype = "float32" if self.recorder is None else self.recorder.stored_type
        held = MemoryRound.of(
            number,
            {upload.client_id: upload.update for upload in uploads},
            trusted=self.trusted,
            num_examples={upload.client_id: upload.num_examples for upload in uploads},
            global_model=global_model,
            stored_type=dtype,
        )
        verdicts = judge_round(sketch_round(held, self.method.needs()), held, {text: self.method}, self.trusted)
        self.verdicts.append(verdicts)
        decision = verdicts.decisions[text]
        accepted = frozenset(client for client, kept in zip(decision.clients, decision.accepted, strict=True) if kept)
        logger.info("round %d: %s accepts %d of %d uploads", number, text, len(accepted), len(uploads))
        return accepted


def _first_of_each(number: int, uploads: Iterable[Upload]) -> Iterable[Upload]:
    """The uploads without those whose client id came before: who speaks twice is heard once, and it is said."""
    seen: set[str] = set()
    for upload in uploads:
        if upload.client_id in seen:
            logger.warning("round %d: a second upload of client %r is left out", number, upload.client_id)
            continue
        seen.add(upload.client_id)
        yield upload
