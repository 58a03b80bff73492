"""One BLAS thread a worker: a product over two threads rounds otherwise than over one.

Workers are the parallelism, so that sums are the same whatever their number.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

_lock = Lock()
_users = 0
_before: list[int] = []


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread while any user of this context is in it, whichever thread it is.

    Most BLAS libraries have one limit a process. Those built on OpenMP have one a thread, so whoever multiplies must
    be in this context itself.
    """
    global _users, _before
    shared, own = _libraries()
    own_before = _limit(own)
    with _lock:
        _users += 1
        if _users == 1:
            _before = _limit(shared)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _restore(shared, _before)
        _restore(own, own_before)


@cache
def _libraries() -> tuple[Sequence[Any], Sequence[Any]]:
    """BLAS libraries with one limit a process, and those with one a thread."""
    import numpy  # noqa: F401 - its BLAS must be there to be found
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in libraries if getattr(library, "threading_layer", "") == "openmp"]
    return [library for library in libraries if library not in own], own


def _limit(libraries: Sequence[Any]) -> list[int]:
    before = [library.num_threads for library in libraries]
    _restore(libraries, [1] * len(libraries))
    return before


def _restore(libraries: Sequence[Any], threads: Sequence[int]) -> None:
    for library, number in zip(libraries, threads, strict=True):
        # Newer threadpoolctl heeds the first thread that ever set a limit, and silently no other.
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)
        library.set_num_threads(number)
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread()
