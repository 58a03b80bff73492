"""Sizes are read in one place, and a pass is made to fit its limit or refused with the least that would do."""

import numpy as np
import pytest

from encagg_cli.engine import available_cores
from encagg_cli.errors import UsageError
from encagg_cli.sketch import ArraySource, GramNeed
from encagg_cli.sketch.blocks import BLOCK_COLUMNS, tile_columns
from encagg_cli.sketch.compute import make_plan
from encagg_cli.sketch.memory import ROOM, Costs, format_size, make_budget, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512_000_000),
        ("512mb", 512_000_000),
        ("1.5GiB", 3 * 2**29),
        ("2 G", 2_000_000_000),
        ("800k", 800_000),
        ("16KiB", 16_384),
        ("1TB", 10**12),
        ("4096", 4096),
        ("4096B", 4096),
        (123, 123),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "five", "5XB", "-5MB", "5MBit", "1e3MB", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="as a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(512_000_000, "512MB"), (1_234_567, "1.3MB"), (3 * 10**9, "3GB"), (999, "999B"), (1001, "1.1kB")]
)
def test_sizes_are_written_so_that_they_can_be_read_back_and_suffice(size: int, text: str) -> None:
    assert format_size(size) == text
    assert parse_size(text) >= size


class _Shape:
    """A round of so many clients and parameters, of which nothing is read."""

    number = 3
    parameters = ()

    def __init__(self, n: int, d: int) -> None:
        self.n_parameters = d
        self.client_ids = [f"{row:05d}" for row in range(n)]
        self.norms = np.ones(n)
        self.trusted = np.zeros(n, dtype=bool)
        self.num_examples = np.full(n, -1)

    def read_columns(self, start: int, stop: int, out: object) -> None:
        raise AssertionError("nothing should be read")


def costs_of(n: int, d: int) -> Costs:
    return Costs.of_sketch(make_plan(_Shape(n, d), [GramNeed()]))  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "d"), [(2, 10), (20, 10**6), (100, 2 * 10**7), (1000, 10**8), (2000, 10**9)])
@pytest.mark.parametrize("in_process", [True, False])
def test_ordinary_rounds_fit_the_default_limit(n: int, d: int, in_process: bool) -> None:
    budget = make_budget(costs_of(n, d), parse_size("512MB"), 2, in_process=in_process)
    assert budget.least <= parse_size("512MB")
    assert 1 <= budget.at_a_time <= BLOCK_COLUMNS // tile_columns(n)
    assert 0 < budget.share <= ROOM


def test_more_memory_is_used_to_read_more_at_once() -> None:
    costs = costs_of(1000, 10**7)
    small, large = (make_budget(costs, parse_size(size), 2, in_process=True) for size in ("220MB", "4GB"))
    assert small.at_a_time < large.at_a_time
    assert small.least == large.least


def test_too_little_is_refused_with_the_least_that_would_do() -> None:
    costs = costs_of(5000, 10**6)
    with pytest.raises(UsageError, match="round 3 of 5000 clients cannot be filtered in 512MB") as refusal:
        make_budget(costs, parse_size("512MB"), 2, in_process=True)
    assert refusal.value.hint is not None
    least = refusal.value.hint.split()[1]
    budget = make_budget(costs, parse_size(least), 2, in_process=True)
    assert budget.share == ROOM  # one task at a time
    with pytest.raises(UsageError):
        make_budget(costs, budget.least - 1, 2, in_process=True)


def test_compressed_rows_are_read_a_whole_block_at_a_time_where_there_is_room() -> None:
    budget = make_budget(costs_of(100, 10**6), parse_size("1GB"), 2, in_process=True, unfolded=10**8)
    assert budget.at_a_time * tile_columns(100) == BLOCK_COLUMNS


def test_what_compressed_rows_unfold_to_is_counted_for_every_process() -> None:
    costs = costs_of(100, 10**7)
    limit = parse_size("512MB")
    plain, threads, processes = (
        make_budget(costs, limit, 2, in_process=in_process, unfolded=unfolded)
        for in_process, unfolded in ((True, None), (True, 10**8), (False, 10**8))
    )
    assert threads.least - plain.least == 10**8
    assert processes.share >= threads.share
    with pytest.raises(UsageError):
        make_budget(costs, limit, 2, in_process=True, unfolded=limit)


def test_small_rounds_go_several_blocks_at_a_time_but_leave_enough_for_every_worker() -> None:
    many = make_budget(costs_of(2, 10**8), parse_size("512MB"), 2, in_process=False)
    few = make_budget(costs_of(2, 5 * BLOCK_COLUMNS), parse_size("512MB"), 2, in_process=False)
    assert many.blocks_per_task > 8
    assert few.blocks_per_task == 1


def test_array_sources_of_many_blocks_are_sketched_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from encagg_cli.sketch import sketch_round

    seen = set()
    read = ArraySource.read_rows

    def noted(self, *arguments):  # type: ignore[no-untyped-def]
        seen.add(threading.get_ident())
        read(self, *arguments)

    monkeypatch.setattr(ArraySource, "read_rows", noted)
    updates = np.random.default_rng(0).standard_normal((20, 20 * BLOCK_COLUMNS), dtype=np.float32)
    sketch_round(ArraySource(updates, [f"{row}" for row in range(20)], np.zeros(20, dtype=bool)), [GramNeed()])
    assert threading.get_ident() not in seen
    assert 1 <= len(seen) <= available_cores()
