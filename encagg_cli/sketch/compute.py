"""One streaming pass over a round's columns, from which every filter is answered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.sketch.gram import Gram
from encagg_cli.sketch.needs import Block, GramNeed, Header, Need
from encagg_cli.sketch.source import ColumnSource

BLOCK_COLUMNS = 65_536  # fixed: sums are the same whoever computes them, in whatever pieces

# Rows whose norm is within 2^±this of the reference's share its scale, so that ordinary rounds are not rescaled.
_ORDINARY_EXPONENT = 16

T = TypeVar("T")


@dataclass(frozen=True)
class RoundSketch:
    """A round, reduced to what the filters asked for.

    `header.clients` are the clients with finite updates, in id order, and every figure is aligned with them;
    `non_finite` are the ids of the others, which take part in nothing.
    """

    header: Header
    non_finite: tuple[str, ...]
    figures: Mapping[Need, Any] = field(repr=False)

    def __getitem__(self, need: Need) -> Any:
        return self.figures[need]

    @property
    def gram(self) -> Gram:
        gram: Gram = self.figures[GramNeed()]
        return gram

    @property
    def clients(self) -> tuple[str, ...]:
        return self.header.clients

    @property
    def number(self) -> int:
        return self.header.number


def sketch_round(source: ColumnSource, needs: Iterable[Need]) -> RoundSketch:
    """Read `source` once, in blocks of `BLOCK_COLUMNS` columns, and compute all `needs`.

    Raises UnusableInput where the stored norms disagree with the updates (a damaged or forged round).
    """
    needs = tuple(dict.fromkeys(needs))
    header, rows, non_finite = plan(source)
    sums: dict[Need, dict[str, NDArray[np.float64]]] = {need: {} for need in needs}
    if len(rows) and needs:
        buffer = np.empty((len(source.client_ids), min(BLOCK_COLUMNS, source.n_parameters)), dtype=np.float32)
        for start in range(0, source.n_parameters, BLOCK_COLUMNS):
            stop = min(start + BLOCK_COLUMNS, source.n_parameters)
            block = read_block(source, header, rows, start, stop, buffer[:, : stop - start])
            for need in needs:
                accumulate(sums[need], need.partial(block, header))
    figures = {need: need.total(sums[need], header) for need in needs} if len(rows) else {}
    return RoundSketch(header, non_finite, figures)


def accumulate(sums: dict[str, NDArray[np.float64]], partial: Mapping[str, NDArray[np.float64]]) -> None:
    for name, value in partial.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value


def plan(source: ColumnSource) -> tuple[Header, NDArray[np.intp], tuple[str, ...]]:
    """The header, the source's row indices of the finite clients in id order, and the ids of the others."""
    order = np.array(sorted(range(len(source.client_ids)), key=lambda row: source.client_ids[row]), dtype=np.intp)
    finite = np.isfinite(source.norms)
    rows = order[finite[order]]
    norms = source.norms[rows]
    trusted = source.trusted[rows]
    reference = _reference_row(norms, trusted)
    header = Header(
        number=source.number,
        clients=tuple(source.client_ids[row] for row in rows),
        norms=norms,
        trusted=trusted,
        num_examples=source.num_examples[rows],
        parameters=tuple(source.parameters),
        n_parameters=source.n_parameters,
        reference=reference,
        exponents=_exponents(norms, reference),
    )
    return header, rows, tuple(source.client_ids[row] for row in order if not finite[row])


def read_block(
    source: ColumnSource,
    header: Header,
    rows: NDArray[np.intp],
    start: int,
    stop: int,
    buffer: NDArray[np.float32],
) -> Block:
    """Columns `start` to `stop`, of finite clients in id order, scaled and centred; `buffer` is used for reading."""
    source.read_columns(start, stop, buffer)
    values = buffer[rows]
    reference_exponent = int(header.exponents[header.reference])
    raw_reference = values[header.reference].copy()
    for exponent in np.unique(header.exponents):
        same = header.exponents == exponent
        reference = np.ldexp(raw_reference, -int(exponent))
        if same.all():
            np.ldexp(values, -int(exponent), out=values)
            values -= reference
        else:
            values[same] = np.ldexp(values[same], -int(exponent)) - reference
    if not np.isfinite(values).all():
        raise UnusableInput(f"round {header.number}: an update holds values that its stored norm does not account for")
    return Block(start, stop, values, np.ldexp(raw_reference, -reference_exponent))


def _reference_row(norms: NDArray[np.float64], trusted: NDArray[np.bool_]) -> int:
    """The row of median norm among the run's known-benign clients, or among all where there is none."""
    candidates = np.flatnonzero(trusted) if trusted.any() else np.arange(len(norms))
    if not len(candidates):
        return 0
    return int(candidates[np.argsort(norms[candidates], kind="stable")[(len(candidates) - 1) // 2]])


def _exponents(norms: NDArray[np.float64], reference: int) -> NDArray[np.int64]:
    """Exponents `e_i` such that `2^-e_i (g_i - r)` has a norm of about 1 or less."""
    if not len(norms):
        return np.zeros(0, dtype=np.int64)
    largest = np.maximum(norms, norms[reference])
    exponents = np.frexp(np.where(largest > 0, largest, 1.0))[1].astype(np.int64)
    ordinary = np.abs(exponents - exponents[reference]) <= _ORDINARY_EXPONENT
    exponents[ordinary] = exponents[reference]
    return exponents
