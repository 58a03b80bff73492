"""Where verdicts and labels do not fit together, in numbers and in words."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from encagg_cli.errors import UnusableInput
from encagg_cli.score.labels import Upload

EXAMPLES: Final = 5


@dataclass
class Disagreement:
    """Where verdicts and labels do not fit together; uploads are counted once, whatever the number of methods.

    uploads, labels  how many there are: of clients that are not known to be benign, and in the source of labels
    unlabelled       uploads without a label; `missing_rounds` are rounds without any label
    unmatched        labels, in the span of the verdicts' rounds, of uploads that have no verdict
    unknown_clients  clients with labels who never occur among the verdicts
    unknown_rounds   rounds with labels, in that span, that have no verdicts
    outside          labels of rounds before the first or after the last verdict; they are no disagreement
    duplicates       labels that repeat another
    contradicted     uploads whose label is not the one that came with the verdicts
    trusted_poisoned uploads of known-benign clients that are labelled poisoned
    """

    uploads: int = 0
    labels: int = 0
    unlabelled: int = 0
    unmatched: int = 0
    outside: int = 0
    duplicates: int = 0
    contradicted: int = 0
    trusted_poisoned: int = 0
    missing_rounds: list[int] = field(default_factory=list)
    unknown_rounds: list[int] = field(default_factory=list)
    unknown_clients: list[str] = field(default_factory=list)
    examples: dict[str, list[Upload]] = field(default_factory=dict)

    def note(self, what: str, uploads: list[Upload]) -> None:
        """Remember some uploads as examples, up to a few."""
        kept = self.examples.setdefault(what, [])
        kept.extend(upload for upload in uploads[: EXAMPLES - len(kept)])

    def share(self) -> float:
        """The largest of: uploads without label, labels without verdict, labels twice, each as a share of its kind."""
        labels = max(self.labels, 1)
        return max(self.unlabelled / max(self.uploads, 1), self.unmatched / labels, self.duplicates / labels)

    def problems(self) -> Iterator[str]:
        """What must not be passed over in silence, a line each; hostile text is still in it."""
        if self.unlabelled:
            yield (
                f"{self.unlabelled} of {self.uploads} uploads have no label"
                f"{_rounds(self.missing_rounds, 'none has one')}{self._such_as('unlabelled')}"
            )
        if self.unmatched:
            clients = _few(self.unknown_clients)
            yield (
                f"{self.unmatched} of {self.labels} labels are of uploads without a verdict"
                f"{_rounds(self.unknown_rounds, 'there are no verdicts')}"
                + (f"; clients that no verdict names: {clients}" if clients else "")
                + self._such_as("unmatched")
            )
        if self.duplicates:
            yield f"{self.duplicates} labels repeat another one"

    def remarks(self) -> Iterator[str]:
        """What should be known, and is no disagreement."""
        if self.outside:
            yield f"{self.outside} labels are of rounds before the first or after the last verdict, and not used"
        if self.contradicted:
            yield f"{self.contradicted} uploads came with another label than the one used here"
        if self.trusted_poisoned:
            yield (
                f"{self.trusted_poisoned} uploads of known-benign clients are labelled poisoned; "
                f"they are not counted{self._such_as('trusted_poisoned')}"
            )

    def check(self, allowed: float) -> None:
        """Raise UnusableInput where more is missing than the share that is allowed."""
        if self.share() > allowed:
            raise UnusableInput(
                f"verdicts and labels do not fit together: {'; '.join(self.problems())}",
                hint=f"correct the labels, or go on with what fits: --allow-missing {_rounded_up(self.share())}",
            )

    def as_document(self) -> dict[str, Any]:
        """All of it as JSON-ready data; lists are cut to a few entries, counts are whole."""
        return {
            "uploads": self.uploads,
            "labels": self.labels,
            "unlabelled": self.unlabelled,
            "unmatched": self.unmatched,
            "duplicates": self.duplicates,
            "outside": self.outside,
            "contradicted": self.contradicted,
            "known_benign_poisoned": self.trusted_poisoned,
            "missing_rounds": self.missing_rounds[:EXAMPLES],
            "unknown_rounds": self.unknown_rounds[:EXAMPLES],
            "unknown_clients": self.unknown_clients[:EXAMPLES],
            "examples": {
                what: [{"round": number, "client_id": client} for number, client in uploads]
                for what, uploads in self.examples.items()
                if uploads
            },
        }

    def _such_as(self, what: str) -> str:
        uploads = self.examples.get(what, [])[:2]
        return f" (such as {', '.join(f'round {number}, client {client}' for number, client in uploads)})"


def _few(items: Iterable[object]) -> str:
    texts = [str(item) for item in items]
    return ", ".join(texts[:EXAMPLES]) + (f" and {len(texts) - EXAMPLES} more" if len(texts) > EXAMPLES else "")


def _rounds(numbers: list[int], what: str) -> str:
    return f"; {what} in round{'s' if len(numbers) > 1 else ''} {_few(numbers)}" if numbers else ""


def _rounded_up(share: float) -> str:
    """A share as text of two decimals that is not below it."""
    return f"{math.ceil(share * 100) / 100:g}"
