"""Filters that are told f, against dense references written from the formulas, and by hand on small cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters import get
from encagg_cli.filters.bulyan import bulyan_selection
from encagg_cli.filters.krum import krum_scores
from encagg_cli.filters.passes import aggregate_pieces
from encagg_cli.sketch import ArraySource

Matrix = NDArray[np.float64]


def updates_of(seed: int, n: int = 15, d: int = 40, bad: int = 3) -> Matrix:
    generator = np.random.default_rng(seed)
    updates = generator.standard_normal(d) + 0.3 * generator.standard_normal((n, d))
    updates[:bad] += generator.standard_normal(d)
    return updates.astype(np.float32).astype(np.float64)


def ids(updates: Matrix) -> tuple[str, ...]:
    return tuple(f"{row:03d}" for row in range(len(updates)))


def aggregate(text: str, updates: Matrix) -> Matrix:
    chosen = get(text)
    source = ArraySource(updates, ids(updates), np.zeros(len(updates), dtype=bool))
    decision = chosen.decide(updates, clients=ids(updates))
    return np.concatenate(list(aggregate_pieces(chosen, decision, source)))


def dense_krum(updates: Matrix, f: int) -> Matrix:
    n = len(updates)
    scores = np.empty(n)
    for i in range(n):
        squares = sorted(float(((updates[i] - updates[j]) ** 2).sum()) for j in range(n) if j != i)
        scores[i] = sum(squares[: max(1, n - f - 2)])
    return scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("f", [0, 1, 3, 6])
def test_krum_scores_are_sums_of_the_nearest_squared_distances(seed: int, f: int) -> None:
    updates = updates_of(seed)
    decision = get("multi-krum", f=f).decide(updates)
    np.testing.assert_allclose(decision.score, dense_krum(updates, f), rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_krum_takes_the_lowest_and_multi_krum_averages_the_n_minus_f_lowest(seed: int) -> None:
    updates = updates_of(seed)
    order = np.argsort(dense_krum(updates, 3))
    np.testing.assert_allclose(aggregate("krum(f=3)", updates), updates[order[0]], rtol=1e-6)
    np.testing.assert_allclose(aggregate("multi-krum(f=3)", updates), updates[order[:12]].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(aggregate("multi-krum(f=3,m=5)", updates), updates[order[:5]].mean(axis=0), rtol=1e-6)
    for text in ("krum(f=3)", "multi-krum(f=3)", "multi-krum(f=3,m=5)"):
        assert set(np.flatnonzero(get(text).decide(updates).accepted)) == set(order[:12])


def test_krum_by_hand() -> None:
    """On a line at 0, 1, 2, 10, 11 with f = 1, each sums its two nearest squares."""
    line = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
    squares = (line - line.T) ** 2
    np.testing.assert_allclose(krum_scores(squares, 1), [1 + 4, 1 + 1, 1 + 4, 1 + 64, 1 + 81])


def test_more_uploads_cannot_be_averaged_than_are_accepted() -> None:
    with pytest.raises(UsageError, match="m=14 is more than the 12"):
        get("multi-krum(f=3,m=14)").decide(updates_of(0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("f", [1, 2, 3])
def test_bulyan_selects_krum_winners_and_averages_what_is_nearest_to_their_median(seed: int, f: int) -> None:
    updates = updates_of(seed)
    left, chosen = list(range(len(updates))), []
    for _ in range(len(updates) - 2 * f):
        scores = dense_krum(updates[left], f)
        chosen.append(left.pop(int(scores.argmin())))
    decision = get("bulyan", f=f).decide(updates, clients=ids(updates))
    assert set(np.flatnonzero(decision.accepted)) == set(chosen)
    assert decision.statistic is not None
    np.testing.assert_array_equal(decision.statistic[chosen], np.arange(1, len(chosen) + 1))
    beta = len(chosen) - 2 * f
    expected = np.empty(updates.shape[1])
    for column in range(updates.shape[1]):
        values = updates[sorted(chosen), column]
        nearest = sorted(values, key=lambda value: abs(value - np.median(values)))[:beta]
        expected[column] = np.mean(nearest)
    np.testing.assert_allclose(aggregate(f"bulyan(f={f})", updates), expected, rtol=1e-6, atol=1e-9)


def test_bulyan_by_hand() -> None:
    """Five of 0, 1, 2, 3, 4.5, 6, 50 with f = 1."""
    line = np.array([0.0, 1.0, 2.0, 3.0, 4.5, 6.0, 50.0])[:, None]
    order, _ = bulyan_selection((line - line.T) ** 2, 1)
    # Krum by four neighbours picks 2, by three 3, by two 1, by one 4.5; then 0 and 6 are each other's nearest.
    assert order.tolist() == [2, 3, 1, 4, 0]
    decision = get("bulyan(f=1)").decide(line)
    assert list(decision.reason) == [*["selected"] * 5, "not-selected", "not-selected"]
    assert aggregate("bulyan(f=1)", line)[0] == pytest.approx((1 + 2 + 3) / 3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("f", [0, 1, 4])
def test_faba_deletes_the_farthest_from_the_remaining_mean(seed: int, f: int) -> None:
    updates = updates_of(seed)
    left, deleted = list(range(len(updates))), []
    for _ in range(f):
        mean = updates[left].mean(axis=0)
        deleted.append(max(left, key=lambda row: float(((updates[row] - mean) ** 2).sum())))
        left.remove(deleted[-1])
    decision = get("faba", f=f).decide(updates)
    assert set(np.flatnonzero(~decision.accepted)) == set(deleted)
    assert decision.statistic is not None
    np.testing.assert_array_equal(decision.statistic[deleted], np.arange(f, 0, -1))
    np.testing.assert_allclose(aggregate(f"faba(f={f})", updates), updates[left].mean(axis=0), rtol=1e-6)


def test_faba_deletes_all_f() -> None:
    line = np.array([0.0, 0.1, 0.2, 5.0, -9.0])[:, None]
    np.testing.assert_array_equal(get("faba(f=2)").decide(line).accepted, [True, True, True, False, False])


@pytest.mark.parametrize("seed", range(5))
def test_dnc_drops_the_largest_projections_on_the_top_singular_vector(seed: int) -> None:
    """With samples of all the columns, every iteration is one dense SVD."""
    updates = updates_of(seed)
    centred = updates - updates.mean(axis=0)
    top = np.linalg.svd(centred, full_matrices=False)[2][0]
    squares = (centred @ top) ** 2
    decision = get("dnc(f=3,iterations=2)").decide(updates)
    assert decision.statistic is not None
    np.testing.assert_allclose(decision.statistic, squares, rtol=1e-3, atol=1e-5)
    assert set(np.flatnonzero(~decision.accepted)) == set(np.argsort(squares)[-3:])


def test_dnc_keeps_who_stays_in_all_samples() -> None:
    updates = updates_of(7, n=20, d=3000)
    many = get("dnc(f=4,iterations=8,columns=50)").decide(updates)
    assert (~many.accepted).sum() > 4
    assert many.weight is not None
    np.testing.assert_allclose(many.weight, many.accepted / many.accepted.sum())


def test_dnc_falls_back_where_no_upload_stays_in_all_samples() -> None:
    honest = np.random.default_rng(0).standard_normal((9, 600))
    decision = get("dnc(f=4,iterations=40,columns=20)").decide(honest)
    assert decision.accepted.sum() == 5
    assert all(word.endswith("-fallback") for word in decision.reason)
    assert decision.statistic is not None
    assert decision.statistic[decision.accepted].max() <= decision.statistic[~decision.accepted].min()


@pytest.mark.parametrize(
    ("name", "n", "f"),
    [("krum", 20, 9), ("multi-krum", 20, 9), ("bulyan", 20, 5), ("faba", 20, 10), ("dnc", 20, 10), ("flair", 20, 10)],
)
def test_one_attacker_more_than_the_theory_admits_is_refused_or_labelled(name: str, n: int, f: int) -> None:
    updates = updates_of(0, n=n)
    get(name, f=f - 1).decide(updates)
    with pytest.raises(UsageError, match=f"{name} with f={f} needs .*, and there are {n} uploads"):
        get(name, f=f).decide(updates)
    assert all(word.endswith("-relaxed") for word in get(name, f=f, relaxed=True).decide(updates).reason)
    assert not any(word.endswith("-relaxed") for word in get(name, f=f - 1, relaxed=True).decide(updates).reason)


def test_feasible_combinations_are_those_of_the_literature() -> None:
    """Krum 2f + 2 < n, Bulyan 4f + 3 ≤ n, trimming 2f < n."""
    table = [
        (20, 2, True, True, True),
        (20, 4, True, True, True),
        (20, 6, True, False, True),
        (20, 8, True, False, True),
        (20, 12, False, False, False),
        (50, 10, True, True, True),
        (50, 24, False, False, True),
        (50, 30, False, False, False),
        (100, 20, True, True, True),
    ]
    for n, f, krum, bulyan, trim in table:
        updates = np.random.default_rng(n).standard_normal((n, 3))
        for name, feasible in (("multi-krum", krum), ("bulyan", bulyan), ("trimmed-mean", trim)):
            if feasible:
                get(name, f=f).decide(updates)
            else:
                with pytest.raises(UsageError):
                    get(name, f=f).decide(updates)


def test_what_the_theory_refuses_is_known_before_a_round_is_read() -> None:
    for text in ("multi-krum(f=3)", "bulyan(f=1)", "trimmed-mean(f=4)", "faba(f=3)"):
        get(text).check_round(5, 9)
        with pytest.raises(UsageError, match="round 5"):
            get(text).check_round(5, 6)
    get("multi-krum(f=3,relaxed=true)").check_round(5, 6)
    get("multi-krum(f=oracle)").check_round(5, 2)
    get("median").check_round(5, 1)


def test_a_share_is_rounded_up_and_the_truth_is_marked() -> None:
    updates = updates_of(0, n=10)
    assert (~get("faba(f=0.21)").decide(updates).accepted).sum() == 3
    truth = {str(row): row < 2 for row in range(10)}
    decision = get("faba(f=oracle)").decide(updates, poisoned=truth)
    assert (~decision.accepted).sum() == 2
    assert all(word.endswith("-oracle") for word in decision.reason)
    with pytest.raises(UsageError, match="needs ground truth"):
        get("faba(f=oracle)").decide(updates)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.integers(0, 10_000), st.integers(4, 12), st.data())
def test_bulyan_and_krum_do_not_depend_on_where_the_updates_lie(seed: int, n: int, data: st.DataObject) -> None:
    f = data.draw(st.integers(0, (n - 3) // 4))
    updates = np.random.default_rng(seed).standard_normal((n, 6))
    moved = updates + 2.0
    squares = ((updates[:, None] - updates[None]) ** 2).sum(axis=2)
    if np.diff(np.sort(krum_scores(squares, f))).min() < 1e-3:
        return
    for name in ("multi-krum", "bulyan"):
        np.testing.assert_array_equal(get(name, f=f).decide(updates).accepted, get(name, f=f).decide(moved).accepted)
