"""What a command says that was given the wrong thing."""

from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Recorder
from encagg_cli.cli import main
from encagg_cli.kinds import refuse_suffix

FIXTURES = Path(__file__).parents[1] / "fixtures"
COMMANDS_ON_RUNS = (
    ["filter", "{}", "-o", "new.parquet"],
    ["inspect", "{}"],
    ["attack", "{}", "-o", "new", "--attack", "lie"],
    ["bench", "{}", "-o", "new.parquet"],
    ["pack", "{}", "new.h5"],
    ["prune", "{}", "--keep-last", "1", "--yes"],
    ["score", "verdicts.parquet", "--run", "{}"],
)
COMMANDS_ON_VERDICTS = (["score", "{}"], ["report", "{}", "-o", "new.html"])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds one of each kind."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/second1"):
        with Recorder(name) as recorder, recorder.round(0) as round_:
            round_.add("a", np.ones(3))
    (tmp_path / "spool" / "round-0001").mkdir(parents=True)
    np.save(tmp_path / "spool" / "round-0001" / "a.npy", np.ones(3))
    (tmp_path / "other" / "data1").mkdir(parents=True)
    (tmp_path / "verdicts.parquet").write_bytes((FIXTURES / "digits.verdicts.parquet").read_bytes())
    (tmp_path / "packed.h5").write_bytes((FIXTURES / "digits.h5").read_bytes())
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS_ON_RUNS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("path", "what", "hint"),
    [
        ("spool", "spool is a spool, not a run", "import it: encagg capture RUN --from spool"),
        ("runs", "runs is a folder of runs, not a run", "name one of them: runs/first, runs/second1"),
        ("verdicts.parquet", "is a Parquet file, not a run", "encagg score verdicts.parquet"),
    ],
)
def test_what_is_no_run(
    place: Path, capsys: pytest.CaptureFixture[str], command: list[str], path: str, what: str, hint: str
) -> None:
    before = sorted(place.iterdir())
    assert main([argument.format(path) for argument in command]) == 4
    complaint = capsys.readouterr().err.splitlines()
    assert what in complaint[0]
    assert hint in complaint[1]
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS_ON_VERDICTS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("path", "what", "hint"),
    [
        ("runs/first", "is a run, not a file of verdicts", "encagg filter runs/first -o verdicts.parquet"),
        ("packed.h5", "is an HDF5 file", "encagg filter packed.h5 -o verdicts.parquet"),
        ("runs", "is a folder of runs", "runs/first"),
        ("spool", "is a spool", "encagg capture RUN --from spool"),
        ("other", "is a folder", "encagg filter RUN -o FILE"),
    ],
)
def test_what_is_no_verdicts(
    place: Path, capsys: pytest.CaptureFixture[str], command: list[str], path: str, what: str, hint: str
) -> None:
    assert main([argument.format(path) for argument in command]) == 4
    complaint = capsys.readouterr().err.splitlines()
    assert what in complaint[0]
    assert hint in complaint[1]
    assert not (place / "new.html").exists()


def test_a_folder_of_anything_else_holds_no_round(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", str(place / "other"), "-o", "new.parquet"]) == 5
    assert "holds no round" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["report", "verdicts.parquet", "-o", "r.pdf"],
        ["pack", "runs/first", "one.parquet"],
        ["bench", "runs/first", "-o", "b.csv"],
    ],
)
def test_an_output_is_not_named_like_another_format(place: Path, command: list[str]) -> None:
    before = sorted(place.iterdir())
    assert main(command) == 2
    assert sorted(place.iterdir()) == before


def test_another_name_of_the_same_format_is_fine(place: Path) -> None:
    assert main(["pack", "runs/first", "one.hdf5"]) == 0
    assert main(["inspect", "one.hdf5"]) == 0
    refuse_suffix(Path("r.htm"), "a report is HTML", ".html")
