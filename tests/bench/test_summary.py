"""A bench in figures, against figures by hand."""

import numpy as np
import pyarrow as pa
import pytest

from encagg_cli.bench.summary import summarise
from encagg_cli.bench.table import SCHEMA
from encagg_cli.bench.text import as_markdown, cells


def row(**facts: object) -> dict[str, object]:
    blank = {
        "run": "r",
        "attack": "lie",
        "ratio": 0.2,
        "seed": 0,
        "round": 0,
        "method": "m",
        "told_f": False,
        "tp": 0,
        "fp": 0,
        "tn": 0,
        "fn": 0,
        "wins": 0.0,
        "pairs": 0,
        "known_benign_rejected": 0,
        "harm_distance": None,
        "harm_angle": None,
        "milliseconds": 1.0,
    }
    return {**blank, **facts}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def test_f1_is_micro_within_a_cell_and_the_mean_over_cells() -> None:
    (summary,) = summarise(
        table(
            row(round=0, tp=2, fn=0, tn=8, wins=16.0, pairs=16),
            row(round=1, tp=0, fn=2, tn=6, fp=2, wins=4.0, pairs=16),  # the cell: 2 caught, 2 missed, 2 lost
            row(attack="ipm", tp=4, tn=8, wins=32.0, pairs=32),
            row(attack="", ratio=0.0, fp=1, tn=9),
        )
    )
    assert summary.by_attack == {"lie": pytest.approx(0.5), "ipm": 1.0}
    assert summary.f1 == pytest.approx(0.75)
    assert summary.worst == ("lie", pytest.approx(0.5))
    assert summary.fpr == pytest.approx(2 / 24)
    assert summary.clean_fpr == pytest.approx(0.1)
    assert summary.auroc == pytest.approx(52 / 64)


def test_the_interval_spans_what_rounds_can_give() -> None:
    rounds = [row(round=number, tp=number % 2, fn=1 - number % 2, tn=5) for number in range(40)]
    (summary,) = summarise(table(*rounds))
    assert summary.interval is not None
    low, high = summary.interval
    assert summary.f1 == pytest.approx(2 / 3)
    assert 0.4 < low < summary.f1 < high < 0.85


def test_what_is_undefined_stays_undefined() -> None:
    (summary,) = summarise(table(row(attack="", ratio=0.0, tn=5)))
    assert (summary.f1, summary.worst, summary.fpr, summary.auroc, summary.interval) == (None, None, None, None, None)
    assert summary.clean_fpr == 0.0
    assert cells(summary)[1] == "-"


def test_methods_are_ranked_within_their_run_and_told_ones_are_marked() -> None:
    summaries = summarise(
        table(
            row(method="weak", fn=1, tn=3),
            row(method="multi-krum(f=oracle,relaxed=true)", told_f=True, tp=1, tn=3),
            row(run="other", method="weak", tp=1, tn=3),
        )
    )
    assert [(s.run, s.method.partition("(")[0]) for s in summaries] == [
        ("r", "multi-krum"),
        ("r", "weak"),
        ("other", "weak"),
    ]
    assert cells(summaries[0])[0] == "multi-krum*"


def test_markdown_survives_what_names_may_hold() -> None:
    text = as_markdown(summarise(table(row(run="a|b<script>", tp=1))))
    assert "a\\|b&lt;script>" in text
    assert np.all([line.count("|") >= 2 for line in text.splitlines() if line.startswith("|")])
