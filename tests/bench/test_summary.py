"""A bench in figures, against figures by hand."""

import numpy as np
import pyarrow as pa
import pytest

from encagg_cli.bench.against_oracle import gaps
from encagg_cli.bench.summary import summarise
from encagg_cli.bench.table import SCHEMA
from encagg_cli.bench.text import as_markdown, cells, sections


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


def harmed(method: str, attack: str, harm: float | None, number: int = 0, ratio: float = 0.2) -> dict[str, object]:
    return row(method=method, attack=attack, ratio=ratio, round=number, tn=3, fn=1, harm_distance=harm, harm_angle=harm)


def test_harm_is_the_mean_over_cells_and_compared_with_no_filter_cell_by_cell() -> None:
    results = table(
        harmed("m", "lie", 0.1, 0),
        harmed("m", "lie", 0.3, 1),
        harmed("m", "ipm", 1.0),
        harmed("no-filter", "lie", 0.4, 0),
        harmed("no-filter", "lie", 0.4, 1),
        harmed("no-filter", "ipm", 10.0),
        harmed("no-filter", "", 0.0, ratio=0.0),
        harmed("bulyan", "lie", None),
    )
    by_method = {summary.method: summary for summary in summarise(results)}
    assert by_method["m"].harm == pytest.approx((0.2 + 1.0) / 2)
    assert by_method["m"].harm_share == pytest.approx((0.2 / 0.4 + 1.0 / 10.0) / 2)
    assert by_method["no-filter"].harm == pytest.approx(5.2)
    assert by_method["no-filter"].harm_share == pytest.approx(1.0)
    assert by_method["bulyan"].harm is None
    detection, harm = sections(list(by_method.values()), [])
    assert [cells[0] for cells in detection.rows] == ["m", "bulyan"]
    assert harm.rows == [("no-filter", "5.200", "1.00", "0.4°"), ("m", "0.600", "0.30", "0.3°")]


def test_results_without_the_plain_mean_have_no_ratio_to_it() -> None:
    (summary,) = summarise(table(harmed("m", "lie", 0.1)))
    assert (summary.harm, summary.harm_share) == (pytest.approx(0.1), None)


def judged(method: str, attack: str, tp: int, fp: int, ratio: float = 0.2) -> dict[str, object]:
    return row(method=method, attack=attack, ratio=ratio, tp=tp, fn=4 - tp, fp=fp, tn=8 - fp)


def test_the_gap_is_to_the_best_oracle_of_each_cell_worst_first() -> None:
    results = table(
        judged("m", "lie", 4, 0),
        judged("m", "ipm", 2, 0, 0.2),
        judged("m", "ipm", 4, 4, 0.4),
        judged("oracle:cosine", "lie", 4, 0),
        judged("oracle:norm", "lie", 0, 0),
        judged("oracle:cosine", "ipm", 4, 0, 0.2),
        judged("oracle:norm", "ipm", 2, 0, 0.2),
        judged("oracle:cosine", "ipm", 0, 0, 0.4),
        judged("oracle:norm", "ipm", 4, 2, 0.4),
        judged("no-filter", "lie", 0, 0),
    )
    worst, best = gaps(results)
    assert (worst.method, worst.attack) == ("m", "ipm")
    assert worst.f1 == pytest.approx((4 / 6 + 8 / 12) / 2)
    assert worst.oracle == pytest.approx((1.0 + 8 / 10) / 2)
    assert worst.gap == pytest.approx(worst.oracle - worst.f1)
    assert (best.attack, best.f1, best.oracle) == ("lie", 1.0, 1.0)
    shown = list(sections(summarise(results), gaps(results)))[-1]
    assert shown.rows == [("ipm", "0.67", "0.90", "0.23"), ("lie", "1.00", "1.00", "0.00")]
    assert "| ipm | 0.67 | 0.90 | 0.23 |" in as_markdown(summarise(results), gaps(results))


def test_of_many_methods_the_default_one_is_compared() -> None:
    methods = ["a", "b", "c", "anchored-views(alpha=0.1)"]
    results = table(*(judged(method, "lie", 2, 0) for method in (*methods, "oracle:cosine")))
    assert {gap.method for gap in gaps(results)} == {"anchored-views(alpha=0.1)"}
    few = table(*(judged(method, "lie", 2, 0) for method in (*methods[:3], "oracle:cosine")))
    assert {gap.method for gap in gaps(few)} == set(methods[:3])


def test_markdown_survives_what_names_may_hold() -> None:
    text = as_markdown(summarise(table(row(run="a|b<script>", tp=1))))
    assert "a\\|b&lt;script>" in text
    assert np.all([line.count("|") >= 2 for line in text.splitlines() if line.startswith("|")])
