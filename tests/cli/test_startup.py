"""The command line answers at once: nothing heavy is loaded before a command needs it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "sklearn", "scipy", "pyarrow", "h5py", "numpy", "pandas")


def loaded_by(code: str) -> set[str]:
    probe = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in printed.splitlines()}


@pytest.mark.parametrize("arguments", [["--help"], ["filter", "--help"], ["--version"], ["score", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    modules = loaded_by(f"from encagg_cli.cli import main; main({arguments!r})")
    assert "typer" in modules
    assert not modules & set(HEAVY)


def test_recording_loads_neither_typer_nor_rich_nor_torch() -> None:
    modules = loaded_by("import encagg_cli; encagg_cli.Recorder")
    assert "h5py" in modules
    assert not modules & {"typer", "rich", "torch", "sklearn", "pyarrow"}


def test_record_outside_a_capture_loads_nothing_at_all() -> None:
    modules = loaded_by("import encagg_cli; encagg_cli.record(1, 'client', [1.0]); encagg_cli.end_round()")
    assert not modules & {*HEAVY, "typer", "rich"}
