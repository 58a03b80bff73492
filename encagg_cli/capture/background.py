"""Between training and the disk: a bounded number of rows on their way, and one thread that writes them."""

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SMALL_BYTES: Final = 8 * 2**20  # small rows may wait in greater number
_MOST_ROWS: Final = 64


class RowBuffers:
    """Buffers for rows on their way to the disk: two, so that one is filled while the other is written.

    Of rows so small that more of them fit into 8 MiB, up to 64. Whoever wants one while all are on their way waits:
    training is held to the speed of the disk, instead of memory growing.
    """

    def __init__(self, length: int, dtype: np.dtype[np.generic]) -> None:
        self._length = length
        self._dtype = dtype
        self.count = max(2, min(_MOST_ROWS, _SMALL_BYTES // max(1, length * dtype.itemsize)))
        self._slots = threading.Semaphore(self.count)
        self._free: list[NDArray[np.generic]] = []

    def take(self) -> NDArray[np.generic]:
        """An uninitialised row (length,); waits until there is one."""
        self._slots.acquire()
        try:
            return self._free.pop() if self._free else np.empty(self._length, dtype=self._dtype)
        except BaseException:
            self._slots.release()
            raise

    def hold(self, count: int) -> None:
        """Count so many vectors on their way as rows, as far as at least one row remains."""
        for _ in range(min(count, self.count - 1)):
            self._slots.acquire()

    def release(self, count: int) -> None:
        """They have arrived."""
        for _ in range(min(count, self.count - 1)):
            self._slots.release()

    def give_back(self, row: NDArray[np.generic]) -> None:
        self._free.append(row)
        self._slots.release()
