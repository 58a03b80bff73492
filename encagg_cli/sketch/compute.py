"""One streaming pass over a round's columns, from which every filter is answered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import local
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encagg_cli.engine import in_order, one_blas_thread, open_engine
from encagg_cli.errors import UnusableInput
from encagg_cli.sketch.blocks import BLOCK_COLUMNS, Buffers, Rows, block_count, read_stored, read_tiles
from encagg_cli.sketch.gram import Gram
from encagg_cli.sketch.needs import Device, GramNeed, Header, Need, Partial, SquaresNeed
from encagg_cli.sketch.products import full_precision
from encagg_cli.sketch.source import ColumnSource, VectorSource

# Rows whose norm is within 2^±this of the reference's share its scale, so that ordinary rounds are not rescaled …
_ORDINARY_EXPONENT = 16
# … and where the reference's own exponent lies here, that scale is 1: float32 squares neither overflow nor vanish.
_UNSCALED_EXPONENTS = range(-16, 33)

# Stored norms may be those of the updates before they were rounded to 16 bits; float32 sums round, too.
_NORM_TOLERANCE = 0.01

_BLOCKS_FOR_THREADS = 4  # fewer are done before threads have started

Sums = dict[str, NDArray[np.float64]]

__all__ = ["BLOCK_COLUMNS", "Plan", "RoundSketch", "make_plan", "sketch_round"]


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


class Combiner(Protocol):
    """Makes columns of something else out of columns of updates: an aggregate, say."""

    @property
    def outputs(self) -> int:
        """How many numbers it makes of a column."""
        ...

    def combine(self, values: NDArray[np.float32], start: int) -> NDArray[np.float64]:
        """(outputs, c) from the finite clients' stored values in id order, (n, c), from column `start` on."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is known of a round before its columns are read: which rows take part, and for what."""

    rows: Rows
    non_finite: tuple[str, ...]
    needs: tuple[Need, ...]
    device: Device = "cpu"

    @property
    def header(self) -> Header:
        return self.rows.header

    @property
    def n_blocks(self) -> int:
        return block_count(self.header.n_parameters) if self.header.clients and self.needs else 0


def sketch_round(source: ColumnSource, needs: Iterable[Need]) -> RoundSketch:
    """Read `source` once and compute all `needs`, on all cores where there is enough to do.

    Raises UnusableInput where the stored norms disagree with the updates (a damaged or forged round).
    """
    plan = make_plan(source, needs)
    sums: list[Sums] = [{} for _ in plan.needs]
    mine = local()

    def compute(index: int) -> list[Sums]:
        if not hasattr(mine, "buffers"):
            mine.buffers = Buffers()
        return compute_block(plan, index, mine.buffers)

    with one_blas_thread():
        if plan.n_blocks < _BLOCKS_FOR_THREADS:
            for index in range(plan.n_blocks):
                add_up(plan, sums, compute(index))
        else:
            with open_engine() as engine:
                blocks = ((index, 1) for index in range(plan.n_blocks))
                for _, partials in in_order(engine, compute, blocks, 2 * engine.workers):
                    if partials is not None:
                        add_up(plan, sums, partials)
    figures = figures_of(plan, sums) if plan.n_blocks else {}
    return RoundSketch(plan.header, plan.non_finite, figures)


def make_plan(
    source: ColumnSource,
    needs: Iterable[Need],
    *,
    device: Device = "cpu",
) -> Plan:
    """Decide what is read. Needs that occur twice are computed once; one that can prove the norms is always there."""
    needs = tuple(dict.fromkeys(needs))
    if needs and not any(isinstance(need, GramNeed | SquaresNeed) for need in needs):
        needs = (*needs, SquaresNeed())
    keep_raw = any(need.uses_raw for need in needs)
    wanted = frozenset[str]().union(*(need.vectors for need in needs))
    rows, non_finite = _rows_of(source, wanted, keep_raw)
    return Plan(rows, non_finite, needs, device)


def compute_block(plan: Plan, index: int, buffers: Buffers, *, at_a_time: int = 1) -> list[Sums]:
    """Sums over one block of columns, for every need of the plan in turn. The same wherever it is computed."""
    sums: list[Sums] = [{} for _ in plan.needs]
    with one_blas_thread(), full_precision(plan.device):
        for block in read_tiles(index, plan.rows, buffers, at_a_time=at_a_time, device=plan.device):
            for need, own in zip(plan.needs, sums, strict=True):
                accumulate(own, need.partial(block, plan.header))
    return sums


def combine_block(
    plan: Plan, index: int, buffers: Buffers, combiner: Combiner, *, at_a_time: int = 1
) -> NDArray[np.float64]:
    """What a combiner makes of one block's columns, (outputs, columns)."""
    with one_blas_thread():
        tiles = read_stored(index, plan.rows, buffers, at_a_time=at_a_time)
        return np.concatenate([combiner.combine(values, start) for start, values in tiles], axis=1)


def accumulate(sums: Sums, partial: Partial) -> None:
    """Add a contribution, in float64."""
    for name, value in partial.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = np.array(value, dtype=np.float64)


def add_up(plan: Plan, sums: Sequence[Sums], partials: Sequence[Partial]) -> None:
    """Add one block's sums to those of the blocks before it; raises UnusableInput at once where they are not finite."""
    for total, partial in zip(sums, partials, strict=True):
        accumulate(total, partial)
    _, squares = _squares(plan, sums)
    bad = np.flatnonzero(~np.isfinite(squares))
    if len(bad):
        raise _untrue(plan.header, int(bad[0]), "holds values that its stored norm does not account for")


def figures_of(plan: Plan, sums: Sequence[Sums]) -> dict[Need, Any]:
    """What the sums over all blocks come to; raises UnusableInput where the stored norms are not true."""
    _check_norms(plan, sums)
    return {need: need.total(total, plan.header) for need, total in zip(plan.needs, sums, strict=True)}


def _squares(plan: Plan, sums: Sequence[Sums]) -> tuple[Sums, NDArray[np.float64]]:
    """The sums that hold the rows' squared norms, and those norms."""
    for need, total in zip(plan.needs, sums, strict=True):
        if isinstance(need, GramNeed):
            return total, np.diag(total["centred"])
        if isinstance(need, SquaresNeed):
            return total, total["squares"]
    raise AssertionError("a plan always holds a need that measures norms")


def _check_norms(plan: Plan, sums: Sequence[Sums]) -> None:
    header = plan.header
    total, squares = _squares(plan, sums)
    scale = header.scale
    reference = float(total["reference_square"]) * scale[header.reference] ** 2
    cross = total["with_reference"] * scale * scale[header.reference]
    terms = squares * scale**2 + reference
    measured = terms + 2.0 * cross
    bad = np.flatnonzero(np.abs(measured - header.norms**2) > _NORM_TOLERANCE * np.maximum(terms, header.norms**2))
    if len(bad):
        worst = int(bad[0])
        found = np.sqrt(max(measured[worst], 0.0))
        raise _untrue(header, worst, f"has norm {found:.6g}, and {header.norms[worst]:.6g} is stored")


def _untrue(header: Header, row: int, what: str) -> UnusableInput:
    return UnusableInput(
        f"round {header.number}, client {header.clients[row]}: the update {what}",
        hint="the round is damaged or forged: `encagg inspect RUN --verify` checks all of it",
    )


def _rows_of(source: ColumnSource, vectors: frozenset[str], keep_raw: bool) -> tuple[Rows, tuple[str, ...]]:
    """The finite clients' rows in id order, and the ids of the others."""
    order = np.array(sorted(range(len(source.client_ids)), key=lambda row: source.client_ids[row]), dtype=np.intp)
    all_norms = np.asarray(source.norms)
    finite = np.isfinite(all_norms)
    chosen = order[finite[order]]
    norms = all_norms[chosen]
    trusted = np.asarray(source.trusted)[chosen]
    reference = _reference_row(norms, trusted)
    header = Header(
        number=source.number,
        clients=tuple(source.client_ids[row] for row in chosen),
        norms=norms,
        trusted=trusted,
        num_examples=np.asarray(source.num_examples)[chosen],
        parameters=tuple(source.parameters),
        n_parameters=source.n_parameters,
        reference=reference,
        exponents=_exponents(norms, reference),
        update_kind=getattr(source, "update_kind", "delta"),
    )
    names = tuple(sorted(vectors & source.vector_names)) if isinstance(source, VectorSource) else ()
    return Rows(source, header, chosen, names, keep_raw), tuple(
        source.client_ids[row] for row in order if not finite[row]
    )


def _reference_row(norms: NDArray[np.float64], trusted: NDArray[np.bool_]) -> int:
    """The row of median norm among the run's known-benign clients, or among all where there is none."""
    candidates = np.flatnonzero(trusted) if trusted.any() else np.arange(len(norms))
    if not len(candidates):
        return 0
    return int(candidates[np.argsort(norms[candidates], kind="stable")[(len(candidates) - 1) // 2]])


def _exponents(norms: NDArray[np.float64], reference: int) -> NDArray[np.int64]:
    """Exponents `e_i` such that float32 holds the squares of `2^-e_i (g_i - r)`; mostly all 0."""
    if not len(norms):
        return np.zeros(0, dtype=np.int64)
    largest = np.maximum(norms, norms[reference])
    exponents = np.frexp(np.where(largest > 0, largest, 1.0))[1].astype(np.int64)
    ordinary = np.abs(exponents - exponents[reference]) <= _ORDINARY_EXPONENT
    shared = int(exponents[reference])
    exponents[ordinary] = 0 if shared in _UNSCALED_EXPONENTS else shared
    return exponents
