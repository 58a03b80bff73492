"""Sketches of linear combinations, against sketches of the combined updates themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encagg_cli.rounds.layout import ROLE_OUTPUT, Parameter
from encagg_cli.sketch import ArraySource, GramNeed, RoundSketch, sketch_round
from encagg_cli.sketch.directions import GlobalModelNeed, LastStepNeed, RootGradientNeed
from encagg_cli.sketch.mixing import can_mix, mix, mixed_norms
from encagg_cli.sketch.order import RankNeed
from encagg_cli.sketch.projection import ProjectionNeed
from encagg_cli.sketch.samples import SampledGramNeed
from encagg_cli.sketch.signs import SignCountNeed
from encagg_cli.sketch.tensors import OutputColumnsNeed, OutputRowGramNeed, TensorGramNeed

LAYOUT = (
    Parameter("hidden", (20, 6), 0),
    Parameter("output.weight", (4, 9), 120, ROLE_OUTPUT),
    Parameter("output.bias", (4,), 156, ROLE_OUTPUT),
)
PARAMETERS = 160
NEEDS = (
    GramNeed(),
    ProjectionNeed(64),
    TensorGramNeed(),
    OutputRowGramNeed(),
    OutputColumnsNeed(),
    GlobalModelNeed(),
    RootGradientNeed(),
    LastStepNeed(),
)


def source_of(updates: NDArray[np.floating], trusted: int = 2) -> ArraySource:
    rng = np.random.default_rng(9)
    names = ("global_model", "root_gradient", "last_step")
    return ArraySource(
        updates,
        tuple(f"c{row:02d}" for row in range(len(updates))),
        np.arange(len(updates)) < trusted,
        vectors={name: rng.standard_normal(PARAMETERS).astype(np.float32) for name in names},
        layout=LAYOUT,
    )


def both(updates: NDArray[np.float32], weights: NDArray[np.float64], **options: int) -> tuple[RoundSketch, RoundSketch]:
    """Mixed, and computed from the columns."""
    combined = source_of((weights @ updates.astype(np.float64)).astype(np.float32), **options)
    return mix(sketch_round(source_of(updates), NEEDS), combined, weights), sketch_round(combined, NEEDS)


def random_round(seed: int, clients: int = 7) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(PARAMETERS) + rng.standard_normal((clients, PARAMETERS))).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), attackers=st.integers(0, 5), trusted=st.integers(0, 3))
def test_figures_are_those_of_the_combined_updates(seed: int, attackers: int, trusted: int) -> None:
    weights = np.eye(7)
    rng = np.random.default_rng(seed)
    weights[7 - attackers :] = rng.uniform(-3, 3, (attackers, 1)) * rng.dirichlet(np.ones(7), attackers)
    mixed, dense = both(random_round(seed), weights, trusted=trusted)
    assert mixed.header.reference == dense.header.reference
    size = float(dense.gram.norms.max())

    def close(one: NDArray[np.floating], two: NDArray[np.floating], scale: float) -> None:
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=3e-6 * scale)

    grams = [(mixed.gram, dense.gram)]
    for need in (TensorGramNeed(), OutputRowGramNeed()):
        assert mixed[need].keys() == dense[need].keys()
        grams += [(mixed[need][name], dense[need][name]) for name in dense[need]]
    for one, two in grams:
        for figure in ("deviations", "inner", "squared_distances"):
            close(getattr(one, figure), getattr(two, figure), size**2)
        close(one.centred, two.centred, size**2)
        close(one.with_reference, two.with_reference, size**2)
        np.testing.assert_allclose(one.norms, two.norms, rtol=1e-4, atol=2e-3 * size)
    for need in (GlobalModelNeed(), RootGradientNeed(), LastStepNeed()):
        close(mixed[need].inner, dense[need].inner, size * dense[need].norm)
        close(mixed[need].with_deviations, dense[need].with_deviations, size * dense[need].norm)
        assert mixed[need].with_reference == pytest.approx(dense[need].with_reference, rel=1e-4, abs=1e-4 * size)
    close(mixed[ProjectionNeed(64)].rows, dense[ProjectionNeed(64)].rows, size)
    close(mixed[OutputColumnsNeed()].updates, dense[OutputColumnsNeed()].updates, size)


def test_equal_combinations_have_exactly_equal_figures_and_a_copy_those_of_the_original() -> None:
    weights = np.eye(7)
    weights[4:6] = np.full(7, -0.3)
    weights[6] = np.eye(7)[1]
    mixed, _ = both(random_round(3), weights)
    for one, other in ((4, 5), (1, 6)):
        assert mixed.gram.squared_distances[one, other] == 0
        assert mixed.gram.norms[one] == mixed.gram.norms[other] or other == 6  # of a copy, as it was stored
        np.testing.assert_array_equal(
            np.delete(mixed.gram.squared_distances[one], [one, other]),
            np.delete(mixed.gram.squared_distances[other], [one, other]),
        )
        np.testing.assert_array_equal(mixed[ProjectionNeed(64)].rows[one], mixed[ProjectionNeed(64)].rows[other])


def test_honest_clients_keep_their_figures() -> None:
    """With nobody poisoning, and the same reference row, nothing changes by a bit."""
    sketch = sketch_round(source_of(random_round(4)), NEEDS)
    mixed = mix(sketch, source_of(random_round(4)), np.eye(7))
    np.testing.assert_array_equal(mixed.gram.deviations, sketch.gram.deviations)
    np.testing.assert_array_equal(mixed.gram.inner, sketch.gram.inner)
    np.testing.assert_array_equal(mixed_norms(sketch.gram, np.eye(7)), sketch.gram.norms)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_raw_weights_lose_no_difference(offset: float) -> None:
    """Updates of norm 10^4 that differ by 10: distances of honest uploads, and of a mean of some, stay theirs."""
    rng = np.random.default_rng(0)
    updates = (offset * rng.standard_normal(PARAMETERS) + rng.standard_normal((8, PARAMETERS))).astype(np.float32)
    weights = np.eye(8)
    weights[6:] = np.append(np.full(6, 1 / 6), [0, 0])
    exact = weights @ updates.astype(np.float64)
    sketch = sketch_round(source_of(updates), [GramNeed()])
    mixed = mix(sketch, source_of(exact), weights)
    distances = np.linalg.norm(exact[:, None] - exact[None, :], axis=2)
    np.testing.assert_allclose(mixed.gram.distances, distances, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mixed_norms(sketch.gram, weights), np.linalg.norm(exact, axis=1), rtol=1e-6)


def test_what_counts_single_values_cannot_be_mixed() -> None:
    assert all(map(can_mix, NEEDS))
    assert not any(map(can_mix, (RankNeed(), SignCountNeed(0.1, 0), SampledGramNeed(2, 10))))
