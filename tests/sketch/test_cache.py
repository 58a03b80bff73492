"""Sketches are kept beside their run, believed only while they are true, and never in the way."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encagg_cli.errors import OutputError
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import GramNeed, Need, Progress, RoundSketch, Sketcher, cache, sketch_run
from encagg_cli.sketch.needs import SquaresNeed
from encagg_cli.sketch.stored import StoredSource

NEEDS: tuple[Need, ...] = (GramNeed(), SquaresNeed())


@pytest.fixture
def stored(store, tmp_path: Path) -> Run:  # type: ignore[no-untyped-def]
    run: Run = store(tmp_path / "run", rounds=2, parameters=70_000)
    return run


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Numbers of the rounds whose updates are read."""
    seen: list[int] = []
    read = StoredSource.read_rows

    def noted(self, rows, start, stop, out):  # type: ignore[no-untyped-def]
        seen.append(self.number)
        read(self, rows, start, stop, out)

    monkeypatch.setattr(StoredSource, "read_rows", noted)
    return seen  # type: ignore[return-value]


def sketches(run: Run, needs: tuple[Need, ...] = NEEDS, setting: cache.CacheSetting = "beside") -> list[RoundSketch]:
    return list(sketch_run(run, needs, cache=setting))


def folder_of(run: Run) -> Path:
    return run.path / cache.FOLDER


def test_what_was_computed_is_not_read_again(stored: Run, reads: list[int]) -> None:
    first = sketches(stored)
    assert set(reads) == {0, 1}
    reads.clear()
    seen: list[Progress] = []
    second = list(sketch_run(stored, NEEDS, progress=seen.append))
    assert reads == []
    assert seen[-1] == Progress(2, 2, 0, 0)
    for one, two in zip(first, second, strict=True):
        assert one.gram.centred.tobytes() == two.gram.centred.tobytes()
        assert one.header.clients == two.header.clients
        np.testing.assert_array_equal(one[SquaresNeed()], two[SquaresNeed()])


def test_a_further_need_is_all_that_is_computed(stored: Run, reads: list[int]) -> None:
    sketches(stored, (GramNeed(),))
    before = {path.name: path.stat().st_mtime_ns for path in folder_of(stored).iterdir()}
    reads.clear()
    found = sketches(stored, NEEDS)
    assert set(reads) == {0, 1}
    assert found[0].gram.norms.shape == (7,)
    assert found[0][SquaresNeed()].shape == (7,)
    after = {path.name: path.stat().st_mtime_ns for path in folder_of(stored).iterdir()}
    assert before.items() < after.items()


def test_kept_sketches_are_their_owners_alone(stored: Run) -> None:
    sketches(stored)
    assert stat.S_IMODE(folder_of(stored).stat().st_mode) == 0o700
    files = list(folder_of(stored).iterdir())
    assert len(files) == 4
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 and path.suffix == ".npz" for path in files)


def test_a_packed_file_keeps_its_sketches_beside_it(stored: Run, reads: list[int], tmp_path: Path) -> None:
    from encagg_cli.rounds.pack import pack

    packed = tmp_path / "packed.h5"
    list(pack(stored, packed))
    run = Run.open(packed)
    first = sketches(run)
    reads.clear()
    second = sketches(run)
    assert reads == []
    assert (tmp_path / cache.FOLDER / "packed.h5").is_dir()
    assert [one.gram.centred.tobytes() for one in first] == [two.gram.centred.tobytes() for two in second]


def test_a_file_that_was_touched_is_read_again(stored: Run, reads: list[int]) -> None:
    sketches(stored)
    os.utime(stored.path / "round-000001.h5", ns=(0, 12345))
    reads.clear()
    sketches(stored)
    assert set(reads) == {1}


def test_a_round_that_was_replaced_is_read_again_even_where_size_and_time_are_the_same(  # type: ignore[no-untyped-def]
    stored: Run, store, reads: list[int], tmp_path: Path
) -> None:
    old = sketches(stored)
    path = stored.path / "round-000000.h5"
    before = path.stat()
    store(tmp_path / "other", rounds=1, parameters=70_000, seed=99)
    (tmp_path / "other" / "round-000000.h5").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    reads.clear()
    new = sketches(Run.open(stored.path))
    assert set(reads) == {0}
    assert old[0].gram.centred.tobytes() != new[0].gram.centred.tobytes()


def damage_cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damage_flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def damage_empty(data: bytes) -> bytes:
    return b""


def damage_other(data: bytes) -> bytes:
    return b"not a sketch at all" * 50


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_empty, damage_other])
def test_a_damaged_sketch_is_noticed_and_made_again(stored: Run, reads: list[int], damage) -> None:  # type: ignore[no-untyped-def]
    first = sketches(stored, (GramNeed(),))
    for path in folder_of(stored).glob("round-000001-*"):
        path.write_bytes(damage(path.read_bytes()))
    reads.clear()
    second = sketches(stored, (GramNeed(),))
    assert set(reads) == {1}
    assert first[1].gram.centred.tobytes() == second[1].gram.centred.tobytes()
    reads.clear()
    sketches(stored, (GramNeed(),))
    assert reads == []


def test_a_pickle_in_a_sketch_is_not_opened(stored: Run, reads: list[int], tmp_path: Path) -> None:
    sketches(stored, (GramNeed(),))
    (path,) = folder_of(stored).glob("round-000001-*")

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(path, centred=np.array([Bomb()], dtype=object))
    reads.clear()
    sketches(stored, (GramNeed(),))
    assert set(reads) == {1}
    assert not (tmp_path / "exploded").exists()


def test_sketches_of_another_version_are_made_again(
    stored: Run, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sketches(stored)
    monkeypatch.setattr(cache, "SKETCH_VERSION", cache.SKETCH_VERSION + 1)
    reads.clear()
    sketches(stored)
    assert set(reads) == {0, 1}


def test_a_folder_of_ones_own_is_kept_to(stored: Run, reads: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "sketches"
    sketches(stored, setting=folder)
    assert not folder_of(stored).exists()
    reads.clear()
    sketches(stored, setting=folder)
    assert reads == []


def test_no_cache_means_none(stored: Run) -> None:
    sketches(stored, setting="none")
    assert not folder_of(stored).exists()


def test_a_folder_that_cannot_be_made_is_an_output_error(stored: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot keep sketches"):
        Sketcher(stored, cache=tmp_path / "file" / "sketches")


def test_a_run_that_cannot_be_written_to_is_filtered_without_a_cache(
    stored: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored.path / cache.FOLDER).touch()  # in the way of the folder: root may write anywhere else
    with Sketcher(stored) as sketcher:
        found = list(sketcher.rounds(None, NEEDS))
        assert sketcher.kept is not None
        assert sketcher.kept.problem is not None
        assert "sketches are not kept" in sketcher.kept.problem
    assert [sketch.number for sketch in found] == [0, 1]


def test_a_disk_that_is_full_costs_the_cache_alone(stored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert len(sketches(stored)) == 2
    assert list(folder_of(stored).iterdir()) == []


def test_a_round_written_to_while_it_is_read_is_not_kept(stored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read = StoredSource.read_rows

    def touched(self, rows, start, stop, out):  # type: ignore[no-untyped-def]
        read(self, rows, start, stop, out)
        os.utime(self.files(needs_before=False)[0], ns=(start, start + 77))

    monkeypatch.setattr(StoredSource, "read_rows", touched)
    sketches(stored, (GramNeed(),))
    assert not folder_of(stored).exists()
