"""One cell of a bench: sketch every poisoned round once, and let every method judge it.

The sketch is computed from that of the honest round where the attack and the methods allow it; otherwise the poisoned
uploads are crafted and sketched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli import attacks
from encagg_cli.attacks import AttackNeed
from encagg_cli.attacks.campaign import Campaign
from encagg_cli.attacks.schedule import get_schedule
from encagg_cli.bench.cells import Cell, draw_known_benign
from encagg_cli.bench.from_sketches import MixedRound, mix_round, needs_of
from encagg_cli.bench.oracle import best_counts, harm, oracle_scores, ordered_pairs
from encagg_cli.bench.poisoned import Honest, Poisoned, PoisonedRound
from encagg_cli.bench.table import NO_FILTER, ORACLE
from encagg_cli.engine.blas import one_blas_thread
from encagg_cli.filters import Decision, Filter, canonical, get
from encagg_cli.filters.passes import sketch_for
from encagg_cli.rounds.reader import Run, StoredRound
from encagg_cli.sketch import ArraySource, GramNeed, RoundSketch, Sketcher, sketch_round
from encagg_cli.sketch.stored import StoredSource
from encagg_cli.sketch.tasks import open_source
from encagg_cli.verdicts.replay import judge_round, show_aggregates

IN_MEMORY_BYTES = 2**29  # a larger round is read from its file, as often as it is asked for

Row = dict[str, Any]


def run_cell(cell: Cell, path: Path, methods: Sequence[str], alternatives: Path | None) -> list[Row]:
    """Rows of `table.SCHEMA` for all rounds of a cell. A function of its arguments alone, for any process to call."""
    with ExitStack() as stack:
        stack.enter_context(one_blas_thread())
        run = stack.enter_context(Run.open(path))
        harmful = None if alternatives is None else stack.enter_context(Run.open(alternatives))
        filters = [get(text) for text in methods]
        needs = needs_of(cell.attack, filters)
        known = None
        if needs is not None:
            known = partial(stack.enter_context(Sketcher(run, workers=1)), needs=needs)
        return list(_rows(cell, run, filters, harmful, known))


def _rows(
    cell: Cell,
    run: Run,
    methods: Sequence[Filter],
    alternatives: Run | None,
    known: Callable[[StoredRound], RoundSketch] | None,
) -> Iterator[Row]:
    clients = sorted({client for number in run.rounds for client in run.round(number).client_ids})
    own = {c for stored in run for c, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag}
    trusted = draw_known_benign(clients, frozenset(own), cell)
    campaign = Campaign(
        [attacks.get(cell.attack)] if cell.attack else [],
        ratio=cell.ratio,
        schedule=get_schedule("always"),
        seed=cell.seed,
        clients=clients,
        trusted=trusted,
    )
    for stored in run:
        if AttackNeed.GLOBAL_MODEL in campaign.requires:
            campaign.observe(stored.number, stored.global_model())
        plan = campaign.plan(stored.number, stored.client_ids)
        source = open_source(run, stored.number)
        mixed = None if known is None else mix_round(known(stored), source, campaign, plan, trusted)
        if mixed is not None:
            yield from _judge(cell, *mixed, methods, trusted)
            continue
        harmful = None if alternatives is None else _in_memory(open_source(alternatives, stored.number))
        crafted = PoisonedRound.craft(_in_memory(source), campaign, plan, trusted, harmful)
        yield from _judge(cell, crafted, _sketched(crafted, methods), methods, trusted)


def _in_memory(source: StoredSource) -> Honest:
    """The round in memory, unless it is too large."""
    stored = source.stored
    if 4 * len(stored.client_ids) * stored.n_parameters > IN_MEMORY_BYTES:
        return source
    vectors = {name: np.empty(stored.n_parameters, dtype=np.float32) for name in source.vector_names}
    for name, vector in vectors.items():
        source.read_vector(name, 0, stored.n_parameters, vector)
    return ArraySource(
        stored.rows(range(len(stored.client_ids))),
        stored.client_ids,
        stored.trusted,
        number=stored.number,
        vectors=vectors,
        examples=stored.num_examples.tolist(),
        layout=stored.parameters,
        update_kind=stored.update_kind,
    )


def _sketched(source: PoisonedRound, methods: Sequence[Filter]) -> RoundSketch:
    sketch = sketch_for(source, methods)
    if GramNeed() not in sketch.figures:  # the oracle and the harm are computed from it
        sketch = replace(sketch, figures={**sketch.figures, **sketch_round(source, [GramNeed()]).figures})
    return sketch


def _judge(
    cell: Cell,
    source: PoisonedRound | MixedRound,
    sketch: RoundSketch,
    methods: Sequence[Filter],
    trusted: frozenset[str],
) -> Iterator[Row]:
    clients = sketch.clients
    poisoned = np.array([client in source.place for client in clients], dtype=bool)
    counted = np.array([client not in trusted for client in clients], dtype=bool)
    common: Row = {
        "run": cell.run,
        "attack": cell.attack,
        "ratio": cell.ratio,
        "seed": cell.seed,
        "round": source.number,
    }
    for text, chosen in (*((canonical(chosen), chosen) for chosen in methods), (NO_FILTER, get("mean"))):
        started = perf_counter()
        verdicts = judge_round(sketch, source, {text: chosen}, trusted)
        elapsed = perf_counter() - started
        show_aggregates(source, verdicts, {text: chosen})
        decision = verdicts.decisions[text]
        yield {
            **common,
            "method": text,
            "told_f": getattr(chosen, "f", None) is not None,
            **_counts(source, decision, trusted),
            **_harm(sketch, decision, poisoned),
            "milliseconds": 1000.0 * elapsed,
        }
    for name, score in oracle_scores(sketch.gram, poisoned).scores.items():
        tp, fp, tn, fn = best_counts(score[counted], poisoned[counted])
        wins, pairs = ordered_pairs(score[counted], poisoned[counted])
        yield {
            **common,
            "method": f"{ORACLE}{name}",
            "told_f": True,
            **dict(zip(("tp", "fp", "tn", "fn"), (tp, fp, tn, fn), strict=True)),
            "wins": wins,
            "pairs": pairs,
            "known_benign_rejected": 0,
            "harm_distance": None,
            "harm_angle": None,
            "milliseconds": None,
        }


def _counts(source: Poisoned, decision: Decision, trusted: frozenset[str]) -> Row:
    poisoned = np.array([client in source.place for client in decision.clients], dtype=bool)
    counted = np.array([client not in trusted for client in decision.clients], dtype=bool)
    rejected = ~decision.accepted
    wins, pairs = ordered_pairs(decision.score[counted], poisoned[counted])

    def count(mask: NDArray[np.bool_]) -> int:
        return int((mask & counted).sum())

    return {
        "tp": count(rejected & poisoned),
        "fp": count(rejected & ~poisoned),
        "tn": count(~rejected & ~poisoned),
        "fn": count(~rejected & poisoned),
        "wins": wins,
        "pairs": pairs,
        "known_benign_rejected": int((rejected & ~counted).sum()),
    }


def _harm(sketch: RoundSketch, decision: Decision, poisoned: NDArray[np.bool_]) -> Row:
    """Of a linear aggregate without memory; others would need a pass of their own."""
    if decision.weight is None or decision.prior_weight:
        return {"harm_distance": None, "harm_angle": None}
    weight = decision.in_order(sketch.clients).weight
    assert weight is not None
    distance, angle = harm(sketch.gram, weight, poisoned)
    return {
        "harm_distance": None if np.isnan(distance) else distance,
        "harm_angle": None if np.isnan(angle) else angle,
    }
