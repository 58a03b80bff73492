"""Random numbers that belong to columns: the same whatever pieces a round is read in.

Columns are dealt out in pages of fixed length, and every page has a generator of its own, seeded with what the numbers
are for and the page's place.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE_COLUMNS = 65_536

Page = Callable[[int], NDArray[Any]]


def page_columns(page: Page, start: int, stop: int) -> NDArray[Any]:
    """Numbers of the columns `start` to `stop`, (stop - start,); `page` makes those of one page, (PAGE_COLUMNS,)."""
    first, last = start // PAGE_COLUMNS, -(-stop // PAGE_COLUMNS)
    numbers = page(first) if last - first == 1 else np.concatenate([page(index) for index in range(first, last)])
    return numbers[start - first * PAGE_COLUMNS : stop - first * PAGE_COLUMNS]


def signs(seed: int, start: int, stop: int) -> NDArray[np.float32]:
    """A fair sign for every column."""
    return page_columns(lambda page: _sign_page(seed, page), start, stop)


def gaussian(seed: tuple[int, ...], start: int, stop: int) -> NDArray[np.float64]:
    """Standard normal noise for every column."""

    def draw(page: int) -> NDArray[np.float64]:
        return np.random.default_rng((*seed, 2, page)).standard_normal(PAGE_COLUMNS)

    return page_columns(draw, start, stop)


@lru_cache(maxsize=8)
def _sign_page(seed: int, page: int) -> NDArray[np.float32]:
    """Asked for by every block of a page, so kept."""
    bits = np.unpackbits(np.random.default_rng((seed, 1, page)).integers(0, 256, PAGE_COLUMNS // 8, dtype=np.uint8))
    drawn = np.float32(1) - np.float32(2) * bits.astype(np.float32)
    drawn.flags.writeable = False
    return drawn
