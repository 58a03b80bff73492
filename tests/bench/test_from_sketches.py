"""Cells computed from the honest round's sketch: the same figures as from crafted uploads, and nothing read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encagg_cli import Run, attacks, filters
from encagg_cli.attacks.campaign import Campaign
from encagg_cli.attacks.schedule import get_schedule
from encagg_cli.bench import run_cell
from encagg_cli.bench.cells import Cell
from encagg_cli.bench.from_sketches import mix_round, needs_of
from encagg_cli.bench.poisoned import PoisonedRound
from encagg_cli.filters import Decision, Filter
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.rows import RowReader
from encagg_cli.rounds.writer import RoundWriter
from encagg_cli.sketch import GramNeed, RoundSketch, sketch_round
from encagg_cli.sketch.stored import StoredSource
from encagg_cli.sketch.tasks import open_source
from encagg_cli.verdicts.choosing import told_the_truth
from encagg_cli.verdicts.replay import judge_round

LINEAR = (
    "sign-flip",
    "sign-flip(scale=5.0)",
    "scaling",
    "scaling(factor=clients)",
    "ipm(epsilon=0.1)",
    "ipm(epsilon=1.0)",
    "ipm(epsilon=100.0,knowledge=own)",
    "min-max",
    "min-max(knowledge=own)",
    "min-sum",
    "mimic",
    "free-rider",
    "xfed-like",
    "ipm-optimised(target=multi-krum(f=oracle,relaxed=true))",
    "agr-tailored(target=cosine-to-known-benign)",
    "agr-tailored(target=flame(on=updates),knowledge=own)",
    "cmp(target=multi-krum(f=oracle,relaxed=true))",
    "adaptive",
    "adaptive(target=cosine-to-known-benign,reference=mean,pull=0.5)",
    "adaptive(target=encagg)",
)
NOT_LINEAR = (
    "adaptive(noise=0.5)",
    "adaptive(target=median)",
    "adaptive(target=lasa)",
    "agr-tailored(direction=sd)",
    "lie-optimised",
    "lie",
    "ipm(noise=1.0)",
    "min-max(direction=sd)",
    "mimic(pick=variance)",
    "gaussian",
    "label-flip",
)
# Rounding decides in two methods, on whatever path: RFLBAT's K-means splits equal uploads by the last digits of their
# principal coordinates, and DPFLA takes its scores from the class of largest silhouette, of several that are the same.
SPLITS_EQUAL_UPLOADS = "rflbat"
SCORES_BY_ONE_CLASS = "dpfla"
TRUSTED = frozenset({"client-00", "client-03", "client-05"})


def method(name: str) -> Filter:
    return filters.get(name, **told_the_truth().get(name, {}))


MIXED = [name for name in filters.available() if needs_of("", [method(name)]) is not None]


def campaign_of(text: str, run: Run, ratio: float = 0.4) -> Campaign:
    return Campaign(
        [attacks.get(text)],
        ratio=ratio,
        schedule=get_schedule("always"),
        seed=1,
        clients=run.round(run.rounds[0]).client_ids,
        trusted=TRUSTED,
    )


def both_ways(text: str, path: Path, methods: list[Filter]) -> Iterator[tuple[Any, RoundSketch, Any, RoundSketch]]:
    """Every round of the run under an attack: crafted and sketched, and mixed."""
    needs = needs_of(text, methods)
    assert needs is not None
    with Run.open(path) as run:
        campaign = campaign_of(text, run)
        for stored in run:
            model = stored.global_model()
            if campaign.requires:
                campaign.observe(stored.number, model)
            plan = campaign.plan(stored.number, stored.client_ids)
            source = open_source(run, stored.number)
            crafted = PoisonedRound.craft(source, campaign, plan, TRUSTED)
            mixed = mix_round(sketch_round(source, needs), source, campaign, plan, TRUSTED)
            assert mixed is not None
            yield crafted, sketch_round(crafted, needs), *mixed


def same(one: Decision, two: Decision, groups: list[list[str]], name: str) -> None:
    """Equal verdicts; among equal uploads, which nothing tells apart, equally many of each."""
    assert one.clients == two.clients
    for group in groups:
        rows = [one.clients.index(client) for client in group]
        mine, others = ([(d.reason[row], bool(d.accepted[row])) for row in rows] for d in (one, two))
        assert sorted(mine) == sorted(others), f"{name}: {group}"
        for attribute, tolerance in (("score", 2e-4), ("weight", 2e-5)):
            if getattr(one, attribute) is not None and not (attribute == "score" and name == SCORES_BY_ONE_CLASS):
                figures = (np.sort(getattr(decision, attribute)[rows]) for decision in (one, two))
                np.testing.assert_allclose(*figures, rtol=2e-3, atol=tolerance, err_msg=name)


def groups_of(sketch: RoundSketch) -> list[list[str]]:
    """Clients by upload."""
    groups: dict[int, list[str]] = {}
    for client, row in zip(sketch.clients, sketch.gram.squared_distances, strict=True):
        groups.setdefault(int(np.flatnonzero(row == 0)[0]), []).append(client)
    return list(groups.values())


def test_most_methods_can_be_answered_without_columns() -> None:
    assert {"encagg", "krum", "flame", "flguardian", "fltrust", "k-means"} <= set(MIXED)
    assert not {"anchored-views", "median", "signguard", "lasa", "flair", "dnc"} & set(MIXED)


@pytest.mark.parametrize("text", LINEAR)
def test_every_method_decides_as_on_crafted_uploads(honest_run: Path, text: str) -> None:
    assert attacks.get(text).is_linear()
    by_column, by_weights = [method(name) for name in MIXED], [method(name) for name in MIXED]
    for crafted, sketch, mixed, from_weights in both_ways(text, honest_run, by_column):
        assert from_weights.header.clients == sketch.header.clients
        np.testing.assert_allclose(mixed.norms, crafted.norms, rtol=1e-4, atol=1e-6)
        scale = np.outer(crafted.norms, crafted.norms).max()
        for figure in ("inner", "squared_distances", "deviations"):
            np.testing.assert_allclose(
                getattr(from_weights.gram, figure), getattr(sketch.gram, figure), rtol=1e-4, atol=1e-6 * scale
            )
        groups = groups_of(sketch)
        for one, two in zip(by_column, by_weights, strict=True):
            name = filters.canonical(one)
            if name == SPLITS_EQUAL_UPLOADS and len(groups) < len(sketch.clients):
                continue
            same(
                judge_round(sketch, crafted, {name: one}, TRUSTED).decisions[name],
                judge_round(from_weights, mixed, {name: two}, TRUSTED).decisions[name],
                groups,
                name,
            )


@pytest.mark.parametrize("text", NOT_LINEAR)
def test_what_is_no_combination_of_updates_says_so(text: str) -> None:
    attack = attacks.get(text)
    assert not attack.is_linear()
    assert needs_of(text, [filters.get("k-means")]) is None


def test_equal_uploads_have_exactly_equal_figures(honest_run: Path) -> None:
    for text in ("mimic", "min-max"):
        for _, _, mixed, sketch in both_ways(text, honest_run, [filters.get("k-means")]):
            rows = [sketch.clients.index(client) for client in mixed.place]
            assert len(np.unique(sketch.gram.norms[rows])) == 1
            assert not sketch.gram.squared_distances[np.ix_(rows, rows)].any()
            copied = [row for row in range(len(sketch.clients)) if sketch.gram.squared_distances[row, rows[0]] == 0]
            assert len(copied) == len(rows) + (text == "mimic")


def test_a_cell_whose_sketches_are_kept_reads_no_update(honest_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ["k-means", "encagg", "flguardian", "fltrust"]
    cell = Cell("r", "min-max", 0.25, 0, 3)
    first = run_cell.run_cell(cell, honest_run, methods, None)

    def refuse(*arguments: object) -> None:
        raise AssertionError("an update was read")

    for reader in (StoredSource, RowReader):
        for name in ("read_columns", "read_rows", "read_row"):
            if hasattr(reader, name):
                monkeypatch.setattr(reader, name, refuse)
    again = run_cell.run_cell(cell, honest_run, methods, None)
    assert [{**row, "milliseconds": 0} for row in again] == [{**row, "milliseconds": 0} for row in first]
    other = run_cell.run_cell(Cell("r", "sign-flip", 0.5, 1, 3), honest_run, methods, None)
    assert len(other) == len(first)
    with pytest.raises(AssertionError, match="read"):
        run_cell.run_cell(Cell("r", "lie", 0.25, 0, 3), honest_run, methods, None)


def test_rows_of_a_cell_are_those_of_crafted_uploads(honest_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ["k-means", "encagg", "cosine-to-known-benign"]
    cell = Cell("r", "sign-flip", 0.5, 0, 3)
    mixed = run_cell.run_cell(cell, honest_run, methods, None)
    monkeypatch.setattr(run_cell, "mix_round", lambda *arguments: None)
    for one, two in zip(mixed, run_cell.run_cell(cell, honest_run, methods, None), strict=True):
        for name in ("method", "round", "tp", "fp", "tn", "fn", "wins", "pairs", "known_benign_rejected"):
            assert one[name] == two[name]
        for name in ("harm_distance", "harm_angle"):
            assert (one[name] is None) == (two[name] is None)
            assert one[name] is None or one[name] == pytest.approx(two[name], rel=1e-3, abs=2e-3)


def stored(folder: Path, updates: np.ndarray) -> Path:
    with RoundWriter(folder, 0, session="s", parameters=[Parameter("update", (updates.shape[1],), 0)]) as writer:
        for row, update in enumerate(updates):
            writer.add(f"client-{row:02d}", update)
    return folder


def test_an_upload_made_of_a_non_finite_update_is_crafted(tmp_path: Path) -> None:
    updates = np.random.default_rng(0).standard_normal((12, 50)).astype(np.float32)
    updates[[1, 2, 4, 6, 7, 8, 9, 10, 11], 3] = np.inf  # all that may attack
    path = stored(tmp_path / "run", updates)
    with Run.open(path) as run:
        campaign = campaign_of("sign-flip", run)
        source = open_source(run, 0)
        plan = campaign.plan(0, source.client_ids)
        assert mix_round(sketch_round(source, [GramNeed()]), source, campaign, plan, TRUSTED) is None
    rows = run_cell.run_cell(Cell("r", "sign-flip", 0.4, 1, 3), path, ["norm-bound"], None)
    (judged,) = [row for row in rows if row["method"] == "norm-bound"]
    assert judged["tp"] + judged["fp"] + judged["known_benign_rejected"] >= 9


@pytest.mark.parametrize("factor", ["1e+37", "1e-37"])
def test_what_float32_may_not_hold_is_crafted(tmp_path: Path, factor: str) -> None:
    path = stored(tmp_path / "run", np.random.default_rng(0).standard_normal((12, 50)).astype(np.float32))
    with Run.open(path) as run:
        campaign = campaign_of(f"scaling(factor={float(factor)})", run)
        source = open_source(run, 0)
        sketch = sketch_round(source, [GramNeed()])
        assert mix_round(sketch, source, campaign, campaign.plan(0, source.client_ids), TRUSTED) is None


def test_a_round_with_an_upload_that_dwarfs_the_others_is_crafted(tmp_path: Path) -> None:
    updates = np.random.default_rng(0).standard_normal((12, 50)).astype(np.float32)
    updates[11] *= 1e5
    with Run.open(stored(tmp_path / "run", updates)) as run:
        campaign = campaign_of("sign-flip", run)
        source = open_source(run, 0)
        sketch = sketch_round(source, [GramNeed()])
        assert mix_round(sketch, source, campaign, campaign.plan(0, source.client_ids), TRUSTED) is None
