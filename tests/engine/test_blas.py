"""BLAS has one thread while anybody needs that, and as many as before afterwards."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from encagg_cli.engine import one_blas_thread


def blas_threads() -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_one_thread_within_and_as_many_as_before_after() -> None:
    before = blas_threads()
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_the_limit_is_lifted_when_the_last_of_several_threads_leaves() -> None:
    before = blas_threads()
    together = Barrier(4, timeout=20)

    def use(_: int) -> set[int]:
        with one_blas_thread():
            together.wait()
            seen = set(blas_threads())
            together.wait()
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(4))) == [{1}] * 4
    assert blas_threads() == before


def test_the_limit_is_lifted_after_an_error() -> None:
    before = blas_threads()
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError
    assert blas_threads() == before
