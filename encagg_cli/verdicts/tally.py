"""What a replay's verdicts add up to, counted as they are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from encagg_cli.filters import Filter
from encagg_cli.verdicts.replay import RoundVerdicts


@dataclass
class MethodTally:
    """Counts of one method's verdicts. `rejected_share` has one entry a round, in order."""

    uploads: int = 0
    rejected: int = 0
    trusted_rejected: int = 0
    rejects: bool = True  # false: it only aggregates
    reasons: dict[str, int] = field(default_factory=dict)
    rejected_share: list[float] = field(default_factory=list)


class Tally:
    """Counts by method, the uploads that were not finite, and whether any upload came with a label."""

    def __init__(self, methods: Mapping[str, Filter]) -> None:
        self.methods = {text: MethodTally(rejects=chosen.rejects) for text, chosen in methods.items()}
        self.rounds: list[int] = []
        self.non_finite: list[tuple[int, str]] = []
        self.labelled = False

    def add(self, verdicts: RoundVerdicts) -> None:
        self.rounds.append(verdicts.number)
        self.labelled = self.labelled or bool(verdicts.poisoned)
        for text, decision in verdicts.decisions.items():
            counted = self.methods[text]
            counted.uploads += len(decision.clients)
            counted.rejected += int((~decision.accepted).sum())
            counted.trusted_rejected += sum(
                client in verdicts.trusted and not kept
                for client, kept in zip(decision.clients, decision.accepted, strict=True)
            )
            for reason in decision.reason:
                counted.reasons[reason] = counted.reasons.get(reason, 0) + 1
            share = float(np.mean(~decision.accepted)) if len(decision.clients) else 0.0
            counted.rejected_share.append(share)
        first = next(iter(verdicts.decisions.values()), None)
        if first is not None:
            self.non_finite.extend(
                (verdicts.number, client)
                for client, reason in zip(first.clients, first.reason, strict=True)
                if reason == "non-finite"
            )
