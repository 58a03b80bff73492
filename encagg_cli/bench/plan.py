"""What a bench will run: its runs, methods and cells, with what was left out and why."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from encagg_cli import attacks as attack_registry
from encagg_cli.attacks import AttackNeed
from encagg_cli.attacks.schedule import check_share
from encagg_cli.bench.cells import HARDER, PUBLISHED, SHARES, Cell, draw_known_benign, grid
from encagg_cli.bench.from_sketches import needs_of
from encagg_cli.bench.recipes import FLIPPED, RECIPES, is_made, make, recipe
from encagg_cli.bench.runner import Subject
from encagg_cli.console import counted
from encagg_cli.errors import EncaggError, UnusableInput, UsageError
from encagg_cli.filters import Filter, Requirement, canonical, get
from encagg_cli.rounds.reader import Run
from encagg_cli.settings import parse_call
from encagg_cli.verdicts.choosing import check_run, choose_all, facts_of, finite_uploads, told_the_truth
from encagg_cli.verdicts.replay import name_methods


@dataclass(frozen=True)
class Bench:
    """A bench ready to run. `skipped` says what was left out, a line each."""

    subjects: Mapping[str, Subject]
    methods: Sequence[str]
    cells: Sequence[Cell]
    skipped: Sequence[str]

    @property
    def from_sketches(self) -> int:
        """How many cells need no crafted update."""
        filters = [get(text) for text in self.methods]
        return sum(needs_of(cell.attack, filters) is not None for cell in self.cells)


def plan_bench(
    runs: Sequence[Path],
    *,
    recipes: Sequence[str],
    methods: Sequence[str],
    attacks: Sequence[str],
    shares: Sequence[float],
    seeds: int,
    known_benign: int | None,
    alternatives: Path | None,
    data_dir: Path | None,
    runs_dir: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Bench:
    """Make the recipes' runs, and decide what can be run on what. Empty sequences mean the bench's own choice.

    Everything that the settings alone decide is checked before anything is trained. Raises UsageError for names and
    shares that cannot be and for settings that are missing, UnusableInput for runs that hold poisoned uploads, and for
    an attack or a method named that no run allows.
    """
    for share in shares:
        if not 0 <= share < 1:
            raise UsageError(f"a share of attackers is at least 0 and below 1, not {share}")
    for path in runs:
        if list(runs).count(path) > 1:
            raise UsageError(f"the run {path} is named twice")
    named = list(dict.fromkeys(canonical(attack_registry.get(text)) for text in attacks or (*PUBLISHED, *HARDER)))
    shares = list(dict.fromkeys(shares))
    _named_methods(methods)
    chosen = [recipe(name) for name in dict.fromkeys(RECIPES if "all" in recipes else recipes)]
    own = [_Candidate(str(path), path, alternatives, None, known_benign, None) for path in runs]
    plans = [_plan_run(candidate, named, methods, shares) for candidate in own]
    for each in chosen:
        if not is_made(each, runs_dir):
            each.check_data(data_dir)
    for each in chosen:
        path, flipped = make(each, runs_dir, data_dir, progress)
        k = each.known_benign if known_benign is None else known_benign
        made = _Candidate(each.name, path, flipped, canonical(FLIPPED), k, each.learning_rate)
        plans.append(_plan_run(made, named, methods, shares))
    if attacks:
        _refuse_skipped(named, plans)
    return Bench(
        subjects={plan.subject.name: plan.subject for plan in plans},
        methods=[method for method in plans[0].methods if all(method in plan.methods for plan in plans)],
        cells=[
            cell
            for plan in plans
            for cell in grid([plan.subject.name], plan.attacks, plan.shares, range(seeds), plan.known_benign)
        ],
        skipped=[f"{plan.subject.name}: {line}" for plan in plans for line in plan.skipped],
    )


@dataclass(frozen=True)
class _Candidate:
    """A run that may be benched on.

    `trained_by` is the attack that the alternatives were trained by, and `rate` the server's learning rate, where they
    are known.
    """

    name: str
    path: Path
    alternatives: Path | None
    trained_by: str | None
    known_benign: int | None
    rate: float | None


@dataclass(frozen=True)
class _RunPlan:
    """What one run allows; `left_out` is why the other attacks are left out."""

    subject: Subject
    known_benign: int | None
    methods: Sequence[str]
    attacks: Sequence[str]
    shares: Sequence[float]
    left_out: Mapping[str, EncaggError]
    skipped: Sequence[str]


def _plan_run(
    candidate: _Candidate, attacks: Sequence[str], methods: Sequence[str], shares: Sequence[float]
) -> _RunPlan:
    name, k = candidate.name, candidate.known_benign
    with Run.open(candidate.path) as run:
        _check_honest(run)
        clients = sorted({client for stored in run for client in stored.client_ids})
        own = {c for stored in run for c, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag}
        trusted = draw_known_benign(clients, frozenset(own), Cell(name, "", 0.0, 0, k))
        able, missing = _methods(run, methods, trusted)
        usable, left_out = _attacks(run, attacks, trusted, candidate)
        possible, impossible = _shares(shares, clients, trusted)
        digest = _digest(run, candidate.alternatives)
    return _RunPlan(
        subject=Subject(name, candidate.path, candidate.alternatives, digest),
        known_benign=k,
        methods=able,
        attacks=usable,
        shares=possible,
        left_out=left_out,
        skipped=[
            *(f"{method} {why}" for method, why in missing.items()),
            *(f"{attack} {why.message}" + (f" ({why.hint})" if why.hint else "") for attack, why in left_out.items()),
            *impossible,
        ],
    )


def _digest(run: Run, alternatives: Path | None) -> str:
    """Of all that cells are computed from: a cell that was kept counts for these updates alone."""
    digests = [stored.digest for stored in run]
    if alternatives is not None:
        with Run.open(alternatives) as trained:
            digests += ["alternatives", *(stored.digest for stored in trained)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _refuse_skipped(named: Sequence[str], plans: Sequence[_RunPlan]) -> None:
    """Raise the reason why an attack that was asked for cannot be run on any of the runs."""
    for text in named:
        if all(text in plan.left_out for plan in plans):
            reason = plans[0].left_out[text]
            raise type(reason)(f"{plans[0].subject.name}: {text} {reason.message}", hint=reason.hint)


def _shares(wanted: Sequence[float], clients: Sequence[str], trusted: frozenset[str]) -> tuple[list[float], list[str]]:
    """The shares that these clients allow; those that were asked for must all be possible."""
    possible, impossible = [], []
    for share in wanted or SHARES:
        try:
            check_share(share, clients, trusted)
        except UsageError as error:
            if wanted:
                raise
            impossible.append(error.message)
        else:
            possible.append(share)
    return possible, impossible


def _check_honest(run: Run) -> None:
    for stored in run:
        if bool((stored.poisoned == 1).any()):
            raise UnusableInput(
                f"{run.path}, round {stored.number}: it holds poisoned uploads, and a bench poisons honest ones",
                hint="bench on an honest run; `encagg filter` and `encagg score` judge this one",
            )


def _methods(run: Run, wanted: Sequence[str], trusted: frozenset[str]) -> tuple[list[str], dict[str, str]]:
    named = _named_methods(wanted)
    if named:
        for text, chosen in named.items():
            if Requirement.KNOWN_BENIGN in chosen.requires and len(trusted) < chosen.least_known_benign:
                least = counted(chosen.least_known_benign, "known-benign client")
                raise UsageError(
                    f"{text} needs at least {least}, and there are {len(trusted)}",
                    hint="draw some: --known-benign K",
                )
        check_run(named, run, run.rounds, trusted)
        return list(named), {}
    filters, missing = choose_all(facts_of(run, run.rounds, trusted), told_the_truth(), finite_uploads(run, run.rounds))
    return [canonical(chosen) for chosen in filters], missing


def _named_methods(wanted: Sequence[str]) -> dict[str, Filter]:
    """The methods that were named, told the number of attackers where they must be; none, where all are wanted."""
    if "all" in wanted:
        return {}
    truth = told_the_truth()
    named = []
    for text in wanted:
        name, given = parse_call(text)
        named.append(get(text, **({} if "f" in given else truth.get(name, {}))))
    return name_methods(named)


def _attacks(
    run: Run, named: Sequence[str], trusted: frozenset[str], candidate: _Candidate
) -> tuple[list[str], dict[str, EncaggError]]:
    """The attacks that this run allows, and why the others are left out."""
    rate = candidate.rate
    usable: list[str] = []
    left_out: dict[str, EncaggError] = {}
    has_models = all(stored.has_global_model for stored in run)
    gradients = run.round(run.rounds[0]).update_kind == "gradient"
    for text in named:
        attack = attack_registry.get(text)
        needs = attack.requires()
        watches = gradients and getattr(attack, "learning_rate", 0.0) is None
        if AttackNeed.TRAINED_TO_HARM in needs and candidate.alternatives is None:
            left_out[text] = UsageError(
                "needs updates trained on changed labels", hint="name a run that holds them: --alternatives RUN"
            )
        elif AttackNeed.TRAINED_TO_HARM in needs and candidate.trained_by not in (None, text):
            left_out[text] = UsageError(
                f"needs updates trained so, and those of a recipe are trained by {candidate.trained_by}",
                hint="bench a run of your own, beside updates so trained: encagg bench RUN --alternatives RUN",
            )
        elif AttackNeed.GLOBAL_MODEL in needs and not has_models:
            left_out[text] = UnusableInput(
                "needs the global model of every round", hint="record rounds with their global_model"
            )
        elif AttackNeed.KNOWN_BENIGN in needs and not trusted:
            left_out[text] = UsageError(
                "aims at a filter that needs known-benign clients", hint="draw some: --known-benign K"
            )
        elif watches and rate is None and AttackNeed.GLOBAL_MODEL in needs:
            left_out[text] = UsageError(
                "must know the server's learning rate where updates are gradients",
                hint=f"state it: {attack.name}(learning_rate=0.1)",
            )
        else:
            if watches and rate is not None:
                attack = replace(attack, learning_rate=rate)  # type: ignore[call-arg]
            usable.append(canonical(attack))
    return usable, left_out
