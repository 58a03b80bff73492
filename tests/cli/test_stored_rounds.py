"""`encagg inspect`, `encagg pack` and `encagg prune`."""

import json
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.cli import main

MODEL = {"conv.weight": np.ones((10, 10)), "fc.bias": np.zeros(3)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Rounds 1, 2, 3, 6 and 7, with labels, a non-finite upload in round 6, and an unfinished round 8."""
    path = tmp_path / "run"
    chance = np.random.default_rng(0)
    with Recorder(path, trusted=["h-1", "h-2"]) as recorder:
        for number in (1, 2, 3, 6, 7):
            with recorder.round(number, global_model=MODEL) as stored:
                for client in range(5):
                    update = {name: chance.standard_normal(values.shape) for name, values in MODEL.items()}
                    stored.add(f"h-{client}", update, poisoned=client == 4, attack="lie" if client == 4 else "")
                if number == 6:
                    stored.add("bad\x1b[31m", {name: values * np.nan for name, values in MODEL.items()})
    (path / "round-000008.h5.partial").write_bytes(b"left")
    return path


def damage(run: Path, number: int) -> None:
    path, offset = Run.open(run).round(number).row_offsets()[2]  # type: ignore[index]
    with path.open("r+b") as file:
        file.seek(offset + 5)
        file.write(b"\xaa\xaa\xaa")


def inspected(capsys, *arguments: str) -> dict:
    assert main(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_inspect_tells_what_a_run_holds(run: Path, capsys):
    document = inspected(capsys, str(run))

    assert document["schema"] == "encagg-inspect-1"
    assert [item["round"] for item in document["rounds"]] == [1, 2, 3, 6, 7]
    assert document["missing_rounds"] == [[4, 5]]
    assert document["interrupted"] == ["round-000008.h5.partial"]
    assert document["being_written"] == []
    assert document["parameters"]["count"] == 103
    assert document["parameters"]["tensors"][1] == {"name": "fc.bias", "shape": [3], "role": "output"}
    assert document["clients"] == ["bad\x1b[31m", "h-0", "h-1", "h-2", "h-3", "h-4"]
    assert document["trusted"] == ["h-1", "h-2"]
    sixth = document["rounds"][3]
    assert (sixth["clients"], sixth["trusted"], sixth["poisoned"], sixth["honest"]) == (6, 2, 1, 4)
    assert (sixth["unlabelled"], sixth["attacks"], sixth["non_finite"]) == (1, {"lie": 1}, ["bad\x1b[31m"])
    assert (sixth["dtype"], sixth["update_kind"], sixth["global_model"]) == ("float32", "delta", True)
    assert sixth["digest"] == Run.open(run).round(6).digest
    assert document["bytes"] == sum(path.stat().st_size for path in run.glob("round-*.h5"))


@pytest.mark.parametrize("verify", [[], ["--verify"]])
def test_the_table_fits_80_columns_and_hides_no_control_characters(run: Path, capsys, monkeypatch, verify):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["inspect", str(run), *verify]) == 0
    out = capsys.readouterr().out

    assert max(map(len, out.splitlines())) <= 80 + len(str(run))
    assert "\x1b" not in out
    assert "bad\\x1b[31m in round 6" in out
    assert "rounds 4 to 5" in out
    assert "round-000008.h5.partial" in out


@pytest.mark.parametrize("width", [32, 50, 66])
def test_on_a_narrow_terminal_the_table_leaves_columns_out(run: Path, capsys, set_columns, width: int):
    set_columns(width)
    assert main(["inspect", str(run)]) == 0
    table = capsys.readouterr().out.partition("round   clients")[2].splitlines()
    assert len(table) > 3
    assert max(map(len, table[1:])) <= width
    assert not any("…" in line for line in table)
    assert "(too narrow for: digest" in "".join(table)


def test_a_round_in_progress_is_told_from_an_interrupted_one(tmp_path: Path, capsys):
    with Recorder(tmp_path / "run") as recorder:
        with recorder.round(1) as stored:
            stored.add("a", MODEL)
        stored = recorder.round(2)
        stored.add("a", MODEL)
        recorder.background.submit(lambda: None).wait()

        document = inspected(capsys, str(tmp_path / "run"))
        stored.close()

    assert document["being_written"] == ["round-000002.h5.partial"]
    assert document["interrupted"] == []


def test_verify_names_every_damaged_round_and_exits_with_4(run: Path, capsys):
    damage(run, 2)
    (run / "round-000006.h5").write_bytes((run / "round-000006.h5").read_bytes()[:9000])
    (run / "round-000001.h5").write_text("not ours")

    assert main(["inspect", str(run), "--verify", "--json"]) == 4

    captured = capsys.readouterr()
    problems = {item["round"]: item["problem"] for item in json.loads(captured.out)["rounds"] if item["problem"]}
    assert problems.keys() == {1, 2, 6}
    assert "client 'h-2': its update is damaged" in problems[2]
    assert "3 of 5 rounds cannot be used: 1, 2, 6" in captured.err


def test_without_verify_only_what_cannot_be_read_at_all_is_found(run: Path, capsys):
    damage(run, 2)
    assert main(["inspect", str(run)]) == 0
    assert main(["inspect", str(run), "--verify"]) == 4


@pytest.mark.parametrize(("make", "code"), [(False, 4), (True, 5)])
def test_inspect_of_nothing(tmp_path: Path, capsys, make: bool, code: int):
    if make:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "round-000001.h5.partial").write_bytes(b"")
    assert main(["inspect", str(tmp_path / "run")]) == code
    assert ("only what is unfinished: round-000001.h5.partial" in capsys.readouterr().err) == make


def test_rounds_that_are_recorded_every_so_often_are_not_missing(tmp_path: Path, capsys):
    with Recorder(tmp_path / "run", every=5) as recorder:
        for number in (5, 10, 20):
            with recorder.round(number) as stored:
                stored.add("a", MODEL)

    assert inspected(capsys, str(tmp_path / "run"))["missing_rounds"] == [[15, 15]]


def test_a_packed_run_is_inspected_as_its_folder_is(run: Path, tmp_path: Path, capsys):
    assert main(["pack", str(run), str(tmp_path / "one.h5")]) == 0
    assert "5 rounds" in capsys.readouterr().err
    folder, packed = inspected(capsys, str(run)), inspected(capsys, str(tmp_path / "one.h5"), "--verify")

    assert packed["packed"]
    for one, other in zip(packed["rounds"], folder["rounds"], strict=True):
        different = {"files", "bytes"}
        assert {k: v for k, v in one.items() if k not in different} == {
            k: v for k, v in other.items() if k not in different
        }


def test_pack_replaces_a_file_only_when_forced(run: Path, tmp_path: Path):
    (tmp_path / "one.h5").write_text("mine")
    assert main(["pack", str(run), str(tmp_path / "one.h5")]) == 2
    assert (tmp_path / "one.h5").read_text() == "mine"
    assert main(["pack", str(run), str(tmp_path / "one.h5"), "--force"]) == 0
    assert main(["pack", str(run), str(tmp_path / "no" / "one.h5")]) == 6


def test_prune_removes_the_oldest_rounds_and_what_is_unfinished(run: Path, capsys):
    kept = (run / "round-000007.h5").read_bytes()
    assert main(["prune", str(run), "--keep-last", "2", "--yes", "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert document["rounds"] == [1, 2, 3]
    assert str(run / "round-000008.h5.partial") in document["files"]
    assert sorted(path.name for path in run.glob("round-*")) == ["round-000006.h5", "round-000007.h5"]
    assert (run / "round-000007.h5").read_bytes() == kept


def test_a_dry_run_says_what_would_go_and_removes_nothing(run: Path, capsys):
    before = sorted(run.iterdir())
    assert main(["prune", str(run), "--keep-last", "3", "--dry-run"]) == 0

    captured = capsys.readouterr()
    assert "round-000001.h5" in captured.out
    assert "round-000003.h5" not in captured.out
    assert "3 rounds would go" in captured.err
    assert sorted(run.iterdir()) == before


def test_prune_removes_nothing_where_nobody_can_answer(run: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    before = sorted(run.iterdir())
    assert main(["prune", str(run), "--keep-last", "1"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize(("answer", "left"), [("n\n", 6), ("y\n", 1)])
def test_prune_asks(run: Path, monkeypatch, answer: str, left: int):
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["prune", str(run), "--keep-last", "1"]) == 0
    assert len(list(run.glob("round-*"))) == left


def test_prune_does_not_touch_a_round_that_is_being_written(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder:
        stored = recorder.round(1)
        stored.add("a", MODEL)
        recorder.background.submit(lambda: None).wait()
        assert main(["prune", str(tmp_path / "run"), "--keep-last", "0", "--yes"]) == 0
        stored.close()

    assert Run.open(tmp_path / "run").rounds == (1,)


@pytest.mark.parametrize("keep", ["-1", "x"])
def test_prune_refuses_what_is_no_count(run: Path, keep: str):
    assert main(["prune", str(run), "--keep-last", keep, "--yes"]) == 2


def test_a_packed_file_is_not_pruned(run: Path, tmp_path: Path):
    assert main(["pack", str(run), str(tmp_path / "one.h5")]) == 0
    assert main(["prune", str(tmp_path / "one.h5"), "--keep-last", "1", "--yes"]) == 2
