"""What a picture of a decision needs, in a file: `--trace TRACE.h5` (radius, pseudo-gradients, both planes).

`/rounds/000012/METHOD/NAME`, one dataset a figure; `clients` holds the ids that planes are aligned with.
"""

from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from encagg_cli.filters import Decision
from encagg_cli.outputs import published
from encagg_cli.verdicts.replay import RoundVerdicts

FORMAT = "encagg-trace"
FORMAT_VERSION = 1


class TraceWriter:
    """Writes traces round by round; the file appears when the writer is closed without an exception."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self._publication = published(path, force=force)
        self._file = h5py.File(self._publication.__enter__(), "w")
        self._file.attrs["format"] = FORMAT
        self._file.attrs["format_version"] = FORMAT_VERSION

    def add(self, verdicts: RoundVerdicts) -> None:
        """Keep the traces of all methods on one round."""
        for method, decision in verdicts.decisions.items():
            self._add(verdicts.number, method, decision)

    def _add(self, number: int, method: str, decision: Decision) -> None:
        group = self._file.require_group(f"rounds/{number:06d}").create_group(method.replace("/", "∕"))
        group.create_dataset("clients", data=list(decision.clients), dtype=h5py.string_dtype())
        if decision.plane is not None:
            group.create_dataset("plane", data=decision.plane)
        for name, value in decision.trace.items():
            values = np.asarray(value)
            text = values.dtype.kind in "UO"
            group.create_dataset(
                name, data=values.astype(object) if text else values, dtype=h5py.string_dtype() if text else None
            )

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        finally:
            self._publication.__exit__(kind, error, trace)
