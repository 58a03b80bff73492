"""What every command has in common: exit codes, closed pipes, tracebacks."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from encagg_cli import console
from encagg_cli.cli import COMMANDS, main

FIXTURE = Path(__file__).parents[2] / "fixtures" / "digits.verdicts.parquet"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_gate_fails_whoever_reads_its_output(options: list[str]) -> None:
    command = [sys.executable, "-m", "encagg_cli", "score", str(FIXTURE), "--min-recall", "0.99", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as gate:
        assert gate.stdout is not None
        gate.stdout.close()  # nobody reads: as in `encagg score … | true`
        _, complaint = gate.communicate()
    assert gate.returncode == 3
    assert b"Traceback" not in complaint


def test_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["filter", str(tmp_path / "nothing"), "-o", str(tmp_path / "v.parquet")]
    assert main(arguments) == main(["--debug", *arguments]) == main([*arguments, "--debug"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_without_a_command_there_is_help_and_no_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) in (0, 2)  # older releases of typer say 0
    captured = capsys.readouterr()
    assert "capture" in captured.out + captured.err
    assert "encagg: " not in captured.err


@pytest.mark.parametrize(("number", "said"), [(0, "0 rounds"), (1, "1 round"), (2, "2 rounds"), (1000, "1,000 rounds")])
def test_a_count_agrees_with_its_noun(number: int, said: str) -> None:
    assert console.counted(number, "round") == said


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["capture", "run", "python", "train.py", "--lr", "1"], "put -- before it: encagg capture RUN -- COMMAND"),
        (["capture", "run", "--lr", "1"], "see encagg capture --help"),
        (["capture", "run", "--from", "spool", "--lr", "1"], "see encagg capture --help"),
        (["filter", "run", "file", "--lr"], "see encagg filter --help"),
    ],
)
def test_an_unknown_option_comes_with_a_hint(
    capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    assert main(arguments) == 2
    complaint = capsys.readouterr().err.splitlines()
    assert "No such option" in complaint[0]
    assert hint in complaint[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_example_on_one_line_of_eighty_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    docstring = inspect.cleandoc(import_module(f"encagg_cli.cli.{command}").command.__doc__)
    examples = [line.strip() for line in docstring.splitlines() if line.startswith("  encagg ")]
    assert examples
    assert main([command, "--help"]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert set(examples) <= set(shown)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in {"methods", "attacks", "demo"}])
def test_a_command_without_arguments_says_what_it_lacks(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    complaint = capsys.readouterr().err.splitlines()
    assert len(complaint) == 2
    assert "--help" in complaint[1] or "name a captured run" in complaint[1]


def test_python_without_docstrings_runs_it_all_the_same() -> None:
    program = "import sys; from encagg_cli.cli import main; sys.exit(main(['--version']))"
    done = subprocess.run([sys.executable, "-OO", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("encagg ")
