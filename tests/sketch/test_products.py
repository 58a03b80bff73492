"""Products of tiles: equal rows are found, and a GPU multiplies in full float32 whatever a training asked for."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from encagg_cli.sketch.products import centred_products, equal_rows, full_precision

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("columns", [1, 3, 16, 17, 64, 65, 8192])
def test_equal_rows_are_found_whatever_their_width(columns: int) -> None:
    rows = np.random.default_rng(0).standard_normal((9, columns)).astype(np.float32)
    rows[[4, 7]] = rows[1]
    rows[8] = rows[0]
    assert sorted(equal_rows(rows)) == [(0, 8), (1, 4), (1, 7)]


def test_rows_that_differ_where_nobody_looks_at_first_are_told_apart() -> None:
    rows = np.zeros((5, 8192), dtype=np.float32)
    rows[2, 1000] = 1
    rows[3, 1000] = 1
    rows[4, 7000] = 1
    assert sorted(equal_rows(rows)) == [(0, 1), (2, 3)]


def test_the_reference_lends_its_place_and_gets_it_back() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((6, 500)).astype(np.float32)
    rows[2] = 0
    rows[5] = 0  # a client equal to the reference
    reference = rng.standard_normal(500).astype(np.float32)
    before = rows.copy()
    products = centred_products(rows, reference, 2)
    np.testing.assert_array_equal(rows, before)
    dense = rows.astype(np.float64)
    np.testing.assert_allclose(products.centred, dense @ dense.T, atol=1e-3)
    np.testing.assert_allclose(products.with_reference, dense @ reference.astype(np.float64), atol=1e-3)
    assert products.reference_square == pytest.approx(float(reference.astype(np.float64) @ reference), rel=1e-6)
    assert not products.centred[[2, 5]].any()
    assert products.with_reference[2] == products.with_reference[5] == 0


def test_full_precision_is_asked_for_and_given_back() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = True
    together = Barrier(3, timeout=20)

    def use(_: int) -> bool:
        with full_precision("cuda"):
            together.wait()
            seen = matmul.allow_tf32
            together.wait()
        return seen

    try:
        with full_precision("cpu"):
            assert matmul.allow_tf32
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(use, range(3))) == [False] * 3
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_multiplies_as_exactly_as_the_processor_does() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((50, 8192)).astype(np.float32)
    rows[3] = 0
    rows[20] = rows[10]
    reference = rng.standard_normal(8192).astype(np.float32)
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = True
    try:
        with full_precision("cuda"):
            products = centred_products(rows, reference, 3, "cuda")
    finally:
        matmul.allow_tf32 = before
    dense = rows.astype(np.float64)
    assert np.abs(products.centred - dense @ dense.T).max() < 1e-5 * 8192
    np.testing.assert_array_equal(products.centred[10], products.centred[20])
