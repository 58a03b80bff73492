"""Partitions: every sample at one client, no client empty, and as uneven as asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encagg_cli.errors import UsageError
from encagg_cli.federation.partition import dirichlet, iid

LABELS = np.repeat(np.arange(10), 100)


def make(kind, labels, clients, alpha, seed):
    rng = np.random.default_rng(seed)
    return iid(labels, clients, rng) if kind == "iid" else dirichlet(labels, clients, alpha, rng)


@given(
    st.sampled_from(["iid", "dirichlet"]),
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.data(),
    st.floats(1e-4, 100.0),
    st.integers(0, 2**31),
)
def test_every_sample_goes_to_one_client_and_no_client_is_empty(kind, labels, data, alpha, seed):
    labels = np.array(labels)
    clients = data.draw(st.integers(1, len(labels)))
    shards = make(kind, labels, clients, alpha, seed)
    assert len(shards) == clients
    assert all(len(shard) for shard in shards)
    assert sorted(np.concatenate(shards)) == list(range(len(labels)))
    again = make(kind, labels, clients, alpha, seed)
    assert all(np.array_equal(one, two) for one, two in zip(shards, again, strict=True))


def spread(shards):
    """Mean share of a client's largest class."""
    return np.mean([np.bincount(LABELS[shard], minlength=10).max() / len(shard) for shard in shards])


def test_iid_clients_are_alike_and_a_small_alpha_makes_them_differ():
    even, mild, strong = (
        spread(make(kind, LABELS, 10, alpha, 0)) for kind, alpha in (("iid", 1), ("dirichlet", 1), ("dirichlet", 0.1))
    )
    assert even < 0.25 < mild < 0.6 < strong


def test_iid_sizes_differ_by_one_at_most():
    assert {len(shard) for shard in make("iid", LABELS[:103], 10, 1, 0)} == {10, 11}


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UsageError, match="cannot share"):
        make("iid", LABELS[:5], 6, 1, 0)
    with pytest.raises(UsageError, match="alpha"):
        make("dirichlet", LABELS, 6, 0.0, 0)
    with pytest.raises(UsageError, match="at least one client"):
        make("iid", LABELS, 0, 1, 0)
