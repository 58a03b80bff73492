"""The filtered aggregates, in a file: `--aggregate AGG.h5`, one more pass over each round for all methods together.

`/rounds/000012/METHOD` is one float32 vector, in the order of `/parameters`, which are those of the run.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters import Decision, Filter
from encagg_cli.outputs import published, writing
from encagg_cli.rounds.hdf5 import write_parameters
from encagg_cli.rounds.layout import round_group_name
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import Sketcher
from encagg_cli.sketch.pages import gaussian
from encagg_cli.sketch.stored import LAST_STEP, StoredSource
from encagg_cli.sketch.tasks import open_source
from encagg_cli.verdicts.replay import RoundVerdicts

FORMAT: Final = "encagg-aggregates"
FORMAT_VERSION: Final = 1
NOISE_SEED: Final = 0
NON_FINITE: Final = "non-finite"

_PIECE: Final = (
    250  # columns that a rule combines at a time: a power of two between rows makes sorting them four times slower
)


@dataclass(frozen=True)
class MethodAggregates:
    """Makes every method's aggregate of some columns, less priors and noise; a `sketch.compute.Combiner`.

    weights  (linear methods, n) coefficients of the finite uploads in id order
    rules    the other methods, each with its decision on those uploads
    order    for every method in turn, its row among those of the linear methods and then the rules
    """

    weights: NDArray[np.float64]
    rules: tuple[tuple[Filter, Decision], ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, methods: Mapping[str, Filter], decisions: Mapping[str, Decision]) -> "MethodAggregates":
        """Gather what the methods decided on one round, where each has at least one finite upload."""
        linear: list[NDArray[np.float64]] = []
        rules: list[tuple[Filter, Decision]] = []
        places: list[tuple[bool, int]] = []
        for text, chosen in methods.items():
            decision = _on_finite(decisions[text])
            if chosen.aggregate == "linear":
                assert decision.weight is not None
                places.append((False, len(linear)))
                linear.append(decision.weight)
            else:
                places.append((True, len(rules)))
                rules.append((chosen, decision))
        order = tuple(len(linear) + index if is_rule else index for is_rule, index in places)
        return cls(np.array(linear), tuple(rules), order)

    @property
    def outputs(self) -> int:
        return len(self.order)

    def combine(self, values: NDArray[np.float32], start: int) -> NDArray[np.float64]:
        made = np.empty((self.outputs, values.shape[1]))
        linear = len(self.weights)
        if linear:
            weighed = (self.weights != 0).any(axis=0)  # an absurd upload that nobody takes must not cost the others
            made[:linear] = self.weights[:, weighed] @ values[weighed].astype(np.float64)
        for first in range(0, values.shape[1] if self.rules else 0, _PIECE):
            piece = np.ascontiguousarray(values[:, first : first + _PIECE])
            for index, (chosen, decision) in enumerate(self.rules, linear):
                made[index, first : first + _PIECE] = chosen.combine(decision, piece, start + first)
        return made[list(self.order)]


class AggregateWriter:
    """Writes aggregates round by round; the file appears when the writer is closed without an exception."""

    def __init__(
        self, path: Path, run: Run, sketcher: Sketcher, methods: Mapping[str, Filter], *, force: bool = False
    ) -> None:
        """Raises OutputExists and OutputError."""
        self._path = path
        self._run = run
        self._sketcher = sketcher
        self._methods = methods
        self._before: int | None = None
        self._publication = published(path, force=force)
        self._file = h5py.File(self._publication.__enter__(), "w")
        self._file.attrs["format"] = FORMAT
        self._file.attrs["format_version"] = FORMAT_VERSION
        write_parameters(self._file.id, run.parameters)

    def add(self, verdicts: RoundVerdicts) -> None:
        """Make all methods' aggregates of one round; rounds come in the order in which they were judged.

        A round without any finite upload has aggregates of zeros. Raises UsageError where a method builds on its own
        aggregate of the round before, and that is not in this file; OutputError where the disk is full.
        """
        source = open_source(self._run, verdicts.number)
        with closing(source), writing(self._path):
            group = self._file.create_group(f"rounds/{round_group_name(verdicts.number)}")
            made = {text: group.create_dataset(_name(text), (source.n_parameters,), "<f4") for text in self._methods}
            if np.isfinite(source.norms).any():
                combiner = MethodAggregates.of(self._methods, verdicts.decisions)
                for start, values in self._sketcher.columns(source, combiner):
                    for text, columns in zip(self._methods, values, strict=True):
                        columns += self._further(source, text, verdicts.decisions[text], start, len(columns))
                        with np.errstate(over="ignore"):  # an aggregate may be beyond float32, as the rule has it
                            made[text][start : start + len(columns)] = columns.astype(np.float32)
        self._before = verdicts.number

    def _further(
        self, source: StoredSource, text: str, decision: Decision, start: int, count: int
    ) -> NDArray[np.float64]:
        """What some columns of a method's aggregate have beside the updates: a prior, and noise."""
        further = np.zeros(count)
        if decision.prior_weight:
            prior = self._last_step if decision.prior == "last_step" else self._own
            further += decision.prior_weight * prior(source, text, start, count).astype(np.float64)
        if decision.noise:
            further += decision.noise * gaussian((NOISE_SEED, source.number), start, start + count)
        return further

    def _last_step(self, source: StoredSource, text: str, start: int, count: int) -> NDArray[np.float32]:
        step = np.empty(count, dtype=np.float32)
        source.read_vector(LAST_STEP, start, start + count, step)
        return step

    def _own(self, source: StoredSource, text: str, start: int, count: int) -> NDArray[np.float32]:
        if self._before is None:
            raise UsageError(
                f"round {source.number}: the aggregate of {text} builds on its own of the round before, which is not "
                "among these rounds",
                hint="filter the rounds before as well, or leave out --state",
            )
        before = self._file[f"rounds/{round_group_name(self._before)}/{_name(text)}"]
        own: NDArray[np.float32] = before[start : start + count]
        return own

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        finally:
            self._publication.__exit__(kind, error, trace)


def _on_finite(decision: Decision) -> Decision:
    """The decision on the finite uploads alone, in id order."""
    finite = (client for client, word in zip(decision.clients, decision.reason, strict=True) if word != NON_FINITE)
    return decision.in_order(sorted(finite))


def _name(method: str) -> str:
    """A method's canonical text as a name within a group."""
    return method.replace("/", "∕")
