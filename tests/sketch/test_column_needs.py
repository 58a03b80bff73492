"""Figures of columns and tensors against dense numpy, whatever pieces the round is read in."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata

from encagg_cli.errors import UsageError
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch import ArraySource, Need, RoundSketch, sketch_round
from encagg_cli.sketch.directions import GlobalModelNeed, LastStepNeed, RootGradientNeed
from encagg_cli.sketch.order import RankNeed
from encagg_cli.sketch.pages import PAGE_COLUMNS, gaussian, signs
from encagg_cli.sketch.projection import ProjectionNeed
from encagg_cli.sketch.samples import SampledColumnsNeed, SampledGramNeed, sampled_columns
from encagg_cli.sketch.signs import PackedSigns, SignCosinesNeed, SignCountNeed, SignedEnergyNeed
from encagg_cli.sketch.sparse import SparseTensorNeed, magnitude_thresholds
from encagg_cli.sketch.tensors import MOST_COLUMNS, OutputColumnsNeed, OutputRowGramNeed, TensorGramNeed

Matrix = NDArray[np.float64]

WIDE = 140_000  # more than two blocks of columns


def updates_of(seed: int = 0, n: int = 7, d: int = WIDE) -> Matrix:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(d) + 0.3 * generator.standard_normal((n, d))).astype(np.float32).astype(float)


def sketch(updates: Matrix, needs: Iterable[Need], **more: object) -> RoundSketch:
    ids = tuple(f"{row:03d}" for row in range(len(updates)))
    return sketch_round(ArraySource(updates, ids, np.zeros(len(ids), dtype=bool), **more), needs)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [GlobalModelNeed, RootGradientNeed, LastStepNeed])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e36])
def test_products_with_a_vector(kind: type[GlobalModelNeed], size: float) -> None:
    updates = updates_of()
    vector = np.random.default_rng(9).standard_normal(WIDE).astype(np.float32) * np.float32(size)
    (name,) = kind.vectors
    products = sketch(updates, [kind()], vectors={name: vector})[kind()]
    exact = updates @ vector.astype(float)
    lengths = np.linalg.norm(updates, axis=1) * np.linalg.norm(vector.astype(float))
    np.testing.assert_allclose(products.inner / lengths, exact / lengths, atol=1e-6)
    np.testing.assert_allclose(products.cosines, exact / lengths, atol=1e-6)
    assert products.norm == pytest.approx(np.linalg.norm(vector.astype(float)), rel=1e-6)


def test_products_keep_small_differences_between_long_updates() -> None:
    """Raw weights of norm 370 that differ by 1e-4 in every place."""
    base = np.random.default_rng(0).standard_normal(WIDE)
    shift = 1e-4 * np.random.default_rng(1).standard_normal((5, WIDE))
    updates = (base + shift).astype(np.float32).astype(float)
    vector = np.random.default_rng(2).standard_normal(WIDE).astype(np.float32)
    products = sketch(updates, [GlobalModelNeed()], vectors={"global_model": vector})[GlobalModelNeed()]
    exact = (updates - updates[0]) @ vector
    np.testing.assert_allclose(products.with_deviations - products.with_deviations[0], exact, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_counts_as_absent(bad: float) -> None:
    vector = np.ones(WIDE)
    vector[70_000] = bad
    assert sketch(updates_of(), [RootGradientNeed()], vectors={"root_gradient": vector})[RootGradientNeed()] is None
    assert sketch(updates_of(), [RootGradientNeed()])[RootGradientNeed()] is None
    projected = sketch(updates_of(), [ProjectionNeed(64)], vectors={"last_step": vector})[ProjectionNeed(64)]
    assert projected.last_step is None


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_counted_over_all_columns(ties: bool) -> None:
    updates = updates_of(n=5)
    updates[3] *= 1e30
    if ties:
        updates[:3] = np.round(updates[:3])
    ranks = sketch(updates, [RankNeed()])[RankNeed()]
    doubled = np.rint(2 * (rankdata(updates, axis=0) - 1)).astype(int)
    for client in range(5):
        np.testing.assert_array_equal(ranks.midranks[client], np.bincount(doubled[client], minlength=9))
    np.testing.assert_allclose(ranks.slots.sum(axis=0), WIDE, rtol=1e-9)
    np.testing.assert_allclose(ranks.slots.sum(axis=1), WIDE, rtol=1e-9)
    if not ties:
        np.testing.assert_array_equal(ranks.slots, ranks.midranks[:, ::2])


@settings(deadline=None)  # a loaded machine is no failure
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 2))
def test_slots_share_ties_out_evenly(seed: int, n: int, each_side: int) -> None:
    updates = np.random.default_rng(seed).integers(0, 3, (n, 25)).astype(float)
    slots = sketch(updates, [RankNeed()])[RankNeed()].slots
    expected = np.zeros((n, n))
    for column in updates.T:
        for value in set(column):
            members = np.flatnonzero(column == value)
            first = int((column < value).sum())
            expected[np.ix_(members, range(first, first + len(members)))] += 1 / len(members)
    np.testing.assert_allclose(slots, expected, atol=1e-9)


def test_sign_shares_are_those_of_one_window() -> None:
    updates = updates_of()
    updates[:, ::3] = 0
    need = SignCountNeed(0.4, seed=3)
    start, stop = need.window(WIDE)
    assert stop - start == int(0.4 * WIDE)
    window = updates[:, start:stop]
    expected = np.stack([(window > 0).mean(axis=1), (window == 0).mean(axis=1), (window < 0).mean(axis=1)], axis=1)
    np.testing.assert_allclose(sketch(updates, [need])[need], expected)
    assert len({SignCountNeed(0.1, seed=seed).window(WIDE)[0] for seed in range(20)}) == 20
    assert SignCountNeed(0.1).window(3) in {(0, 1), (1, 2), (2, 3)}


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 100, WIDE]), st.floats(0, 0.9))
@settings(max_examples=20, deadline=None)
def test_sign_cosines_are_exact(seed: int, d: int, zeros: float) -> None:
    generator = np.random.default_rng(seed)
    updates = updates_of(seed, d=d) * (generator.random((7, d)) >= zeros)
    updates[5], updates[6] = updates[0], 0.0
    found = sketch(updates, [SignCosinesNeed()])[SignCosinesNeed()]
    signs = np.sign(updates)
    counts = np.abs(signs).sum(axis=1)
    assert np.array_equal(found.counts, counts)
    expected = signs @ signs.T / np.sqrt(np.maximum(np.outer(counts, counts), 1.0))
    np.testing.assert_allclose(found.cosines, expected, atol=1e-15)
    assert np.array_equal(found.cosines[5], found.cosines[0])
    assert np.array_equal(np.diag(found.cosines), counts > 0)
    sizes = generator.uniform(0.1, 10.0, (7, d)).astype(np.float32)
    scaled = sketch(updates * sizes, [SignCosinesNeed()])[SignCosinesNeed()]
    assert np.array_equal(scaled.cosines, found.cosines)
    some = found[np.array([4, 1])]
    assert np.array_equal(some.cosines, found.cosines[np.ix_([4, 1], [4, 1])])
    assert np.array_equal(some.counts, counts[[4, 1]])


def test_signed_energy_against_a_stored_step_or_own_signs() -> None:
    updates = updates_of()
    updates[2] *= 1e25
    step = np.random.default_rng(4).standard_normal(WIDE).astype(np.float32)
    step[:5] = 0
    expected = np.where(np.sign(updates) != np.sign(step), updates**2, 0).sum(axis=1)
    stored = sketch(updates, [SignedEnergyNeed()], vectors={"last_step": step})[SignedEnergyNeed()]
    np.testing.assert_allclose(stored.energy, expected, rtol=1e-5)
    assert stored.stored_step
    own = SignedEnergyNeed("mine", PackedSigns.pack([step[:PAGE_COLUMNS], step[PAGE_COLUMNS:]]))
    remembered = sketch(updates, [own])[own]
    np.testing.assert_allclose(remembered.energy, expected, rtol=1e-5)
    assert not remembered.stored_step
    assert sketch(updates, [own], vectors={"last_step": step})[own].stored_step
    assert sketch(updates, [SignedEnergyNeed()])[SignedEnergyNeed()] is None


@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(st.sampled_from([-2.0, 0.0, 0.5]), min_size=1, max_size=60), st.data())
def test_packed_signs_unpack_to_what_they_were(values: list[float], data: st.DataObject) -> None:
    packed = PackedSigns.pack([np.array(values)])
    start = data.draw(st.integers(0, len(values) - 1))
    stop = data.draw(st.integers(start + 1, len(values)))
    np.testing.assert_array_equal(packed.columns(start, stop), np.sign(values[start:stop]))


def test_sampled_columns_and_their_gram_matrices() -> None:
    updates = updates_of()
    need = SampledGramNeed(3, 500, seed=2)
    grams = sketch(updates, [need])[need]
    for sample in range(3):
        columns = sampled_columns(2, sample, 500, WIDE)
        assert len(set(columns.tolist())) == 500
        chosen = updates[:, columns] - updates[:, columns].mean(axis=0)
        gram = grams[sample] - grams[sample].mean(axis=0) - grams[sample].mean(axis=1)[:, None] + grams[sample].mean()
        np.testing.assert_allclose(gram, chosen @ chosen.T, atol=1e-3)
    columns = SampledColumnsNeed(500, seed=2)
    np.testing.assert_array_equal(sketch(updates, [columns])[columns], updates[:, sampled_columns(2, 0, 500, WIDE)])
    small = SampledColumnsNeed(500)
    np.testing.assert_array_equal(sketch(updates[:, :40], [small])[small], updates[:, :40])


@pytest.mark.parametrize("buckets", [64, 1024, 65_536])
def test_projections_are_linear_and_keep_products_on_average(buckets: int) -> None:
    updates = updates_of(n=4)
    exact = updates @ updates.T
    lengths = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    errors = []
    for seed in range(12):
        need = ProjectionNeed(buckets, seed)
        rows = sketch(updates, [need])[need].rows
        errors.append((rows @ rows.T - exact) / lengths)
        combined = updates[:1] - 2 * updates[1:2]
        np.testing.assert_allclose(
            sketch(combined, [need])[need].rows[0], rows[0] - 2 * rows[1], atol=1e-3 * np.abs(rows).max()
        )
    spread = np.sqrt(2 / buckets)
    assert np.abs(np.mean(errors, axis=0)).max() < 1.5 * spread
    assert np.std(errors) < 1.2 * spread


def test_projections_of_no_more_parameters_than_buckets_lose_nothing() -> None:
    updates = updates_of(d=900)
    updates[2] *= 1e20
    need = ProjectionNeed(1024, 5)
    step = np.random.default_rng(1).standard_normal(900)
    projected = sketch(updates, [need], vectors={"last_step": step})[need]
    np.testing.assert_allclose(np.linalg.norm(projected.rows, axis=1), np.linalg.norm(updates, axis=1), rtol=1e-5)
    np.testing.assert_allclose(projected.rows[:2] @ projected.last_step, updates[:2] @ step, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("buckets", [0, 32, 1000, 131_072])
def test_projections_have_a_power_of_two_of_buckets(buckets: int) -> None:
    with pytest.raises(UsageError, match="power of two"):
        ProjectionNeed(buckets)


def test_random_numbers_belong_to_columns_however_they_are_asked_for() -> None:
    whole = signs(3, 0, 200_000)
    assert set(whole.tolist()) == {-1.0, 1.0}
    assert abs(whole.mean()) < 0.01
    for start, stop in ((0, 10), (65_530, 65_550), (60_000, 140_000), (199_999, 200_000)):
        np.testing.assert_array_equal(signs(3, start, stop), whole[start:stop])
    noise = gaussian((1, 2), 0, 100_000)
    np.testing.assert_array_equal(gaussian((1, 2), 65_000, 66_000), noise[65_000:66_000])
    assert noise.std() == pytest.approx(1, abs=0.02)


LAYERS = (
    Parameter("body", (3, 30_000), 0),
    Parameter("empty", (0,), 90_000),
    Parameter("head.weight", (4, 10_000), 90_000, role="output"),
    Parameter("head.bias", (4,), 130_000, role="output"),
)


def test_gram_matrices_per_tensor_and_per_output_row() -> None:
    updates = updates_of(d=130_004)
    updates[1] *= 1e-3
    figures = sketch(updates, [TensorGramNeed(), OutputRowGramNeed()], layout=LAYERS)
    pieces = {"body": (0, 90_000), "head.weight": (90_000, 130_000), "head.bias": (130_000, 130_004)}
    rows = {f"head.weight[{c}]": (90_000 + 10_000 * c, 100_000 + 10_000 * c) for c in range(4)}
    for need, expected in ((TensorGramNeed(), pieces), (OutputRowGramNeed(), rows)):
        assert list(figures[need]) == list(expected)
        for name, (start, stop) in expected.items():
            gram, part = figures[need][name], updates[:, start:stop]
            lengths = np.linalg.norm(part, axis=1)
            np.testing.assert_allclose(gram.norms, lengths, rtol=1e-6)
            np.testing.assert_allclose(gram.inner, part @ part.T, atol=1e-5 * lengths.max() ** 2)


def test_the_output_layer_is_kept_whole() -> None:
    updates = updates_of(d=130_004)
    model = np.random.default_rng(3).standard_normal(130_004)
    layer = sketch(updates, [OutputColumnsNeed()], layout=LAYERS, vectors={"global_model": model})[OutputColumnsNeed()]
    np.testing.assert_array_equal(layer.updates, updates[:, 90_000:])
    np.testing.assert_array_equal(layer.model, model.astype(np.float32)[90_000:])
    assert sketch(updates, [OutputColumnsNeed()], layout=LAYERS)[OutputColumnsNeed()].model is None
    assert sketch(updates, [OutputColumnsNeed()])[OutputColumnsNeed()] is None
    assert sketch(updates, [OutputRowGramNeed()])[OutputRowGramNeed()] == {}


def test_an_output_layer_too_large_to_keep_is_refused() -> None:
    columns = MOST_COLUMNS + 1
    layout = (Parameter("head", (1, columns), 0, role="output"),)
    with pytest.raises(UsageError, match="too many to keep"):
        sketch(np.ones((2, columns)), [OutputColumnsNeed()], layout=layout)
    with pytest.raises(UsageError, match="Gram matrix for each row of the output layer"):
        sketch(np.ones((2, 5000)), [OutputRowGramNeed()], layout=(Parameter("head", (5000, 1), 0, role="output"),))


def test_sparse_tensors_keep_each_updates_largest_values() -> None:
    updates = updates_of(d=130_004)
    sample = sketch(updates, [SampledColumnsNeed(16_384)])[SampledColumnsNeed(16_384)]
    thresholds = magnitude_thresholds(sample, 0.7)
    kept = np.abs(updates) >= np.array(thresholds, dtype=np.float32)[:, None]
    np.testing.assert_allclose(kept.mean(axis=1), 0.7, atol=0.015)
    need = SparseTensorNeed(thresholds)
    tensors = sketch(updates, [need], layout=LAYERS)[need]
    assert tensors.names == ("body", "head.weight", "head.bias")
    for index, (start, stop) in enumerate(((0, 90_000), (90_000, 130_000), (130_000, 130_004))):
        part = np.where(kept, updates, 0)[:, start:stop]
        np.testing.assert_allclose(tensors.norms[index], np.linalg.norm(part, axis=1), rtol=1e-6)
        sign = np.sign(part)
        counted = np.maximum(np.abs(sign).sum(axis=1), 1)
        np.testing.assert_allclose(tensors.purity[index], 0.5 * (1 + sign.sum(axis=1) / counted), rtol=1e-9)


@pytest.mark.parametrize(
    "need",
    [
        GlobalModelNeed(),
        RankNeed(),
        SignCountNeed(0.1),
        SignCosinesNeed(),
        SignedEnergyNeed(),
        SampledGramNeed(2, 100),
        SampledColumnsNeed(100),
        ProjectionNeed(256),
        TensorGramNeed(),
        OutputRowGramNeed(),
        OutputColumnsNeed(),
    ],
    ids=lambda need: type(need).__name__,
)
def test_needs_say_how_much_they_hold(need: Need) -> None:
    """The estimate is what memory limits are kept by: it covers the sums, and is not wildly above them."""
    updates = updates_of(d=130_004)
    header = sketch(updates, [need], layout=LAYERS, vectors={"global_model": np.ones(130_004)}).header
    from encagg_cli.sketch.blocks import Buffers
    from encagg_cli.sketch.compute import compute_block, make_plan

    source = ArraySource(
        updates,
        tuple(f"{row:03d}" for row in range(7)),
        np.zeros(7, dtype=bool),
        layout=LAYERS,
        vectors={"global_model": np.ones(130_004), "last_step": np.ones(130_004)},
    )
    plan = make_plan(source, [need])
    sums: dict[str, int] = {}
    for index in range(plan.n_blocks):
        sums |= {name: value.nbytes for name, value in compute_block(plan, index, Buffers())[0].items()}
    held = need.held_bytes(header)
    assert sum(sums.values()) <= 1.05 * held + 1024
    assert held <= 4 * sum(sums.values()) + 4096
