"""What every filter in the registry keeps to, whatever its rule."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters import Decision, Filter, Requirement, available, canonical, get, kind_of
from encagg_cli.filters.passes import sketch_for
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch import ArraySource

Matrix = NDArray[np.float64]

LAYOUT = (
    Parameter("hidden.weight", (8, 5), 0),
    Parameter("hidden.bias", (8,), 40),
    Parameter("out.weight", (4, 8), 48, role="output"),
    Parameter("out.bias", (4,), 80, role="output"),
)
D = 84
N = 20
COMMON = np.random.default_rng(1).standard_normal(D)
TRUSTED = ["c05", "c08", "c11", "c15"]
SHARE = 0.2  # what filters that want f are told: 4 of 20

# Rules that have no verdict of their own and reject nobody unless a limit is set; their score must still tell.
NO_VERDICT = {"median", "trimmed-mean", "norm-bound", "lasa", "mean"}
# Rules that do not claim to reject far-off, reversed uploads from one round alone, and why.
DO_NOT_CLAIM_OUTLIERS = {
    "foolsgold": "rejects clients that are alike, not clients that are far off",
    "shieldfl": "has no last step in its first round",
    "flair": "has no last step in its first round",
    "fldetector": "has no history in its first round",
    "rflbat": "keeps the cluster whose members are least alike, which reversed uploads may be",
    "lasa": "shortens them first, and then looks at the balance of signs",
}
# The largest share of an attack-free IID round that a rule's own definition lets it reject; 0.1 for all others.
REJECTED_WITHOUT_ATTACK = {
    "krum": (SHARE, "rejects f whatever they are"),
    "multi-krum": (SHARE, "rejects f whatever they are"),
    "faba": (SHARE, "deletes f whatever they are"),
    "dnc": (1.0, "drops f in every sample of the columns, and keeps who stays in all of them"),
    "bulyan": (2 * SHARE, "leaves out 2f whatever they are"),
    "flair": (2 * SHARE, "punishes the f highest and the f lowest"),
    "k-means": (0.7, "always makes two clusters"),
    "signguard": (0.6, "keeps the largest MeanShift cluster at half the median distance"),
    "rflbat": (0.8, "keeps one of the clusters that the gap statistic finds"),
    "flame": (0.5, "keeps a majority cluster"),
    "freqfed": (0.5, "keeps a majority cluster"),
    "auror": (0.5, "keeps the majority of two clusters where a coordinate splits"),
    "flguardian": (0.5, "accepts the half of highest trust"),
    "fldetector": (0.5, "splits the scores where the gap statistic sees two clusters"),
    "fedra": (0.5, "estimates how many to drop from the scores' spread"),
    "encagg": (0.6, "rejects what is noise in the second clustering"),
}

# Rules that may reject all when all upload the same, or nothing at all.
TELL_NOTHING_OF_IDENTICAL_UPDATES = {
    "foolsgold": "likeness is what it rejects",
    "anchored-views": "likeness is what it rejects",
    "fltrust": "an all-zero update has no direction",
    "cosine-to-known-benign": "an all-zero update has no direction",
}

EVERY_FILTER = available()


def make(name: str, **more: Any) -> Filter:
    """The filter, told 20 % attackers where it wants to know."""
    kind = kind_of(name)
    told = {"f": SHARE, "relaxed": True} if Requirement.ATTACKER_COUNT in kind.requires else {}
    small = {"buckets": 128} if "buckets" in {spec.name for spec in fields(kind)} else {}  # type: ignore[arg-type]
    return get(name, **told, **small, **more)


def has_memory(name: str) -> bool:
    return kind_of(name).state_dict is not Filter.state_dict


def rounds_for(name: str) -> int:
    """Enough rounds for a filter with a memory to have one; the others see no difference."""
    return 12 if has_memory(name) else 1


def ids(n: int) -> list[str]:
    return [f"c{row:02d}" for row in range(n)]


def iid_round(seed: int = 0, n: int = N) -> Matrix:
    """All upload one common direction, the same in every round, and noise of half its size."""
    return COMMON + 0.5 * np.random.default_rng((seed, 1)).standard_normal((n, D))


def outlier_round(seed: int = 0, n: int = N) -> tuple[Matrix, NDArray[np.bool_]]:
    """A fifth of the clients, the first ones, upload the reverse, 50 times as long, each with noise of its own."""
    updates = iid_round(seed, n)
    poisoned = np.arange(n) < int(SHARE * n)
    updates[poisoned] *= -50.0
    return updates, poisoned


def decide(chosen: Filter, updates: Matrix, clients: list[str] | None = None, **more: Any) -> Decision:
    clients = ids(len(updates)) if clients is None else clients
    generator = np.random.default_rng(99)
    return chosen.decide(
        updates,
        clients=clients,
        trusted=[client for client in clients if client in TRUSTED],
        num_examples={client: 10 + int(client[1:]) for client in clients},
        parameters=LAYOUT,
        vectors={"global_model": generator.standard_normal(D), "root_gradient": COMMON},
        **more,
    )


def play(name: str, rounds: list[Matrix], clients: list[str] | None = None) -> tuple[Filter, Decision]:
    """The filter after these rounds, and its last decision."""
    chosen = make(name)
    decision = [decide(chosen, updates, clients) for updates in rounds][-1]
    return chosen, decision


def assert_sound(decision: Decision, clients: list[str]) -> None:
    n = len(clients)
    assert list(decision.clients) == clients
    assert decision.accepted.shape == (n,)
    assert decision.accepted.dtype == bool
    assert decision.score.shape == (n,)
    assert decision.score.dtype == np.float64
    assert np.isfinite(decision.score).all()
    assert len(decision.reason) == n
    assert all(isinstance(word, str) and word for word in decision.reason)
    for column in (decision.weight, decision.statistic):
        assert column is None or (column.shape == (n,) and column.dtype == np.float64)
    assert decision.weight is None or np.isfinite(decision.weight).all()
    assert decision.cluster is None or (decision.cluster.shape == (n,) and decision.cluster.dtype == np.int32)
    assert decision.plane is None or (decision.plane.shape == (n, 2) and decision.plane.dtype == np.float64)
    if not decision.accepted.all() and decision.accepted.any():
        assert decision.score[decision.accepted].max() <= decision.score[~decision.accepted].min()
    if decision.threshold is not None:
        np.testing.assert_array_equal(decision.accepted, decision.score <= decision.threshold)


def assert_same(one: Decision, other: Decision, *, exactly: bool = True) -> None:
    assert one.clients == other.clients
    np.testing.assert_array_equal(one.accepted, other.accepted)
    assert one.reason == other.reason
    for name in ("score", "weight", "statistic"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None)
        if first is not None:
            if exactly:
                np.testing.assert_array_equal(first, second)
            else:
                np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


@pytest.fixture(params=EVERY_FILTER)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_says_what_it_is(name: str) -> None:
    kind = kind_of(name)
    assert kind.name == name
    assert kind.summary
    assert kind.source
    assert kind.grade in {"A", "B", "C"}
    assert kind.aggregate in {"linear", "coordinate-wise"}
    assert not kind.requires & kind.uses
    assert kind.__doc__ is not None
    assert len(kind.__doc__) > 60
    for spec in fields(kind):  # type: ignore[arg-type]
        assert spec.metadata.get("help"), f"{name}.{spec.name} is not explained"


def test_is_what_its_canonical_text_says(name: str) -> None:
    chosen = make(name)
    assert get(canonical(chosen)) == chosen
    assert canonical(get(canonical(chosen))) == canonical(chosen)


def test_refuses_settings_that_it_does_not_have(name: str) -> None:
    with pytest.raises(UsageError, match="no setting"):
        get(name, nonsense=1)


def test_says_that_it_must_be_told_the_number_of_attackers(name: str) -> None:
    if Requirement.ATTACKER_COUNT not in kind_of(name).requires:
        pytest.skip("it need not be told")
    with pytest.raises(UsageError, match="must be told the number of attackers"):
        get(name)
    with pytest.raises(UsageError, match="whole number or a share"):
        get(name, f=2.5)


@pytest.mark.parametrize("attacked", [False, True])
def test_decides_on_every_client(name: str, attacked: bool) -> None:
    updates = outlier_round()[0] if attacked else iid_round()
    decision = decide(make(name), updates)
    assert_sound(decision, ids(N))
    assert (decision.weight is None) == (kind_of(name).aggregate == "coordinate-wise")


def test_scores_respect_the_verdict_in_later_rounds(name: str) -> None:
    chosen = make(name)
    for number in range(14):
        updates = outlier_round(number)[0] if number % 2 else iid_round(number)
        assert_sound(decide(chosen, updates), ids(N))


def test_the_order_of_the_clients_does_not_matter(name: str) -> None:
    shuffled = np.random.default_rng(5).permutation(N)
    rounds = [outlier_round(0)[0], iid_round(1), outlier_round(2)[0]]
    _, straight = play(name, rounds)
    _, mixed = play(name, [updates[shuffled] for updates in rounds], [ids(N)[row] for row in shuffled])
    assert_same(straight, mixed.in_order(straight.clients))


def test_a_repeated_round_is_judged_alike(name: str) -> None:
    chosen = make(name)
    updates = outlier_round()[0]
    if has_memory(name):
        assert_same(decide(make(name), updates), decide(make(name), updates))
    else:
        first = decide(chosen, updates)
        assert not chosen.state_dict()
        assert_same(first, decide(chosen, updates))


def test_only_filters_with_a_memory_have_a_state(name: str) -> None:
    chosen, _ = play(name, [iid_round()])
    assert bool(chosen.state_dict()) == has_memory(name)
    if not has_memory(name):
        with pytest.raises(UsageError, match="keeps no state"):
            chosen.load_state_dict({"anything": 1})


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_a_non_finite_upload_is_rejected_and_changes_nothing_else(name: str, bad: float) -> None:
    rounds = [outlier_round(number)[0] for number in range(3)]
    _, without = play(name, rounds)
    for updates in rounds:
        updates[:] = updates.astype(np.float32)
    spoilt = [np.vstack([updates[:5], np.full((1, D), 0.5), updates[5:]]) for updates in rounds]
    for updates in spoilt:
        updates[5, 3] = bad
    clients = [*ids(N)[:5], "c77", *ids(N)[5:]]
    _, decision = play(name, spoilt, clients)
    assert_sound(decision, clients)
    assert not decision.accepted[5]
    assert decision.reason[5] == "non-finite"
    assert decision.score[5] >= decision.score.max()
    assert_same(without, decision.in_order(ids(N)))


def test_gross_outliers_are_caught(name: str) -> None:
    if name in DO_NOT_CLAIM_OUTLIERS:
        pytest.skip(DO_NOT_CLAIM_OUTLIERS[name])
    updates, poisoned = outlier_round()
    decision = decide(make(name), updates)
    if name == "mean":
        assert decision.accepted.all()
    elif name in NO_VERDICT:
        assert decision.accepted.all()
        assert decision.score[poisoned].min() > decision.score[~poisoned].max()
    else:
        assert not decision.accepted[poisoned].any()
        assert decision.score[poisoned].min() > decision.score[~poisoned & decision.accepted].max()


@pytest.mark.parametrize("seed", range(3))
def test_honest_iid_rounds_are_not_massacred(name: str, seed: int) -> None:
    most, _ = REJECTED_WITHOUT_ATTACK.get(name, (0.1, ""))
    chosen = make(name)
    for number in range(rounds_for(name)):
        decision = decide(chosen, iid_round(100 * seed + number))
    assert (~decision.accepted).mean() <= most
    assert decision.accepted.any()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("known", [0, 1])
def test_few_clients(name: str, n: int, known: int, judge_stored: Callable[..., Decision]) -> None:
    chosen = make(name)
    for number in range(rounds_for(name)):
        updates = iid_round(number, n)
        decision = judge_stored(chosen, updates, ids(known), clients=ids(n), parameters=LAYOUT)
        assert_sound(decision, ids(n))


def test_nobody_at_all(name: str) -> None:
    decision = decide(make(name), np.full((2, D), np.nan), clients=TRUSTED[:2])
    assert_sound(decision, TRUSTED[:2])
    assert not decision.accepted.any()
    empty = decide(make(name), np.zeros((0, D)))
    assert empty.clients == ()


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_all_updates_identical(name: str, value: float) -> None:
    same = np.tile(value * iid_round()[0], (N, 1))
    chosen = make(name)
    for _ in range(rounds_for(name)):
        decision = decide(chosen, same)
        assert_sound(decision, ids(N))
    if name not in TELL_NOTHING_OF_IDENTICAL_UPDATES:
        assert decision.accepted.sum() >= (1 - 2 * SHARE) * N


def test_one_client_1e30_times_larger(name: str) -> None:
    chosen = make(name)
    for number in range(3):
        updates = iid_round(number)
        updates[4] *= 1e30
        decision = decide(chosen, updates)
        assert_sound(decision, ids(N))
    looks_at_direction_alone = {"fltrust", "cosine-to-known-benign", "flame", "freqfed"}
    if name not in {*DO_NOT_CLAIM_OUTLIERS, *looks_at_direction_alone, "mean"}:
        assert decision.score[4] == decision.score.max()


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_verdicts_do_not_depend_on_the_scale_of_all_updates(name: str, scale: float) -> None:
    if name in {"centred-clipping", "flame", "freqfed"}:
        pytest.skip("τ, and the global model, have a scale of their own")
    updates = outlier_round()[0].astype(np.float32).astype(np.float64)
    power = 2.0 ** np.round(np.log2(scale))
    plain, scaled = decide(make(name), updates), decide(make(name), power * updates)
    np.testing.assert_array_equal(plain.accepted, scaled.accepted)


def test_no_cluster_found(name: str) -> None:
    """Uploads that are orthogonal and of growing length have no two alike."""
    updates = np.eye(N, D) * 1.7 ** np.arange(N)[:, None]
    decision = decide(make(name), updates)
    assert_sound(decision, ids(N))


def test_clients_come_and_go(name: str) -> None:
    chosen = make(name)
    for number in range(14):
        present = [row for row in range(N) if (row + number) % 3 or ids(N)[row] in TRUSTED[: 1 + number % 3]]
        clients = [ids(N)[row] for row in present]
        decision = decide(chosen, outlier_round(number)[0][present], clients)
        assert_sound(decision, clients)


def test_goes_on_from_its_state_bit_for_bit(name: str) -> None:
    rounds = [outlier_round(number)[0] if number % 3 else iid_round(number) for number in range(15)]
    straight = make(name)
    resumed = make(name)
    for number, updates in enumerate(rounds):
        expected = decide(straight, updates)
        if number in {1, 12}:
            state = resumed.state_dict()
            resumed = make(name)
            if state:
                resumed.load_state_dict(state)
        assert_same(expected, decide(resumed, updates))


def test_states_hold_only_arrays_numbers_and_text(name: str) -> None:
    chosen, _ = play(name, [iid_round(number) for number in range(3)])
    for key, value in chosen.state_dict().items():
        assert isinstance(value, np.ndarray | int | float | str), key
        assert "/" not in key
        assert not isinstance(value, np.ndarray) or value.dtype.kind in "biuf", key


def test_one_pass_answers_all_filters_as_it_answers_each() -> None:
    updates = outlier_round()[0]
    source = ArraySource(
        updates,
        ids(N),
        np.array([client in TRUSTED for client in ids(N)]),
        layout=LAYOUT,
        vectors={"global_model": np.ones(D), "root_gradient": updates[10]},
    )
    filters = {name: make(name) for name in EVERY_FILTER}
    sketch = sketch_for(source, filters.values())
    for name, chosen in filters.items():
        alone = make(name)
        expected = alone.decide(sketch_for(source, [alone]), trusted=TRUSTED)
        assert_same(expected, chosen.decide(sketch, trusted=TRUSTED))
