"""Sketches of a stored run, round after round: planned, computed on an engine within the memory there is, kept."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.engine import EngineName, in_order, one_blas_thread, open_engine
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.rounds.encoding import stored_dtype
from encagg_cli.rounds.reader import Run, StoredRound
from encagg_cli.sketch.blocks import BLOCK_COLUMNS
from encagg_cli.sketch.cache import CacheSetting, Origin, SketchCache
from encagg_cli.sketch.compute import Combiner, Plan, RoundSketch, Sums, add_up, figures_of, make_plan, sketch_round
from encagg_cli.sketch.memory import DEFAULT_MEMORY, ROOM, Budget, Costs, make_budget, parse_size
from encagg_cli.sketch.needs import Device, GramNeed, Need
from encagg_cli.sketch.progress import Progress, Tally
from encagg_cli.sketch.source import ColumnSource
from encagg_cli.sketch.stored import LAST_STEP, StoredSource
from encagg_cli.sketch.tasks import PlannedTask, Share, StoredTask, Task, compute_columns, compute_sums, open_source

GPU_TOLERANCE = 1e-5  # by which a GPU may differ, relative to the products of the norms: float32 in another order
_CACHED_SHARE = ROOM // 4  # of the room that a round takes whose sums are all at hand


@dataclass
class _Job:
    """One round that is being computed."""

    source: StoredSource
    plan: Plan
    cached: dict[Need, Sums]
    origins: dict[Need, Origin]
    sums: list[Sums]
    blocks: int = 0

    @property
    def is_done(self) -> bool:
        return self.blocks == self.plan.n_blocks

    def bytes_of(self, blocks: int) -> int:
        """Bytes of updates in that many blocks."""
        columns = min(blocks * BLOCK_COLUMNS, self.plan.header.n_parameters)
        return len(self.plan.header.clients) * columns * stored_dtype(self.source.stored.stored_type).itemsize


@dataclass
class Sketcher:
    """Computes sketches of one run. A context manager: it holds workers, open files, and BLAS at one thread.

    Call it with a stored round of the run and some needs for one sketch. `rounds` gives a stream of sketches, computed
    ahead while the caller looks at the first ones; after `expect`, calls are answered from such a stream.

    Raises UsageError where the limit is too low (and says what would do), UnusableInput where a round is not sound.
    """

    run: Run
    memory: int | str = DEFAULT_MEMORY
    workers: int | None = None
    engine: EngineName = "local"
    scheduler: str | None = None
    device: Device = "cpu"
    cache: CacheSetting = "beside"
    progress: Callable[[Progress], None] | None = None
    _stack: ExitStack = field(default_factory=ExitStack, init=False, repr=False)
    _expected: deque[int] = field(default_factory=deque, init=False, repr=False)
    _stream: Iterator[RoundSketch] | None = field(default=None, init=False, repr=False)
    _waiting: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._limit = parse_size(self.memory)
        check_device(self.device)
        self.kept = SketchCache.of(self.run.path, self.cache)
        with ExitStack() as stack:
            stack.enter_context(one_blas_thread())
            self._engine = stack.enter_context(open_engine(self.engine, workers=self.workers, scheduler=self.scheduler))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]
            self._stream = None
        self._stack.close()

    def __call__(self, source: ColumnSource, needs: Iterable[Need]) -> RoundSketch:
        """The sketch of one round."""
        if not self._is_mine(source):
            return sketch_round(source, needs)
        needs = tuple(dict.fromkeys(needs))
        sketch = None
        if self._stream is not None and self._expected and self._expected[0] == source.number:
            self._expected.popleft()
            sketch = next(self._stream)
        missing = needs if sketch is None else tuple(need for need in needs if need not in sketch.figures)
        if sketch is not None and (not missing or not sketch.clients):
            return sketch
        more = next(self._compute((source.number,), missing, None, self._limit - self._waiting))
        return more if sketch is None else replace(more, figures={**sketch.figures, **more.figures})

    def expect(self, numbers: Iterable[int], needs: Iterable[Need]) -> None:
        """Say which rounds will be called for, in this order, with these needs at least."""
        self._expected = deque(numbers)
        # Calls in between need memory, too.
        self._stream = self._compute(
            tuple(self._expected), tuple(dict.fromkeys(needs)), self.progress, self._limit, self._limit // 2
        )

    def rounds(self, numbers: Iterable[int] | None, needs: Iterable[Need]) -> Iterator[RoundSketch]:
        """Sketches of these rounds (None: of all), in this order."""
        chosen = self.run.rounds if numbers is None else tuple(numbers)
        return self._compute(chosen, tuple(dict.fromkeys(needs)), self.progress, self._limit)

    def columns(self, source: ColumnSource, combiner: Combiner) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """One more pass over a round of this run: what the combiner makes of its columns, block by block.

        Yields the first column of each block, and (outputs, columns). Nothing, where no client's update is finite.
        """
        with closing(open_source(self.run, source.number)) as stored:
            plan = make_plan(stored, [GramNeed()])
            costs = Costs.of_columns(plan, combiner.outputs)
            tasks = self._tasks(stored, costs, self._budget(stored, costs, self._limit - self._waiting))
            for task, blocks in in_order(self._engine, partial(compute_columns, combiner), tasks, ROOM):
                assert task is not None
                for index, values in enumerate(blocks or (), task.share.first):
                    yield index * BLOCK_COLUMNS, values

    def _is_mine(self, source: ColumnSource) -> bool:
        if not isinstance(source, StoredRound) or source.number not in self.run.rounds:
            return False
        return all(self.run.path in (shard.path, shard.path.parent) for shard in source.shards)

    def _compute(
        self,
        numbers: tuple[int, ...],
        needs: tuple[Need, ...],
        report: Callable[[Progress], None] | None,
        limit: int,
        comfortable: int | None = None,
    ) -> Iterator[RoundSketch]:
        jobs: deque[_Job] = deque()
        tally = Tally(len(numbers), report)

        def tasks() -> Iterator[tuple[Task | None, int]]:
            for number in numbers:
                job = self._open(number, needs)
                jobs.append(job)
                tally.open(job.bytes_of(job.plan.n_blocks))
                if job.is_done:
                    yield None, _CACHED_SHARE
                else:
                    costs = Costs.of_sketch(job.plan)
                    budget = self._budget(job.source, costs, limit, comfortable)
                    if comfortable is not None:
                        self._waiting = max(self._waiting, budget.waiting)
                    yield from self._tasks(job.source, costs, budget)

        for _, blocks in in_order(self._engine, compute_sums, tasks(), ROOM):
            job = jobs[0]
            for partials in blocks or ():
                add_up(job.plan, job.sums, partials)
                job.blocks += 1
                tally.add(job.bytes_of(job.blocks) - job.bytes_of(job.blocks - 1))
            if job.is_done:
                jobs.popleft()
                sketch = self._finish(job)
                tally.add(rounds=1)
                yield sketch
                del sketch
            del job, blocks

    def _open(self, number: int, needs: tuple[Need, ...]) -> _Job:
        """Plan a round, and look up what is known of it."""
        source = open_source(self.run, number)
        plan = make_plan(source, needs, device=self.device)
        origins = self._origins(source, plan)
        cached: dict[Need, Sums] = {}
        if self.kept is not None and plan.n_blocks:
            found = {need: self.kept.load(origins[need], need) for need in needs}
            cached = {need: sums for need, sums in found.items() if sums is not None}
            plan = make_plan(source, (need for need in needs if need not in cached), device=self.device)
        return _Job(source, plan, cached, origins, [{} for _ in plan.needs])

    def _budget(self, source: StoredSource, costs: Costs, limit: int, comfortable: int | None = None) -> Budget:
        return make_budget(
            costs,
            limit,
            self._engine.workers,
            in_process=self._engine.in_process,
            unfolded=None if source.is_plain else source.unfolded_bytes,
            comfortable=comfortable,
        )

    def _tasks(self, source: StoredSource, costs: Costs, budget: Budget) -> Iterator[tuple[Task, int]]:
        """Shares of a round, each with the memory that it takes."""
        plan = costs.plan
        path, digest = str(self.run.path.resolve()), source.stored.digest
        for first in range(0, plan.n_blocks, budget.blocks_per_task):
            share = Share(first, min(first + budget.blocks_per_task, plan.n_blocks), budget.at_a_time)
            if self._engine.in_process:
                yield PlannedTask(share, plan), budget.share
            else:
                yield StoredTask(share, path, source.number, digest, plan.needs, self.device), budget.share

    def _finish(self, job: _Job) -> RoundSketch:
        """The figures of a round; what was computed is kept."""
        plan = job.plan
        figures = figures_of(plan, job.sums) if plan.n_blocks else {}
        for need, sums in job.cached.items():
            figures[need] = need.total(sums, plan.header)
        if self.kept is not None and plan.n_blocks:
            now = self._origins(job.source, plan)
            for need, sums in zip(plan.needs, job.sums, strict=True):
                if now[need] == job.origins.get(need):  # not if somebody wrote to the files meanwhile
                    self.kept.store(now[need], need, sums)
        job.source.close()
        return RoundSketch(plan.header, plan.non_finite, figures)

    def _origins(self, source: StoredSource, plan: Plan) -> dict[Need, Origin]:
        """What each need's sums are made from."""
        if self.kept is None:
            return {}
        digest = source.stored.digest
        try:
            made = {
                steps: Origin.of(plan.header, digest, source.files(needs_before=steps), self.device)
                for steps in (False, True)
            }
        except OSError as error:
            raise UnusableInput(f"{error.filename} is gone") from error
        return {need: made[LAST_STEP in need.vectors] for need in plan.needs}


def check_device(device: Device) -> None:
    """Raise UsageError where the device cannot be used."""
    if device not in ("cpu", "cuda"):
        raise UsageError(f"there is no device {device!r}", hint="choose from cpu, cuda")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UsageError("torch sees no CUDA device", hint="leave out --device cuda")


def sketch_run(
    run: Run,
    needs: Iterable[Need],
    *,
    rounds: Iterable[int] | None = None,
    memory: int | str = DEFAULT_MEMORY,
    workers: int | None = None,
    engine: EngineName = "local",
    scheduler: str | None = None,
    device: Device = "cpu",
    cache: CacheSetting = "beside",
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[RoundSketch]:
    """Sketches of a run's rounds (None: of all), in order; the workers live as long as the iterator."""
    with Sketcher(run, memory, workers, engine, scheduler, device, cache, progress) as sketcher:
        yield from sketcher.rounds(rounds, needs)
