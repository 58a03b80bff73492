"""One cell of a bench: craft every round's attack, sketch it once, and let every method judge it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from encagg_cli.bench.oracle import best_counts, harm, oracle_scores, ordered_pairs
from encagg_cli.bench.poisoned import Honest, PoisonedRound
from encagg_cli.engine.blas import one_blas_thread
from encagg_cli.filters import Decision, Filter, canonical, get
from encagg_cli.filters.passes import sketch_for
from encagg_cli.rounds.reader import Run, StoredRound
from encagg_cli.sketch import ArraySource, GramNeed, RoundSketch, sketch_round
from encagg_cli.sketch.stored import StoredSource
from encagg_cli.verdicts.replay import judge_round, show_aggregates

IN_MEMORY_BYTES = 2**29  # a larger round is read from its file, as often as it is asked for

Row = dict[str, Any]


def run_cell(cell: Cell, path: Path, methods: Sequence[str], alternatives: Path | None) -> list[Row]:
    """Rows of `table.SCHEMA` for all rounds of a cell. A function of its arguments alone, for any process to call."""
    with one_blas_thread(), Run.open(path) as run:
        harmful = None if alternatives is None else Run.open(alternatives)
        try:
            return list(_rows(cell, run, [get(text) for text in methods], harmful))
        finally:
            if harmful is not None:
                harmful.close()


def _rows(cell: Cell, run: Run, methods: Sequence[Filter], alternatives: Run | None) -> Iterator[Row]:
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
    before: StoredRound | None = None
    for stored in run:
        honest = _honest(stored, before)
        if AttackNeed.GLOBAL_MODEL in campaign.requires:
            campaign.observe(stored.number, stored.global_model())
        plan = campaign.plan(stored.number, stored.client_ids)
        trained_to_harm = None if alternatives is None else _honest(alternatives.round(stored.number), None)
        poisoned = PoisonedRound.craft(honest, campaign, plan, trusted, trained_to_harm)
        yield from _judge(cell, poisoned, methods, trusted)
        before = stored


def _honest(stored: StoredRound, before: StoredRound | None) -> Honest:
    source = StoredSource(stored, before)
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


def _judge(cell: Cell, source: PoisonedRound, methods: Sequence[Filter], trusted: frozenset[str]) -> Iterator[Row]:
    sketch = sketch_for(source, methods)
    if GramNeed() not in sketch.figures:  # the oracle and the harm are computed from it
        sketch = replace(sketch, figures={**sketch.figures, **sketch_round(source, [GramNeed()]).figures})
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
    for chosen in methods:
        text = canonical(chosen)
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
            "method": f"oracle:{name}",
            "told_f": True,
            **dict(zip(("tp", "fp", "tn", "fn"), (tp, fp, tn, fn), strict=True)),
            "wins": wins,
            "pairs": pairs,
            "known_benign_rejected": 0,
            "harm_distance": None,
            "harm_angle": None,
            "milliseconds": None,
        }


def _counts(source: PoisonedRound, decision: Decision, trusted: frozenset[str]) -> Row:
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
