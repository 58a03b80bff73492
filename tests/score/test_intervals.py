"""The bootstrap intervals: of rounds, seeded, and absent where there is nothing to say."""

import numpy as np
from numpy.typing import NDArray

from encagg_cli.score.intervals import intervals
from encagg_cli.score.metrics import COLUMN, COLUMNS, figures


def counts_by_round(*, tp: NDArray[np.float64], fn: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.zeros((len(tp), len(COLUMNS)))
    counts[:, COLUMN["tp"]], counts[:, COLUMN["fn"]] = tp, fn
    return counts


def draw_rounds(seed: int, rounds: int = 200) -> NDArray[np.float64]:
    tp = np.random.default_rng(seed).binomial(10, 0.8, rounds).astype(float)
    return counts_by_round(tp=tp, fn=10 - tp)


def test_an_interval_has_the_width_that_theory_gives() -> None:
    counts = draw_rounds(0)
    low, high = intervals(counts, figures(counts.sum(axis=0)), 2000, 0)["recall"] or (0, 1)
    expected = 2 * 1.96 * np.std(counts[:, COLUMN["tp"]] / 10) / np.sqrt(len(counts))
    assert abs((high - low) / expected - 1) < 0.1


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        counts = draw_rounds(seed, rounds=60)
        low, high = intervals(counts, figures(counts.sum(axis=0)), 300, seed)["recall"] or (1, 0)
        held += low <= 0.8 <= high
    assert 178 <= held <= 199


def test_the_seed_decides_the_draw() -> None:
    counts = draw_rounds(0)
    total = figures(counts.sum(axis=0))
    assert intervals(counts, total, 50, 1) == intervals(counts, total, 50, 1)
    assert intervals(counts, total, 50, 1) != intervals(counts, total, 50, 2)


def test_very_many_rounds_are_drawn_in_runs_and_say_the_same() -> None:
    counts = draw_rounds(0, rounds=30_000)
    low, high = intervals(counts, figures(counts.sum(axis=0)), 400, 0)["recall"] or (0, 1)
    expected = 2 * 1.96 * np.std(counts[:, COLUMN["tp"]] / 10) / np.sqrt(len(counts))
    assert abs((high - low) / expected - 1) < 0.25


def test_there_is_none_for_one_round_no_resamples_or_no_figure() -> None:
    counts = draw_rounds(0)
    total = figures(counts.sum(axis=0))
    assert intervals(counts[:1], total, 100, 0)["recall"] is None
    assert intervals(counts, total, 0, 0)["recall"] is None
    assert intervals(counts, total, 100, 0)["fpr"] is None


def test_there_is_none_where_most_resamples_have_no_figure() -> None:
    counts = counts_by_round(tp=np.array([1.0, 0.0]), fn=np.zeros(2))  # a quarter of the draws have no poisoned upload
    assert intervals(counts, figures(counts.sum(axis=0)), 400, 0)["recall"] is None
