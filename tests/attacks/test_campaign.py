"""Campaigns: from attacks, a share, a schedule and a seed to every round's poison."""

import numpy as np
import pytest

from encagg_cli import attacks
from encagg_cli.attacks.campaign import Campaign
from encagg_cli.attacks.schedule import get_schedule
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.sketch import ArraySource

CLIENTS = tuple(f"c{number:02d}" for number in range(20))
TRUSTED = CLIENTS[:4]


def campaign(*texts, ratio=0.3, schedule="always", seed=0, clients=CLIENTS, trusted=TRUSTED):
    return Campaign(
        [attacks.get(text) for text in texts],
        ratio=ratio,
        schedule=get_schedule(schedule),
        seed=seed,
        clients=clients,
        trusted=trusted,
    )


@pytest.fixture
def source():
    updates = (1 + np.random.default_rng(0).standard_normal((20, 50))).astype(np.float32)
    return ArraySource(updates, CLIENTS, np.arange(20) < 4)


def crafted(chosen, source, number=0):
    plan = chosen.plan(number, source.client_ids)
    blocks = list(chosen.craft(source, plan))
    return plan, np.concatenate([values for _, _, values in blocks], axis=1)


def test_known_benign_clients_never_attack():
    chosen = campaign("lie", ratio=0.8, schedule="always(identities=changing)")
    for number in range(30):
        plan = chosen.plan(number, CLIENTS)
        assert len(plan.poisoning) == 16
        assert not set(plan.poisoning) & set(TRUSTED)


def test_several_attacks_in_one_round_are_each_made_from_the_honest_uploads(source):
    chosen = campaign("ipm(epsilon=1.0)", "sign-flip", ratio=0.4, schedule="always(choice=mix)")
    plan, rows = crafted(chosen, source)
    honest = [row for row, client in enumerate(CLIENTS) if client not in plan.attacks]
    mean = source.updates[honest].mean(axis=0, dtype=np.float64)
    names = [plan.attack_name(client) for client in plan.poisoning]
    assert sorted(set(names)) == ["ipm(epsilon=1.0)", "sign-flip"]
    for row, client, name in zip(rows, plan.poisoning, names, strict=True):
        expected = -mean if name == "ipm(epsilon=1.0)" else -source.updates[CLIENTS.index(client)]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_labels_and_uploads_are_the_same_for_the_same_seed(source):
    first, second = (campaign("lie(noise=1.0)", "gaussian", schedule="bernoulli", seed=4) for _ in range(2))
    for number in range(6):
        one, two = crafted(first, source, number), crafted(second, source, number)
        assert [*one[0].attacks] == [*two[0].attacks]
        np.testing.assert_array_equal(one[1], two[1])


def test_a_plan_does_not_depend_on_the_rounds_before_it():
    later = campaign("lie", "ipm", schedule="bernoulli")
    for number in range(5):
        later.plan(number, CLIENTS)
    assert later.plan(5, CLIENTS).poisoning == campaign("lie", "ipm", schedule="bernoulli").plan(5, CLIENTS).poisoning


def test_clients_that_are_away_do_not_attack():
    present = CLIENTS[::2]
    plan = campaign("lie", ratio=0.5).plan(0, present)
    assert plan.poisoning
    assert set(plan.malicious) <= set(present)


def test_of_several_shares_one_is_drawn_a_round():
    chosen = campaign("lie", ratio=(0.1, 0.3, 0.6))
    counts = [len(chosen.plan(number, CLIENTS).poisoning) for number in range(40)]
    assert set(counts) == {2, 6, 12}


def test_a_round_without_poison_crafts_nothing(source):
    chosen = campaign("lie", schedule="always(free=3)")
    plan = chosen.plan(3, CLIENTS)
    assert not plan.attacks
    assert list(chosen.craft(source, plan)) == []


def test_a_round_in_which_all_present_would_poison_is_refused():
    chosen = campaign("lie", ratio=0.5, trusted=())
    malicious = chosen.plan(0, CLIENTS).malicious
    with pytest.raises(UnusableInput, match="round 0: all 10 clients"):
        chosen.plan(0, malicious)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ((), {"ratio": 0.3}, "attackers need an attack"),
        (("lie",), {"ratio": 0.0}, "an attack needs attackers"),
        (("adaptive",), {"trusted": ()}, "adaptive aims at a filter that needs known-benign clients"),
        (("lie",), {"ratio": 0.9}, "only 16 are not known-benign"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts, options, message):
    with pytest.raises(UsageError, match=message):
        campaign(*texts, **options)


def test_an_attack_that_looks_at_global_models_says_so_where_there_is_none():
    chosen = campaign("xfed-like", "lie")
    with pytest.raises(UnusableInput, match="round 2 stores no global model, and xfed-like needs one"):
        chosen.observe(2, None)
    campaign("lie").observe(2, None)
