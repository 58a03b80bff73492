"""Who is far off for its kind, in this round and lately."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from encagg_cli import filters
from encagg_cli.errors import UnusableInput
from encagg_cli.filters.anchored_views import detector
from encagg_cli.filters.anchored_views.distance import PastExcess, distance_for_its_kind, excess_distances
from encagg_cli.filters.anchored_views.evidence import Evidence
from encagg_cli.filters.anchored_views.history import DistanceHistory
from encagg_cli.filters.anchored_views.reversal import Reversal
from encagg_cli.filters.anchored_views.ridge import unexplained_shares
from encagg_cli.filters.anchored_views.standing import Outlook

N, K, D = 40, 5, 400
NEAR = np.arange(N) < 2
WITH_PAST, WITHOUT = "anchored-views", "anchored-views(history=0)"
AMPLIFIED = np.arange(N) >= 28


def federation(seed: int, factor: float = 1.0, who: np.ndarray = AMPLIFIED) -> np.ndarray:
    """Honest uploads whose lengths differ by 20 %, and from round to round by 15 %; some are longer by a `factor`."""
    random = np.random.default_rng(seed + 10)
    common, classes = np.random.default_rng(0).standard_normal((2, 10, D))
    mixture = np.random.default_rng(1).dirichlet(np.ones(10), size=N)
    updates = common[0] + 2.0 * mixture @ classes + 0.5 * random.standard_normal((N, D))
    differ = 0.2 * np.random.default_rng(2).standard_normal(N) + 0.15 * random.standard_normal(N)
    length = np.exp(differ) * np.where(who, factor, 1.0)
    return updates * length[:, None]


def of(updates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Their distances and cosines."""
    gram, length = updates @ updates.T, np.linalg.norm(updates, axis=1)
    return np.linalg.norm(updates[:, None] - updates[None], axis=2), gram / np.outer(length, length)


def test_it_is_what_a_regression_of_the_distances_on_the_unexplained_shares_leaves():
    distances, cosines = of(federation(0))
    share = 0.5 * np.log(unexplained_shares(cosines))[:, None]
    third = np.log(np.sort(distances, axis=1)[:, 13])  # of 39 others, with itself at 0
    expected = third - LinearRegression().fit(share, third).coef_[0] * (share - share.mean())[:, 0] * N / (N + 3)
    assert excess_distances(distances, cosines) == pytest.approx(expected, abs=1e-9)
    assert expected.std() < third.std()


def test_neither_scale_nor_order_matters():
    updates = federation(0)
    order = np.random.default_rng(5).permutation(N)
    excess = excess_distances(*of(updates))
    assert excess_distances(*of(7.0 * updates)) - np.log(7.0) == pytest.approx(excess, abs=1e-9)
    assert excess_distances(*of(updates[order])) == pytest.approx(excess[order], abs=1e-9)


def test_identical_uploads_and_few_of_them_have_none():
    assert np.isfinite(excess_distances(*of(np.ones((6, D))))).all()
    assert excess_distances(*of(federation(0)[:2])) == pytest.approx(np.full(2, np.log(of(federation(0))[0][0, 1])))


def test_amplified_uploads_are_far_for_their_kind_and_the_more_so_by_several_rounds():
    rounds = [excess_distances(*of(federation(seed, 2.0))) for seed in range(6)]
    together = np.mean([each - np.median(each) for each in rounds], axis=0)
    apart = [
        (excess[AMPLIFIED].mean() - excess[~AMPLIFIED].mean()) / excess[~AMPLIFIED].std()
        for excess in (*rounds, together)
    ]
    assert 1.5 < np.mean(apart[:-1]) < apart[-1]


def test_today_and_the_past_count_by_their_weight():
    excess = np.array([5.0, 6.0, 7.0, 7.5, 8.0])
    weight = np.array([0.0, 1.0, 3.0, 0.5, 2.0])
    past = PastExcess(total=np.array([0.0, -3.1, -0.3, 0.2, 0.6]), weight=weight)
    view = distance_for_its_kind(excess, past, NEAR[: len(excess)])
    today = excess - 7.0
    assert view.values == pytest.approx((today + past.total) / (1.0 + weight))
    assert (view.low, view.high, view.weighed) == ("", "distant", False)
    assert view.bar < 1.0


@pytest.mark.parametrize("past", [None, PastExcess(np.zeros(4), np.zeros(4))])
def test_where_nothing_is_past_this_round_counts_alone_and_must_be_as_clear_as_any(past: PastExcess | None):
    excess = np.array([1.0, 2.0, 5.0, 3.0])
    view = distance_for_its_kind(excess, past, NEAR[: len(excess)])
    assert view.values.tolist() == excess.tolist()
    assert (view.bar, view.weighed) == (1.0, False)


def test_whoever_is_not_half_as_far_as_on_average_is_judged_by_this_round_alone():
    """The others are as far, far only today, and as near as ever, and a little nearer than that."""
    today = np.array([0.0, 0.3, 0.6, 1.0, -1.0, -1.2])
    lately = np.array([0.0, 0.8, 0.8, 0.3, -1.1, -1.0])
    past = PastExcess(4.0 * lately - today, np.full(6, 3.0))
    excess = np.append(today, [0.0, 0.0, 0.0]) + 4.0
    past = PastExcess(*(np.append(each, [0.0, 0.0, 0.0]) for each in (past.total, past.weight)))
    values = distance_for_its_kind(excess, past, NEAR[: len(excess)]).values
    assert values[:6] == pytest.approx([0.0, 0.3, 0.8, 0.3, -1.1, -1.2])


def test_nobody_is_rejected_who_is_hardly_farther_than_the_known_benign():
    excess = np.array([1.0, 1.2, 1.25, 1.35, 2.0])
    for past in (None, PastExcess(3.0 * (excess - 1.25), np.full(5, 3.0))):
        eligible = distance_for_its_kind(excess, past, NEAR[:5]).eligible
        assert eligible is not None
        assert eligible.tolist() == [False, False, False, True, True]


def test_older_rounds_count_for_less():
    history = DistanceHistory(7)
    assert history.recall(["a"]).weight.tolist() == [0.0]
    history.remember(["a", "b"], np.array([1.0, -1.0]))
    history.remember(["b"], np.array([0.5]))
    history.remember(["a"], np.array([2.0]))
    past = history.recall(["b", "a", "c"])
    older, old = (7 / 8) ** 2, 7 / 8
    assert past.total == pytest.approx([-older + 0.5 * old, older + 2.0 * old, 0.0])
    assert past.weight == pytest.approx([older + old, older + old, 0.0])
    for _ in range(200):
        history.remember(["a"], np.array([3.0]))
    forever = history.recall(["a"])
    assert forever.weight[0] == pytest.approx(7.0)
    assert forever.total[0] == pytest.approx(21.0)


@pytest.mark.parametrize(
    ("cut", "group", "wider"),
    [
        (None, [0, 1], False),
        (range(8), [0, 1], True),
        (range(7), [0, 1], False),  # less than four times as many
        (range(8), [], False),
        (range(1, 12), [0, 1], False),  # one whom the view does not tell
    ],
)
def test_a_view_tells_four_times_as_many(cut: range | None, group: list[int], wider: bool):
    outlook = Outlook(cut=None if cut is None else np.isin(np.arange(N), cut))
    assert outlook.widens(np.isin(np.arange(N), group)) == wider


def verdicts(rounds: list[np.ndarray], text: str = WITH_PAST) -> list[np.ndarray]:
    method, names = filters.get(text), [f"{index:02d}" for index in range(N)]
    return [~method.decide(updates, clients=names, trusted=names[:K]).accepted for updates in rounds]


def test_whoever_amplifies_is_found_by_its_rounds_together_and_let_go_when_it_stops():
    rounds = [federation(seed, 2.0) for seed in range(6)]
    wrong = [[(each != AMPLIFIED).sum() for each in verdicts(rounds, text)] for text in (WITH_PAST, WITHOUT)]
    assert wrong[0][0] == wrong[1][0]
    assert max(wrong[0]) <= 5
    assert sum(wrong[0]) < 0.5 * sum(wrong[1])
    stopped = verdicts([*(federation(seed, 2.5) for seed in range(6)), federation(6), federation(7)])
    assert [int(each.sum()) for each in stopped[6:]] == [0, 0]


def test_the_past_is_taken_up_from_a_state():
    rounds, names = [federation(seed, 2.0) for seed in range(6)], [f"{index:02d}" for index in range(N)]
    whole = verdicts(rounds)[5]
    first, second = filters.get(WITH_PAST), filters.get(WITH_PAST)
    for updates in rounds[:5]:
        first.decide(updates, clients=names, trusted=names[:K])
    second.load_state_dict(first.state_dict())
    assert (~second.decide(rounds[5], clients=names, trusted=names[:K]).accepted).tolist() == whole.tolist()


def test_it_is_remembered_beside_that_of_whom_was_accepted():
    """Though most are far off."""
    most, names = np.arange(N) >= 14, [f"{index:02d}" for index in range(N)]
    method = filters.get(WITH_PAST)
    decision = method.decide(federation(0, 10.0, most), clients=names, trusted=names[:K])
    assert (~decision.accepted).tolist() == most.tolist()
    history = DistanceHistory(7)
    history.restore(method.state_dict(), "it")
    total = history.recall(names).total
    assert np.median(total[~most]) == pytest.approx(0.0, abs=1e-9)
    assert np.median(total[most]) > 0.5


def test_a_damaged_state_is_refused():
    history = DistanceHistory(7)
    history.remember(["a", "b"], np.array([1.0, -1.0]))
    state = history.state()
    for name in state:
        with pytest.raises(UnusableInput, match="how far"):
            history.restore({key: value for key, value in state.items() if key != name}, "it")
    for row in ([np.nan, 1.0], [1e200, 1.0], [0.0, -1.0]):
        with pytest.raises(UnusableInput, match="damaged"):
            history.restore(state | {"distance_client_rows": np.array([row, row])}, "it")
    history.restore(state, "it")
    assert history.recall(["b"]).total.tolist() == [-7 / 8]


def test_copies_are_not_remembered_nor_rounds_of_few():
    method, names = filters.get(WITH_PAST), [f"{index:02d}" for index in range(N)]
    updates = federation(0)
    updates[-3:] = updates[-1]
    method.decide(updates, clients=names, trusted=names[:K])
    assert json.loads(method.state_dict()["distance_clients"]) == names[:-3]
    method = filters.get(WITH_PAST)
    method.decide(updates[:5], clients=names[:5], trusted=names[:2])
    assert json.loads(method.state_dict()["distance_clients"]) == []


def test_a_search_that_finds_a_few_of_whom_a_view_tells_leaves_them_to_the_view(monkeypatch: pytest.MonkeyPatch):
    few = np.flatnonzero(AMPLIFIED)[:3]

    def reversed_group(evidence: Evidence, *_: object, **__: object) -> Reversal:
        n = len(evidence.cosines[0])
        found = np.isin(np.arange(n), few) if n == N else np.zeros(n, dtype=bool)
        return Reversal(found, np.zeros(n), found, True)

    monkeypatch.setattr(detector, "reversed_group", reversed_group)
    names = [f"{index:02d}" for index in range(N)]
    for factor, expected in ((10.0, AMPLIFIED), (1.0, np.isin(np.arange(N), few))):
        decision = filters.get(WITH_PAST).decide(federation(3, factor), clients=names, trusted=names[:K])
        assert (~decision.accepted).tolist() == expected.tolist()
        assert set(np.array(decision.reason)[expected]) == {"distant" if factor > 1 else "reversed"}
