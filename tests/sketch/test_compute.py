"""What holds of every sketch: it does not depend on order, units or pieces, and does not believe what is not so."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.sketch import ArraySource, Block, GramNeed, RoundSketch, blocks, sketch_round
from encagg_cli.sketch.compute import make_plan
from encagg_cli.sketch.needs import Header, Need, Partial, SquaresNeed

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 40)),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


def source(updates: NDArray[np.floating], ids: list[str] | None = None, trusted: tuple[int, ...] = ()) -> ArraySource:
    flags = np.isin(np.arange(len(updates)), trusted)
    return ArraySource(updates, ids or [f"{row:04d}" for row in range(len(updates))], flags)


def sketch(updates: NDArray[np.floating]) -> RoundSketch:
    return sketch_round(source(updates), [GramNeed()])


def tolerance(updates: NDArray[np.floating]) -> float:
    return 1e-5 * float(np.square(updates.astype(np.float64)).sum(axis=1).max()) + 1e-30


@given(matrices, st.randoms())
def test_figures_follow_the_clients_whatever_their_order(updates, random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(updates)))
    random.shuffle(order)
    ids = [f"{row:04d}" for row in range(len(updates))]
    straight = sketch_round(source(updates, ids), [GramNeed()])
    shuffled = sketch_round(source(updates[order], [ids[row] for row in order]), [GramNeed()])
    assert shuffled.clients == straight.clients
    np.testing.assert_array_equal(shuffled.gram.centred, straight.gram.centred)
    np.testing.assert_array_equal(shuffled.gram.inner, straight.gram.inner)


@given(matrices, st.integers(-60, 60))
def test_doubling_all_updates_doubles_their_distances_exactly(updates, exponent) -> None:  # type: ignore[no-untyped-def]
    once = sketch(updates).gram
    often = sketch(np.ldexp(updates, exponent)).gram
    np.testing.assert_allclose(
        often.squared_distances,
        np.ldexp(once.squared_distances, 2 * exponent),
        rtol=1e-6,
        atol=np.ldexp(tolerance(updates), 2 * exponent),
    )
    np.testing.assert_allclose(often.cosines, once.cosines, atol=1e-5)


@given(matrices, st.integers(0, 2**32 - 1))
def test_a_rotation_changes_no_distance(updates, seed) -> None:  # type: ignore[no-untyped-def]
    d = updates.shape[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    rotated = (updates.astype(np.float64) @ rotation).astype(np.float32)
    np.testing.assert_allclose(
        sketch(rotated).gram.squared_distances, sketch(updates).gram.squared_distances, atol=20 * tolerance(updates)
    )


@given(matrices)
def test_all_figures_are_those_of_the_dense_matrix(updates) -> None:  # type: ignore[no-untyped-def]
    dense = updates.astype(np.float64)
    gram = sketch(updates).gram
    np.testing.assert_allclose(gram.inner, dense @ dense.T, atol=tolerance(updates))
    np.testing.assert_allclose(
        gram.squared_distances, ((dense[:, None] - dense[None]) ** 2).sum(axis=2), atol=4 * tolerance(updates)
    )


@pytest.mark.parametrize("width", [2**13, 2**15, 2**17])
def test_the_width_of_blocks_matters_to_rounding_alone(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = np.random.default_rng(0).standard_normal((11, 100_003)).astype(np.float32)
    expected = sketch(updates).gram.centred
    monkeypatch.setattr(blocks, "BLOCK_COLUMNS", width)
    np.testing.assert_allclose(sketch(updates).gram.centred, expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize("at_a_time", [1, 2, 64])
def test_how_much_is_read_at_a_time_changes_nothing(at_a_time: int) -> None:
    updates = np.random.default_rng(0).standard_normal((70, 140_000)).astype(np.float32)
    plan = make_plan(source(updates), [GramNeed()])
    assert blocks.tile_columns(70) < blocks.BLOCK_COLUMNS
    for index in range(plan.n_blocks):
        tiles = [
            (t.start, t.rows.copy()) for t in blocks.read_tiles(index, plan.rows, blocks.Buffers(), at_a_time=at_a_time)
        ]
        once = [(t.start, t.rows.copy()) for t in blocks.read_tiles(index, plan.rows, blocks.Buffers())]
        assert [start for start, _ in tiles] == [start for start, _ in once]
        for (_, tile), (_, expected) in zip(tiles, once, strict=True):
            np.testing.assert_array_equal(tile, expected)


@pytest.mark.parametrize("n", [1, 2, 16, 17, 100, 1000, 10_000])
def test_tiles_divide_a_block_evenly(n: int) -> None:
    width = blocks.tile_columns(n)
    assert blocks.BLOCK_COLUMNS % width == 0
    assert width == 1024 or width * n <= 2**20


def test_updates_that_are_not_finite_take_part_in_nothing() -> None:
    updates = np.random.default_rng(1).standard_normal((8, 70_000)).astype(np.float32)
    expected = sketch_round(source(updates[[0, 1, 3, 4, 6, 7]], ["0", "1", "3", "4", "6", "7"]), [GramNeed()])
    updates[2, 69_999] = np.nan
    updates[5, 0] = -np.inf
    found = sketch_round(source(updates, [str(row) for row in range(8)]), [GramNeed()])
    assert found.non_finite == ("2", "5")
    assert found.clients == expected.clients
    np.testing.assert_array_equal(found.gram.inner, expected.gram.inner)


def test_a_round_without_any_finite_update_has_no_figures() -> None:
    found = sketch_round(source(np.full((3, 10), np.nan, dtype=np.float32)), [GramNeed()])
    assert found.clients == ()
    assert found.non_finite == ("0000", "0001", "0002")
    assert not found.figures


class _Forged:
    """A source whose stored norms are not those of its updates."""

    def __init__(self, real: ArraySource, norms: NDArray[np.float64]) -> None:
        self._real, self.norms = real, norms

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._real, name)


@pytest.mark.parametrize("need", [GramNeed(), SquaresNeed()])
@pytest.mark.parametrize("factor", [0.5, 0.98, 1.02, 3.0, 1e12, 1e-12])
def test_a_forged_norm_is_found_out(need: Need, factor: float) -> None:
    real = source(np.random.default_rng(2).standard_normal((6, 1000)).astype(np.float32))
    norms = real.norms
    norms[4] *= factor
    with pytest.raises(UnusableInput, match=r"round 0, client 0004: the update has norm"):
        sketch_round(_Forged(real, norms), [need])


def test_the_references_own_forged_norm_is_found_out() -> None:
    real = source(np.random.default_rng(2).standard_normal((6, 1000)).astype(np.float32), trusted=(3,))
    norms = real.norms
    norms[3] = 1.0
    with pytest.raises(UnusableInput, match="client 0003"):
        sketch_round(_Forged(real, norms), [GramNeed()])


@pytest.mark.parametrize("need", [GramNeed(), SquaresNeed()])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_finite_norm_does_not_hide_an_update_that_is_not(need: Need, value: float) -> None:
    updates = np.random.default_rng(3).standard_normal((6, 200_000)).astype(np.float32)
    honest = source(updates).norms
    updates[2, 150_000] = value
    with pytest.raises(UnusableInput, match=r"client 0002: the update holds values"):
        sketch_round(_Forged(source(updates), honest), [need])


class _Seen(Need):
    """Counts what a need is shown."""

    uses_raw = True
    vectors = frozenset({"global_model", "last_step"})

    def partial(self, block: Block, header: Header) -> Partial:
        assert block.raw is not None
        scaled = np.ldexp(block.raw, -header.exponents[:, None].astype(np.int32))
        reference = np.ldexp(block.reference, header.exponents[header.reference] - header.exponents[:, None])
        np.testing.assert_array_equal(block.rows, (scaled - reference).astype(np.float32))
        sums = {"raw": block.raw.sum(axis=1, dtype=np.float64), "columns": np.array(block.stop - block.start)}
        for name, vector in block.vectors.items():
            sums[name] = np.array(vector.sum(dtype=np.float64))
        return sums

    def total(self, sums: Partial, header: Header) -> Partial:
        return sums


def test_a_need_is_shown_what_it_asks_for_and_the_round_has() -> None:
    rng = np.random.default_rng(4)
    updates = rng.standard_normal((7, 80_000)).astype(np.float32)
    model = rng.standard_normal(80_000).astype(np.float32)
    vectors = {"global_model": model, "root_gradient": model}
    need = _Seen()
    seen = sketch_round(ArraySource(updates, list("abcdefg"), np.zeros(7, dtype=bool), 3, vectors), [need])[need]
    assert seen["columns"] == 80_000
    np.testing.assert_allclose(seen["raw"], updates.sum(axis=1, dtype=float), rtol=1e-6, atol=1e-4)
    assert seen["global_model"] == pytest.approx(model.sum(dtype=float), rel=1e-6)
    assert "last_step" not in seen
    assert "root_gradient" not in seen


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 300_000))
def test_every_column_is_seen_once(n: int, d: int) -> None:
    need = _Seen()
    updates = np.ones((n, d), dtype=np.float32)
    assert sketch_round(source(updates), [need])[need]["columns"] == d
