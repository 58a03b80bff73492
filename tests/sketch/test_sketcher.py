"""Sketches of a stored run are the same from every engine, in the order asked for, and read no more than they must."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from encagg_cli.errors import RoundNotFound, UnusableInput, UsageError
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import (
    ArraySource,
    Block,
    GramNeed,
    Header,
    Need,
    Progress,
    RoundSketch,
    Sketcher,
    sketch_round,
    sketch_run,
    sketcher,
)
from encagg_cli.sketch.needs import Partial, SquaresNeed
from encagg_cli.sketch.tasks import Share, StoredTask, compute_sums, open_source


@dataclass(frozen=True)
class SumNeed(Need):
    """(n,) sums of all values, and of the vectors that the round has."""

    uses_raw = True
    vectors = frozenset({"global_model", "last_step"})

    def partial(self, block: Block, header: Header) -> Partial:
        assert block.raw is not None
        return {
            "rows": block.raw.sum(axis=1, dtype=np.float64),
            **{name: np.asarray(vector.sum(dtype=np.float64)) for name, vector in block.vectors.items()},
        }

    def total(self, sums: Partial, header: Header) -> Partial:
        return sums


NEEDS: tuple[Need, ...] = (GramNeed(), SumNeed())


def same(one: Sequence[RoundSketch], other: Sequence[RoundSketch]) -> bool:
    return all(
        a.number == b.number
        and a.clients == b.clients
        and a.gram.centred.tobytes() == b.gram.centred.tobytes()
        and a.gram.with_reference.tobytes() == b.gram.with_reference.tobytes()
        and all(a[SumNeed()][name].tobytes() == b[SumNeed()][name].tobytes() for name in a[SumNeed()])
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def expected(run: Run) -> list[RoundSketch]:
    return list(sketch_run(run, NEEDS, workers=1, cache="none"))


def test_a_stored_round_and_the_same_round_in_memory_have_the_same_sketch(  # type: ignore[no-untyped-def]
    run: Run, expected: list[RoundSketch], updates_of
) -> None:
    for number, sketch in enumerate(expected):
        ids = [f"client-{row:02d}" for row in range(7)]
        held = ArraySource(updates_of(number, 7, 200_000), ids, np.arange(7) == 2, number)
        gram = sketch_round(held, [GramNeed()]).gram
        assert sketch.gram.centred.tobytes() == gram.centred.tobytes()
        assert sketch.gram.norms.tobytes() == gram.norms.tobytes()
        assert list(sketch.header.num_examples) == [10 * row for row in range(7)]


@pytest.mark.parametrize("workers", [None, 2, 3])
def test_any_number_of_workers_gives_the_same_bits(run: Run, expected: list[RoundSketch], workers: int | None) -> None:
    assert same(list(sketch_run(run, NEEDS, workers=workers, cache="none")), expected)


@pytest.mark.parametrize("memory", ["40MB", "100MB", "4GiB"])
def test_any_memory_limit_gives_the_same_bits(run: Run, expected: list[RoundSketch], memory: str) -> None:
    assert same(list(sketch_run(run, NEEDS, memory=memory, cache="none")), expected)


@pytest.mark.parametrize(
    "stored", [{"compression": "gzip"}, {"stored_type": "float16"}, {"stored_type": "bfloat16", "compression": "gzip"}]
)
def test_rounds_stored_otherwise_are_read_as_well(store, tmp_path: Path, stored: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    odd = store(tmp_path / "run", rounds=1, parameters=300_000, **stored)
    with odd.round(0) as round_:
        values = round_.rows(range(7))[::-1]
    (found,) = sketch_run(odd, [GramNeed()], cache="none")
    dense = values.astype(np.float64)
    np.testing.assert_allclose(found.gram.inner, dense @ dense.T, rtol=1e-5, atol=1e-5 * found.gram.norms.max() ** 2)


def test_rounds_come_in_the_order_asked_for(run: Run) -> None:
    assert [sketch.number for sketch in sketch_run(run, NEEDS, rounds=[2, 0], cache="none")] == [2, 0]
    assert list(sketch_run(run, NEEDS, rounds=[], cache="none")) == []
    with pytest.raises(RoundNotFound):
        list(sketch_run(run, NEEDS, rounds=[0, 7], cache="none"))


def test_the_last_step_is_that_from_the_round_before(expected: list[RoundSketch]) -> None:
    models = [np.random.default_rng((12, n)).standard_normal(200_000).astype(np.float32) for n in range(3)]
    assert "last_step" not in expected[0][SumNeed()]
    for number in (1, 2):
        step = (models[number] - models[number - 1]).sum(dtype=float)
        assert expected[number][SumNeed()]["last_step"] == pytest.approx(step, rel=1e-9)
        assert expected[number][SumNeed()]["global_model"] == pytest.approx(models[number].sum(dtype=float), rel=1e-9)


def test_one_round_at_a_time_is_the_same_as_a_stream(run: Run, expected: list[RoundSketch]) -> None:
    with Sketcher(run, cache="none") as sketcher:
        assert same([sketcher(run.round(number), NEEDS) for number in run.rounds], expected)


def test_calls_that_were_expected_are_answered_from_a_stream(run: Run, expected: list[RoundSketch]) -> None:
    with Sketcher(run, cache="none") as sketcher:
        sketcher.expect(run.rounds, [GramNeed()])
        found = [sketcher(run.round(number), NEEDS) for number in run.rounds]
    assert same(found, expected)


def test_a_source_that_is_not_of_the_run_is_sketched_where_it_is(run: Run, updates_of) -> None:  # type: ignore[no-untyped-def]
    held = ArraySource(updates_of(9, 3, 100), ["a", "b", "c"], np.zeros(3, dtype=bool), 0)
    with Sketcher(run, cache="none") as sketcher:
        assert sketcher(held, [GramNeed()]).clients == ("a", "b", "c")


def test_a_round_of_another_run_is_not_taken_for_one_of_this(run: Run, store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = store(tmp_path / "other", rounds=1, seed=5)
    with Sketcher(run, cache="none") as sketcher:
        found = sketcher(other.round(0), [GramNeed()])
    assert found.gram.centred.tobytes() == sketch_round(other.round(0), [GramNeed()]).gram.centred.tobytes()


def test_progress_counts_rounds_and_bytes_to_the_end(run: Run) -> None:
    seen: list[Progress] = []
    list(sketch_run(run, NEEDS, cache="none", progress=seen.append))
    assert seen[-1] == Progress(3, 3, 3 * 7 * 200_000 * 4, 3 * 7 * 200_000 * 4)
    assert [step.bytes for step in seen] == sorted(step.bytes for step in seen)
    assert all(step.bytes <= step.n_bytes and step.n_rounds == 3 for step in seen)


def test_a_worker_killed_in_mid_round_changes_nothing(run: Run, expected: list[RoundSketch]) -> None:
    killed: list[int] = []

    def kill(step: Progress) -> None:
        if not killed and 0 < step.bytes < step.n_bytes:
            (victim, *_) = multiprocessing.active_children()
            assert victim.pid is not None
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join(10)

    found = list(sketch_run(run, NEEDS, workers=2, cache="none", progress=kill))
    assert killed
    assert same(found, expected)


def test_a_stream_may_be_left_early(run: Run) -> None:
    stream = sketch_run(run, NEEDS, workers=2, cache="none")
    assert next(stream).number == 0
    stream.close()  # type: ignore[attr-defined]


def test_a_round_without_finite_updates_takes_its_place_in_the_stream(tmp_path: Path) -> None:
    from encagg_cli.rounds.layout import Parameter
    from encagg_cli.rounds.writer import RoundWriter

    for number, value in ((0, 1.0), (1, np.nan), (2, 2.0)):
        writer = RoundWriter(tmp_path / "run", number, session="s", parameters=(Parameter("update", (70_000,), 0),))
        for client in "ab":
            writer.add(client, np.full(70_000, value))
        writer.close()
    found = list(sketch_run(Run.open(tmp_path / "run"), [GramNeed()], cache="none"))
    assert [(sketch.number, sketch.clients, sketch.non_finite) for sketch in found] == [
        (0, ("a", "b"), ()),
        (1, (), ("a", "b")),
        (2, ("a", "b"), ()),
    ]


def test_a_file_that_is_cut_short_is_said_so(store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = store(tmp_path / "run", rounds=1)
    stored = run.round(0)
    path = stored.shards[0].path
    with Sketcher(run, cache="none") as sketcher:
        stream = sketcher.rounds(None, [SquaresNeed()])
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        with pytest.raises(UnusableInput):
            next(stream)


def test_a_worker_does_not_take_another_round_for_the_one_that_was_planned(run: Run) -> None:
    task = StoredTask(Share(0, 1, 1), str(run.path), 0, "sha256:" + 64 * "0", NEEDS, "cpu")
    with pytest.raises(UnusableInput, match="round 0 is not what it was when the command began"):
        compute_sums(task)


def test_a_device_that_is_not_there_is_refused(run: Run) -> None:
    import torch

    with pytest.raises(UsageError, match="no device 'tpu'"):
        Sketcher(run, device="tpu")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            Sketcher(run, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="needs a CUDA device")
def test_a_gpu_agrees_within_float32(run: Run, expected: list[RoundSketch]) -> None:
    for found, sketch in zip(sketch_run(run, NEEDS, device="cuda", cache="none"), expected, strict=True):
        scale = np.sqrt(np.outer(np.diag(sketch.gram.deviations), np.diag(sketch.gram.deviations)))
        assert np.abs(found.gram.deviations - sketch.gram.deviations).max() < sketcher.GPU_TOLERANCE * scale.max()


def test_a_sketcher_leaves_blas_as_it_was(run: Run) -> None:
    from threadpoolctl import threadpool_info

    before = threadpool_info()
    with Sketcher(run, cache="none") as sketcher:
        sketcher.expect(run.rounds, NEEDS)
        sketcher(run.round(0), NEEDS)
        assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
    assert threadpool_info() == before


def test_a_file_that_is_replaced_between_the_plan_and_the_reading_is_noticed(store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = store(tmp_path / "run", rounds=1)
    other = store(tmp_path / "other", rounds=1, seed=5)
    source = open_source(run, 0)
    other.round(0).shards[0].path.replace(run.round(0).shards[0].path)
    with pytest.raises(UnusableInput, match="was replaced while it was read"):
        source.read_rows(np.arange(7), 0, 10, np.empty((7, 10), dtype=np.float32))
