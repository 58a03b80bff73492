"""Replaying filters over stored rounds: the one path from a sketch to verdicts, offline and inside a training loop."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from encagg_cli import console
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.filters import Decision, Filter, Requirement, canonical
from encagg_cli.filters.passes import Sketcher, aggregate_pieces, sketch_for
from encagg_cli.sketch import ColumnSource, RoundSketch, sketch_round

_SHOWN: Final = 5


class Facts(Protocol):
    """What is stored of a round beside its updates, aligned with `client_ids`."""

    @property
    def number(self) -> int: ...
    @property
    def client_ids(self) -> Sequence[str]: ...
    @property
    def norms(self) -> NDArray[np.float64]: ...
    @property
    def trusted(self) -> NDArray[np.bool_]: ...
    @property
    def poisoned(self) -> NDArray[np.int8]: ...
    @property
    def attack(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class RoundVerdicts:
    """All methods' decisions on one round, with what is known of its clients by id."""

    number: int
    decisions: Mapping[str, Decision]
    trusted: frozenset[str]
    poisoned: Mapping[str, bool]
    attack: Mapping[str, str]


def name_methods(filters: Iterable[Filter]) -> dict[str, Filter]:
    """Filters by their canonical text, which is what the verdicts call them; raises UsageError for one named twice."""
    named: dict[str, Filter] = {}
    for chosen in filters:
        text = canonical(chosen)
        if text in named:
            raise UsageError(f"the method {text} is named twice")
        named[text] = chosen
    return named


def resolve_trusted(rounds: Iterable[Facts], wanted: Iterable[str] | None) -> frozenset[str]:
    """The known-benign ids: those named that occur in some round, or, where None are named, the run's own flags.

    Warns of names that no round knows; raises UsageError where that is all of them.
    """
    seen: set[str] = set()
    flagged: set[str] = set()
    for stored in rounds:
        seen.update(stored.client_ids)
        flagged.update(client for client, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag)
    if wanted is None:
        return frozenset(flagged)
    chosen = frozenset(wanted)
    unknown = sorted(chosen - seen)
    if unknown and not chosen & seen:
        raise UsageError(
            f"no round holds the known-benign client{'' if len(unknown) == 1 else 's'} {_some(unknown)}",
            hint=f"these rounds hold {_some(sorted(seen))}",
        )
    if unknown:
        console.warn(f"known-benign, but in no round: {_some(unknown)}")
    return chosen & seen


def _some(clients: Sequence[str]) -> str:
    return ", ".join(map(repr, clients[:_SHOWN])) + (f" and {len(clients) - _SHOWN} more" if clients[_SHOWN:] else "")


def check_requirements(methods: Mapping[str, Filter], trusted: frozenset[str]) -> None:
    """Raise UsageError where a method needs known-benign clients and the run has too few."""
    for text, chosen in methods.items():
        if Requirement.KNOWN_BENIGN in chosen.requires and len(trusted) < chosen.least_known_benign:
            least = chosen.least_known_benign
            raise UsageError(
                f"{text} needs at least {least} known-benign client{'s' if least > 1 else ''}, and {len(trusted)} "
                f"{'is' if len(trusted) == 1 else 'are'} named",
                hint="name them: --trusted id,id or --trusted @FILE with one id a line",
            )


def judge_round(
    sketch: RoundSketch, stored: Facts, methods: Mapping[str, Filter], trusted: frozenset[str]
) -> RoundVerdicts:
    """Let every method decide on one round. Methods with a memory must see the rounds in order."""
    known = {
        client: bool(label) for client, label in zip(stored.client_ids, stored.poisoned, strict=True) if label in (0, 1)
    }
    return RoundVerdicts(
        number=stored.number,
        decisions={
            text: chosen.decide(sketch, trusted=trusted, poisoned=known or None) for text, chosen in methods.items()
        },
        trusted=trusted & frozenset(stored.client_ids),
        poisoned=known,
        attack={client: name for client, name in zip(stored.client_ids, stored.attack, strict=True) if name},
    )


def refuse_non_finite(rounds: Iterable[Facts]) -> None:
    """Raise UnusableInput for the first upload that holds NaN or infinity (`--non-finite error`)."""
    for stored in rounds:
        bad = np.flatnonzero(~np.isfinite(stored.norms))
        if len(bad):
            raise UnusableInput(
                f"round {stored.number}, client {stored.client_ids[bad[0]]}: the update holds NaN or infinite values",
                hint="leave out --non-finite error to have such uploads rejected and the rest judged",
            )


def judge_source(
    source: ColumnSource,
    stored: Facts,
    methods: Mapping[str, Filter],
    trusted: frozenset[str],
    sketch: Sketcher = sketch_round,
) -> RoundVerdicts:
    """Judge the next round: sketch what the methods need of it, decide, and show them what came of it."""
    made = sketch_for(source, methods.values(), sketch)
    verdicts = judge_round(made, stored, methods, trusted)
    if made.clients:
        show_aggregates(source, verdicts, methods)
    return verdicts


def show_aggregates(source: ColumnSource, verdicts: RoundVerdicts, methods: Mapping[str, Filter]) -> None:
    """Let the methods that look back at their own aggregate see this round's; one more pass for each."""
    for text, chosen in methods.items():
        if chosen.wants_aggregate():
            chosen.see_aggregate(aggregate_pieces(chosen, verdicts.decisions[text], source))
