"""How much memory a pass takes, and how it is made to fit a limit: one place for sizes."""

import re
from dataclasses import dataclass

from encagg_cli.errors import UsageError
from encagg_cli.sketch.blocks import BLOCK_COLUMNS, tile_columns
from encagg_cli.sketch.compute import Plan

DEFAULT_MEMORY = "512MB"

_UNITS = {
    "": 1,
    "B": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]I?|)B?\s*", re.IGNORECASE)

_PIECE_BYTES = 8 * 2**20  # read at a time by one worker, where there is room: the processor's cache holds it
_PIECE_COLUMNS = 16_384  # … but no less than this of a row, or reading it is all overhead
_BLAS_BYTES = 16 * 2**20  # of OpenBLAS's own, for every thread that multiplies
_TASK_BYTES = 32 * 2**20  # of updates in one task: small rounds go several blocks at a time


def parse_size(size: int | str) -> int:
    """Bytes, from a number or from text such as 512MB, 1.5GiB or 800k; raises UsageError."""
    if isinstance(size, int):
        return size
    match = _SIZE.fullmatch(size)
    if match is None:
        raise UsageError(f"cannot read {size!r} as a size", hint="write it as 512MB or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_size(size: float) -> str:
    """Bytes for people, in powers of 1000, rounded up to three digits or so."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{-(-size // (factor / 10)) / 10:g}{unit}"
    return f"{size:g}B"


@dataclass(frozen=True)
class Costs:
    """What a pass over a round takes beside the columns that it reads, in bytes.

    result   what comes of a block, and is on its way to whoever adds it up
    kept     what there is once: the sums over all blocks, the figures made of them
    working  what a worker needs while it looks at one tile
    """

    plan: Plan
    result: int
    kept: int
    working: int

    @classmethod
    def of_sketch(cls, plan: Plan) -> "Costs":
        """Of computing the plan's needs."""
        width = tile_columns(len(plan.header.clients))
        held = sum(need.held_bytes(plan.header) for need in plan.needs)
        figures = sum(need.figure_bytes(plan.header) for need in plan.needs)
        working = max((need.working_bytes(plan.header, width) for need in plan.needs), default=0)
        raw = 4 * len(plan.header.clients) * width if plan.rows.keep_raw else 0
        return cls(plan, held, held + figures, working + raw)

    @classmethod
    def of_columns(cls, plan: Plan, outputs: int) -> "Costs":
        """Of combining columns: `outputs` numbers a column, made from float64 copies of the tile."""
        n = len(plan.header.clients)
        return cls(plan, 8 * outputs * BLOCK_COLUMNS, 0, 8 * 4 * n * tile_columns(n))


@dataclass(frozen=True)
class Budget:
    """How a pass over one round is made within the limit.

    at_a_time        tiles that a worker reads at once
    blocks_per_task  blocks that make one task
    share            how much of `ROOM` each task takes: tasks under way or waiting to be fetched
    least            bytes that no setting could do without
    waiting          bytes of results that may be about while nobody fetches any
    """

    at_a_time: int
    blocks_per_task: int
    share: int
    least: int
    waiting: int


ROOM = 2**20  # shares of memory that are given out to tasks


def make_budget(
    costs: Costs,
    limit: int,
    workers: int,
    *,
    in_process: bool,
    unfolded: int | None = None,
    comfortable: int | None = None,
) -> Budget:
    """Fit a pass into `limit` bytes. Raises UsageError, naming the least that would do, where nothing fits.

    `unfolded`: rows are compressed, so that reading less than a block's columns at once costs as much as reading the
    block, and a process keeps so many bytes of them. Up to `comfortable` bytes (the limit, if not given) are taken for
    speed alone.
    """
    plan = costs.plan
    n = max(1, len(plan.header.clients))
    width = tile_columns(n)
    tiles = BLOCK_COLUMNS // width
    copies = 1 if in_process else 3  # a result of another process is there, on its way, and here
    comfortable = limit if comfortable is None else comfortable

    def total(at_a_time: int, blocks: int, tasks: int) -> int:
        worker = 4 * n * width * at_a_time + costs.working + _BLAS_BYTES
        processes = 1 if in_process else min(tasks, workers)
        shared = costs.kept + processes * (unfolded or 0)
        return shared + min(tasks, workers) * worker + tasks * copies * blocks * costs.result

    least = total(1, 1, 1)
    if least > limit:
        raise UsageError(
            f"round {plan.header.number} of {n} clients cannot be filtered in {format_size(limit)}",
            hint=f"--memory {format_size(least)} is the least that would do",
        )
    at_a_time = min(tiles, max(1, _PIECE_BYTES // (4 * n * width), _PIECE_COLUMNS // width))
    if unfolded is not None:
        at_a_time = tiles
    while at_a_time > 1 and total(at_a_time, 1, workers) > comfortable:
        at_a_time = max(1, at_a_time // 2)
    blocks = max(1, min(_TASK_BYTES // (4 * n * BLOCK_COLUMNS), -(-plan.n_blocks // (4 * workers))))
    while blocks > 1 and total(at_a_time, blocks, 2 * workers) > comfortable:
        blocks //= 2
    tasks = 1
    while tasks < 2 * workers and total(at_a_time, blocks, tasks + 1) <= comfortable:
        tasks += 1
    return Budget(
        at_a_time=at_a_time,
        blocks_per_task=blocks,
        share=-(-ROOM // tasks),
        least=least,
        waiting=costs.kept + tasks * copies * blocks * costs.result,
    )
