"""Gates: bounds that figures must keep, and what came of each. A figure that is undefined never passes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from encagg_cli.errors import NothingToDo, UsageError
from encagg_cli.score.baseline import Baseline
from encagg_cli.score.metrics import METRICS, why_undefined
from encagg_cli.score.scorer import MethodScore, Score

Relation = Literal[">=", "<="]

NEEDS_NO_LABELS: Final = frozenset({"rejected", "rounds"})
_OVER_ALL_ATTACKS: Final = frozenset({"clean_fpr", "rejected", "rounds"})


@dataclass(frozen=True)
class Bound:
    """A figure's bound: `recall >= 0.9`, of the uploads of one attack if `attack` is given."""

    metric: str  # a name in METRICS, or "rounds"
    relation: Relation
    value: float
    attack: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one gate for one method. `why` says in words what fell short; empty where it passed.

    A gate against a baseline has the baseline's figure and how much worse than that is allowed.
    """

    method: str
    metric: str
    relation: Relation
    figure: float | None
    bound: float | None
    passed: bool
    attack: str | None = None
    why: str = ""
    baseline: float | None = None
    drop: float | None = None

    @property
    def name(self) -> str:
        """The gate in a few words, the same in every build: `encagg: recall >= 0.9 for lie`. May hold hostile text."""
        metric = f"{self.method}: {self.metric.replace('_', '-')}"
        if self.drop is not None:
            return f"{metric} within {shown(self.drop)} of the baseline"
        of = f" for {self.attack or 'an attack without a name'}" if self.attack is not None else ""
        return f"{metric} {self.relation} {shown(self.bound)}{of}"


def parse_bounds(metric: str, kind: Literal["min", "max"], texts: Iterable[str]) -> Iterator[Bound]:
    """Bounds from an option's values: `0.9`, or `lie=0.9` for one attack. Raises UsageError."""
    option = f"--{kind}-{metric.replace('_', '-')}"
    for text in texts:
        attack, equals, number = text.rpartition("=")
        if equals and metric in _OVER_ALL_ATTACKS:
            raise UsageError(f"{option} is not a figure of one attack: {text!r}", hint=f"write {option} 0.1")
        value = parse_share(number, option, text)
        yield Bound(metric, ">=" if kind == "min" else "<=", value, attack.strip() if equals else None)


def parse_share(number: str, option: str, text: str | None = None) -> float:
    """A number from 0 to 1. Raises UsageError."""
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(f"{option} takes a number from 0 to 1, not {text or number!r}", hint=f"write {option} 0.9")
    return value


def parse_drops(texts: Iterable[str]) -> dict[str, float]:
    """`--max-drop` by metric; "" stands for all that the baseline has. Raises UsageError."""
    drops: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        metric = name.strip().replace("-", "_")
        if metric and metric not in METRICS:
            known = ", ".join(one.option for one in METRICS.values())
            raise UsageError(f"--max-drop knows no metric {name!r}", hint=f"there are: {known}")
        drops[metric] = parse_share(number, "--max-drop", text)
    return drops


def refuse_nothing(score: Score, bounds: Sequence[Bound]) -> None:
    """Raise NothingToDo where there are no labels, and no gate that works without them."""
    if not score.has_labels and not any(bound.metric in NEEDS_NO_LABELS for bound in bounds):
        raise NothingToDo(
            "no upload has a label, so there is nothing to score",
            hint="give labels: --labels FILE.csv (round,client_id,poisoned) or --run RUN; "
            "or gate on what needs none: --max-rejected 0.3",
        )


def judge(
    score: Score,
    bounds: Sequence[Bound],
    baseline: Baseline | None = None,
    drops: Mapping[str, float] | None = None,
) -> list[Outcome]:
    """Every gate's outcome, for every method; failures first, otherwise in the order given."""
    outcomes = [_against_bound(one, bound) for one in score.methods for bound in dict.fromkeys(bounds)]
    if baseline is not None:
        for one in score.methods:
            outcomes.extend(_against_baseline(one, baseline.metrics[one.method], drops or {}))
    return sorted(outcomes, key=lambda outcome: outcome.passed)


def shown(figure: float | None) -> str:
    """A figure as people read it: rounded to six digits, or whole where it is a count."""
    return "undefined" if figure is None else f"{figure:.6g}"


def _against_bound(one: MethodScore, bound: Bound) -> Outcome:
    figure, why = _figure(one, bound)
    passed = figure is not None and _keeps(figure, bound.relation, bound.value)
    if figure is not None and not passed:
        why = f"{_apart(figure, bound.value)} is {'below' if bound.relation == '>=' else 'above'} {shown(bound.value)}"
    return Outcome(one.method, bound.metric, bound.relation, figure, bound.value, passed, bound.attack, why)


def _figure(one: MethodScore, bound: Bound) -> tuple[float | None, str]:
    """The figure that a bound is about, or None and why there is none."""
    if bound.metric == "rounds":
        return float(one.total.count("labelled_rounds") or one.total.count("rounds")), ""
    if bound.attack is None:
        section = one.total
    elif bound.attack in one.attacks:
        section = one.attacks[bound.attack]
    else:
        known = ", ".join(name or "(no name)" for name in one.attacks)
        return None, f"undefined: no upload is labelled as of this attack (there are: {known or 'none'})"
    figure = section.figures[bound.metric]
    if figure is None:
        return None, f"undefined: {why_undefined(bound.metric, section.counts)}"
    return figure, ""


def _against_baseline(
    one: MethodScore, baseline: Mapping[str, float | None], drops: Mapping[str, float]
) -> Iterator[Outcome]:
    compared = [name for name in METRICS if name in drops or ("" in drops and _is_comparable(name, baseline))]
    if not compared:
        why = "undefined: the baseline defines no metric"
        yield Outcome(one.method, "every metric", ">=", None, None, passed=False, why=why, drop=drops.get(""))
    for name in compared:
        drop = drops[name] if name in drops else drops[""]
        figure, was = one.total.figures[name], baseline.get(name)
        bound, passed, why = _against(name, figure, was, drop)
        if not why and figure is None:
            why = f"undefined: {why_undefined(name, one.total.counts)}; the baseline has {shown(was)}"
        relation: Relation = ">=" if METRICS[name].better == "higher" else "<="
        yield Outcome(one.method, name, relation, figure, bound, passed, why=why, baseline=was, drop=drop)


def _against(name: str, figure: float | None, was: float | None, drop: float) -> tuple[float | None, bool, str]:
    """The bound that a baseline sets, whether a figure keeps it, and why not, as far as that is about figures.

    In decimals as they are written, so that 0.92 − 0.02 is 0.9, and not a little more.
    """
    if was is None:
        return None, False, "undefined in the baseline"
    higher = METRICS[name].better == "higher"
    exact = Decimal(repr(was)) + (-Decimal(repr(drop)) if higher else Decimal(repr(drop)))
    if figure is None:
        return float(exact), False, ""
    now = Decimal(repr(figure))
    passed = now >= exact if higher else now <= exact
    why = "" if passed else f"{shown(figure)} is worse than the baseline's {shown(was)} by more than {drop:g}"
    return float(exact), passed, why


def _is_comparable(name: str, baseline: Mapping[str, float | None]) -> bool:
    """Whether a drop of all metrics is about this one; FPR is there as benign retention already."""
    return name not in {"fpr", "rejected"} and baseline.get(name) is not None


def _keeps(figure: float, relation: Relation, bound: float) -> bool:
    """Unrounded; False for NaN on either side."""
    return figure >= bound if relation == ">=" else figure <= bound


def _apart(figure: float, bound: float) -> str:
    """A figure with as many digits as tell it from its bound."""
    return shown(figure) if shown(figure) != shown(bound) else repr(figure)
