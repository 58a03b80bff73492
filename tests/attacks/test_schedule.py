"""Who poisons when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encagg_cli.attacks.schedule import (
    SCHEDULES,
    canonical,
    check_share,
    count_of_attackers,
    get_schedule,
    parse_rounds,
)
from encagg_cli.errors import UsageError

CLIENTS = tuple(f"c{number:02d}" for number in range(20))


def shares(schedule, rounds, seed=0):
    return [len(schedule.poisoning(number, CLIENTS, seed)) for number in rounds]


def test_each_attacker_decides_afresh_in_every_round():
    counts = shares(get_schedule("bernoulli(p=0.25)"), range(400))
    assert np.mean(counts) == pytest.approx(5.0, abs=0.4)
    assert min(counts) <= 1
    assert max(counts) >= 9
    together = [
        {"c03", "c11"} <= set(get_schedule("bernoulli(p=0.25)").poisoning(number, CLIENTS, 0)) for number in range(400)
    ]
    assert np.mean(together) == pytest.approx(0.0625, abs=0.04)  # independent


@pytest.mark.parametrize(("p", "count"), [(0, 0), (1, 20)])
def test_certain_decisions(p, count):
    assert set(shares(get_schedule(f"bernoulli(p={p})"), range(20))) == {count}


def test_always_means_always():
    assert set(shares(get_schedule("always"), range(20))) == {20}


def test_periods_of_poison_and_honesty_from_a_start():
    counts = shares(get_schedule("periodic(on=2,off=3,start=4)"), range(16))
    assert [bool(count) for count in counts] == [False] * 4 + [True, True, False, False, False] * 2 + [True, True]


def test_attack_free_rounds_come_before_all_on_rounds_and_both_before_the_decision():
    schedule = get_schedule("bernoulli(p=0.5,free=0:3+7,full=2+5:6+9:)")
    counts = shares(schedule, range(12))
    assert counts[:3] == [0, 0, 0]
    assert counts[7] == 0
    assert [counts[number] for number in (5, 9, 10, 11)] == [20] * 4
    assert 0 < counts[3] < 20


def test_a_fixed_set_stays_and_a_changing_one_does_not():
    fixed = {get_schedule("always").malicious(number, CLIENTS, 6, 3) for number in range(10)}
    assert len(fixed) == 1
    changing = get_schedule("always(identities=changing,every=2)")
    sets = [changing.malicious(number, CLIENTS, 6, 3) for number in range(10)]
    assert all(sets[number] == sets[number + 1] for number in range(0, 10, 2))
    assert len(set(sets)) >= 4
    assert all(len(chosen) == 6 for chosen in sets)


def test_the_malicious_of_a_small_share_are_among_those_of_a_larger():
    schedule = get_schedule("always")
    assert set(schedule.malicious(0, CLIENTS, 3, 1)) < set(schedule.malicious(0, CLIENTS, 8, 1))


def test_different_seeds_draw_different_clients():
    assert len({get_schedule("always").malicious(0, CLIENTS, 6, seed) for seed in range(10)}) > 5


def test_switching_draws_one_attack_a_round():
    schedule = get_schedule("always")
    rounds = [schedule.choose(number, CLIENTS, 3, 0) for number in range(60)]
    assert all(len(set(chosen.values())) == 1 for chosen in rounds)
    assert {chosen["c00"] for chosen in rounds} == {0, 1, 2}


def test_turns_go_round_and_a_mix_divides_evenly():
    turns = get_schedule("always(choice=turns)")
    assert [turns.choose(number, CLIENTS, 3, 0)["c05"] for number in range(5)] == [0, 1, 2, 0, 1]
    dealt = get_schedule("always(choice=mix)").choose(4, CLIENTS, 3, 0)
    assert sorted(np.bincount(list(dealt.values()))) == [6, 7, 7]


@given(st.integers(0, 2**32), st.integers(0, 1000), st.sampled_from(sorted(SCHEDULES)))
def test_the_same_seed_gives_the_same_plan_and_only_attackers_poison(seed, number, name):
    first, second = (get_schedule(name) for _ in range(2))
    attackers = first.malicious(number, CLIENTS, 7, seed)
    assert attackers == second.malicious(number, CLIENTS, 7, seed)
    assert list(attackers) == sorted(set(attackers))
    chosen = first.poisoning(number, attackers, seed)
    assert chosen == second.poisoning(number, attackers, seed)
    assert set(chosen) <= set(attackers)


@pytest.mark.parametrize("text", ["bernoulli", "bernoulli(free=0:3+7,p=0.2)", "periodic(on=1)", "always(choice=mix)"])
def test_canonical_text_is_read_back(text):
    assert canonical(get_schedule(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sometimes", "no schedule"),
        ("bernoulli(p=2)", "at most 1"),
        ("always(free=3:1)", "names no round"),
        ("always(free=x)", "cannot be read"),
        ("always(identities=new)", "identities"),
        ("periodic(on=0)", "at least 1"),
        ("always(", "cannot read .* as a schedule"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        get_schedule(text)


def test_rounds_are_half_open():
    assert parse_rounds("0:3+7+20:", "free") == ((0, 3), (7, 8), (20, None))


@pytest.mark.parametrize(
    ("ratio", "clients", "count"), [(0.3, 20, 6), (0.1, 50, 5), (0.7, 10, 7), (0.25, 10, 3), (0.6, 20, 12), (0.0, 9, 0)]
)
def test_a_share_is_rounded_to_the_nearest_count(ratio, clients, count):
    assert count_of_attackers(ratio, clients) == count


@pytest.mark.parametrize(
    ("ratio", "trusted", "message"),
    [
        (0.9, 4, "18 attackers, and only 16 are not known-benign"),
        (1.0, 0, "below 1"),
        (-0.1, 0, "at least 0"),
        (0.01, 0, "no attacker at all"),
        (0.98, 0, "no honest client"),
    ],
)
def test_shares_that_cannot_be_are_refused(ratio, trusted, message):
    with pytest.raises(UsageError, match=message):
        check_share(ratio, CLIENTS, CLIENTS[:trusted])
