"""A small round is kept in memory and written when it is whole: a file built at once costs far less than its parts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.storage import Beginning, RoundStorage, WrittenRow

MOST_BYTES: Final = 4 * 2**20  # of rows and vectors in memory; a round that has more is written as its rows come


class GatheredRound:
    """The round of a new file: in memory while it is small, in `storage` from then on. With the methods of the latter.

    Raises OSError where it cannot be written: of a small round, in `finish`.
    """

    def __init__(self, storage: RoundStorage, beginning: Beginning, *, row_bytes: int) -> None:
        self._storage = storage
        self._rows: list[NDArray[np.generic]] = []
        vectors = sum(vector.nbytes for vector in beginning.vectors.values())
        self._most_rows = (MOST_BYTES - vectors) // row_bytes
        self._beginning: Beginning | None = None  # while the round is in memory
        if beginning.expected_rows > self._most_rows:
            storage.begin(beginning)
            return
        copies = {name: vector.copy() for name, vector in beginning.vectors.items()}  # the caller may change its own
        self._beginning = replace(beginning, vectors=copies)
        storage.begin_in_memory(self._beginning)

    def write_row(self, index: int, row: NDArray[np.generic]) -> None:
        """Take a copy of the row (n_parameters,), of the stored type, as `index`: one more than there are."""
        if self._beginning is not None and index >= self._most_rows:
            self._spill(self._beginning)
        if self._beginning is not None:
            self._rows.append(row.copy())
        else:
            self._storage.write_row(index, row)

    def move_row(self, source: int, target: int) -> None:
        """Copy a row over another one."""
        if self._beginning is not None:
            self._rows[target] = self._rows[source]
        else:
            self._storage.move_row(source, target)

    def finish(self, rows: Sequence[WrittenRow]) -> None:
        """Write what is known at the end, of the first `len(rows)` rows, and all that was kept in memory."""
        if self._beginning is not None:
            self._storage.write_whole(self._beginning, self._rows[: len(rows)], rows)
        else:
            self._storage.finish(rows)

    def _spill(self, beginning: Beginning) -> None:
        """Go on in the file."""
        rows, self._rows, self._beginning = self._rows, [], None
        self._storage.begin(replace(beginning, expected_rows=2 * len(rows)))
        for index, row in enumerate(rows):
            self._storage.write_row(index, row)
