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
class Budget:
    """How one round is computed within the limit.

    at_a_time        tiles that a worker reads at once
    blocks_per_task  blocks that make one task
    share            how much of `room` each task takes: tasks under way or waiting to be fetched
    least            bytes that no setting could do without
    """

    at_a_time: int
    blocks_per_task: int
    share: int
    least: int


ROOM = 2**20  # shares of memory that are given out to tasks


def make_budget(plan: Plan, limit: int, workers: int, *, in_process: bool, whole_blocks: bool = False) -> Budget:
    """Fit a round's pass into `limit` bytes. Raises UsageError, naming the least that would do, where nothing fits.

    `whole_blocks`: reading less than a block's columns at once costs as much as reading the block (compressed rows).
    """
    n = max(1, len(plan.header.clients))
    width = tile_columns(n)
    tiles = BLOCK_COLUMNS // width
    held = sum(need.held_bytes(plan.header) for need in plan.needs)
    figures = sum(need.figure_bytes(plan.header) for need in plan.needs)
    working = max((need.working_bytes(plan.header, width) for need in plan.needs), default=0)
    copies = 1 if in_process else 3  # a result of another process is there, on its way, and here

    def worker(at_a_time: int) -> int:
        raw = width if plan.rows.keep_raw else 0
        return 4 * n * (width * at_a_time + raw) + working + _BLAS_BYTES

    def total(at_a_time: int, blocks: int, tasks: int) -> int:
        return held + figures + min(tasks, workers) * worker(at_a_time) + tasks * copies * blocks * held

    least = total(1, 1, 1)
    if least > limit:
        raise UsageError(
            f"round {plan.header.number} of {n} clients cannot be filtered in {format_size(limit)}",
            hint=f"--memory {format_size(least)} is the least that would do",
        )
    wanted = tiles if whole_blocks else min(tiles, max(1, _PIECE_BYTES // (4 * n * width), _PIECE_COLUMNS // width))
    at_a_time = wanted
    while at_a_time > 1 and total(at_a_time, 1, workers) > limit:
        at_a_time = max(1, at_a_time // 2)
    blocks = max(1, min(_TASK_BYTES // (4 * n * BLOCK_COLUMNS), -(-plan.n_blocks // (4 * workers))))
    while blocks > 1 and total(at_a_time, blocks, 2 * workers) > limit:
        blocks //= 2
    tasks = 1
    while tasks < 2 * workers and total(at_a_time, blocks, tasks + 1) <= limit:
        tasks += 1
    return Budget(at_a_time, blocks, -(-ROOM // tasks) if tasks > 1 else ROOM, least)
