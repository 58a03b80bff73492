"""What a bench will run: its runs, methods and cells, with what was left out and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from encagg_cli import attacks as attack_registry
from encagg_cli.attacks import AttackNeed
from encagg_cli.bench.cells import HARDER, PUBLISHED, SHARES, Cell, grid
from encagg_cli.bench.recipes import RECIPES, make, recipe
from encagg_cli.bench.runner import Subject
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.filters import canonical, get
from encagg_cli.rounds.reader import Run
from encagg_cli.settings import parse_call
from encagg_cli.verdicts.choosing import choose_all, facts_of, told_the_truth


@dataclass(frozen=True)
class Bench:
    """A bench ready to run. `skipped` says what was left out, a line each."""

    subjects: Mapping[str, Subject]
    methods: Sequence[str]
    cells: Sequence[Cell]
    skipped: Sequence[str]


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

    Raises UsageError for names and shares that cannot be, UnusableInput for runs that hold poisoned uploads.
    """
    for share in shares:
        if not 0 <= share < 1:
            raise UsageError(f"a share of attackers is at least 0 and below 1, not {share}")
    named = [canonical(attack_registry.get(text)) for text in attacks or (*PUBLISHED, *HARDER)]
    subjects: dict[str, Subject] = {}
    cells: list[Cell] = []
    skipped: list[str] = []
    runnable: list[str] | None = None
    wanted = list(RECIPES) if "all" in recipes else list(recipes)
    own = [(str(path), path, alternatives, None, None) for path in runs]
    made = [
        (
            name,
            *make(recipe(name), runs_dir, data_dir, progress),
            recipe(name).known_benign,
            recipe(name).setup(data_dir).training.learning_rate,
        )
        for name in wanted
    ]
    for name, path, flipped, drawn, rate in [*own, *made]:
        k = known_benign if known_benign is not None else drawn
        with Run.open(path) as run:
            _check_honest(run)
            subjects[name] = Subject(name, path, flipped, "".join(stored.digest for stored in run)[:64])
            trusted = {c for stored in run for c, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag}
            if k is not None:
                trusted = {str(index) for index in range(k)}
            able, missing = _methods(run, methods, frozenset(trusted))
            skipped += [f"{name}: {method} {why}" for method, why in missing.items()]
            runnable = able if runnable is None else [method for method in runnable if method in able]
            usable, left_out = _attacks(run, named, frozenset(trusted), flipped, rate)
            skipped += [f"{name}: {attack} {why}" for attack, why in left_out.items()]
        cells += grid([name], usable, shares or SHARES, range(seeds), k)
    return Bench(subjects, runnable or [], cells, skipped)


def _check_honest(run: Run) -> None:
    for stored in run:
        if bool((stored.poisoned == 1).any()):
            raise UnusableInput(
                f"{run.path}, round {stored.number}: it holds poisoned uploads, and a bench poisons honest ones",
                hint="bench on an honest run; `encagg filter` and `encagg score` judge this one",
            )


def _methods(run: Run, wanted: Sequence[str], trusted: frozenset[str]) -> tuple[list[str], dict[str, str]]:
    truth = told_the_truth()
    if not wanted or "all" in wanted:
        filters, missing = choose_all(facts_of(run, run.rounds, trusted), truth)
        return [canonical(chosen) for chosen in filters], missing
    texts = []
    for text in wanted:
        name, given = parse_call(text)
        told = {} if "f" in given else truth.get(name, {})
        texts.append(canonical(get(text, **told)))
    return texts, {}


def _attacks(
    run: Run, named: Sequence[str], trusted: frozenset[str], alternatives: Path | None, rate: float | None
) -> tuple[list[str], dict[str, str]]:
    """The attacks that this run allows, and why the others are left out; `rate` is the server's learning rate."""
    usable: list[str] = []
    left_out: dict[str, str] = {}
    has_models = all(stored.has_global_model for stored in run)
    gradients = run.round(run.rounds[0]).update_kind == "gradient"
    for text in named:
        attack = attack_registry.get(text)
        needs = attack.requires()
        watches = gradients and getattr(attack, "learning_rate", 0.0) is None
        if AttackNeed.TRAINED_TO_HARM in needs and alternatives is None:
            left_out[text] = "needs updates trained on changed labels (--alternatives RUN)"
        elif AttackNeed.GLOBAL_MODEL in needs and not has_models:
            left_out[text] = "needs the global model of every round (capture it)"
        elif AttackNeed.KNOWN_BENIGN in needs and not trusted:
            left_out[text] = "aims at a filter that needs known-benign clients (--known-benign K)"
        elif watches and rate is None and AttackNeed.GLOBAL_MODEL in needs:
            left_out[text] = "must know the server's learning rate where updates are gradients (learning_rate=…)"
        else:
            if watches and rate is not None:
                attack = replace(attack, learning_rate=rate)  # type: ignore[call-arg]
            usable.append(canonical(attack))
    return usable, left_out
