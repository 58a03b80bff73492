"""What the README shows is true: its commands exist and run, its Python compiles and runs, its pipeline gates."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.cli import app, main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [(language, text) for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]

# What makes a command small enough for a test; it is put before the README's own arguments.
TINY = {
    "bench": "--attack lie --ratio 0.2 --method encagg --method mean --workers 1",
    "simulate": "--clients 10 --rounds 2",
}

TRAIN = """
import os
import numpy as np
import encagg_cli

rng = np.random.default_rng(0)
direction = rng.standard_normal(300)
for round_number in range(3):
    for number in range(1, 21):
        poisons = number > 14 and not os.environ.get("HONEST")
        update = (-2 if poisons else 1) * direction + 0.3 * rng.standard_normal(300)
        encagg_cli.record(round_number, f"hospital-{number}", update, poisoned=poisons, attack="lie" * poisons)
"""

BEFORE_RECORDING = """
import torch
from encagg_cli import record

torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
round_number, client_id, update = 1, "client-0", {"weight": torch.ones(2, 3), "bias": torch.ones(2)}

class trainer:
    @staticmethod
    def train():
        with torch.no_grad():
            for tensor in model.parameters():
                tensor += 1
"""


def blocks(*languages: str, containing: str = "") -> list[str]:
    return [text for language, text in BLOCKS if language in languages and containing in text]


def lines(block: str) -> list[str]:
    """The commands of a shell block, continued ones as one."""
    joined = block.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def encagg_commands(line: str) -> list[list[str]]:
    """The arguments of each `encagg` in a line of shell, without what the shell itself reads."""
    tokens = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    tokens.whitespace_split = True
    commands: list[list[str]] = [[]]
    for token in tokens:
        if re.fullmatch(r"[&|;<>]+", token):
            commands.append([])
        else:
            commands[-1].append(token)
    return [command[1:] for command in commands if command[:1] == ["encagg"]]


def in_pipelines() -> list[str]:
    """Lines of shell within the settings of CI systems."""
    found = []
    for block in blocks("yaml", "groovy"):
        for line in block.splitlines():
            found += re.findall(r"(encagg .*?)'?$", line.strip())
    return found


SHELL_LINES = [line for block in blocks("sh") for line in lines(block)] + in_pipelines()
COMMANDS = [command for line in SHELL_LINES for command in encagg_commands(line)]


def group() -> Any:
    import typer

    return typer.main.get_command(app)


# --- the text --------------------------------------------------------------------------------------------------------


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 15
    assert len(blocks("python")) >= 4


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_a_command_is_understood_by_the_command_line(command: list[str]) -> None:
    """Parsed and converted as for real, not run: a flag that does not exist, or misses its value, is an error."""
    name, *arguments = command
    group().commands[name].make_context(name, arguments)


@pytest.mark.parametrize("text", sorted(set(re.findall(r"`encagg ([a-z][^`\n]*)`", README))))
def test_a_command_in_the_prose_exists_with_its_flags(text: str) -> None:
    name, *rest = shlex.split(text)
    known = {option for parameter in group().commands[name].params for option in parameter.opts}
    own = rest[: rest.index("--")] if "--" in rest else rest
    assert {option.partition("=")[0] for option in own if option.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`(--[a-z][a-z-]+)", README))))
def test_a_flag_in_the_prose_exists(flag: str) -> None:
    known = {
        option for command in group().commands.values() for parameter in command.params for option in parameter.opts
    }
    known |= {option for parameter in group().params for option in parameter.opts} | {"--help"}
    assert flag in known


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|fixtures|encagg_cli|\.ci)/[\w./-]+)`", README))))
def test_a_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("block", blocks("python"))
def test_python_compiles(block: str) -> None:
    compile(block, "README.md", "exec")


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's train.py, in which `encagg` and `python` are those of these tests."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "train.py").write_text(TRAIN)
    (folder / "bin").mkdir()
    for name, command in (("encagg", f"{shlex.quote(sys.executable)} -m encagg_cli"), ("python", sys.executable)):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    return folder


def bash(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1", **variables}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_block(containing: str, folder: Path, **variables: str) -> str:
    """Run the one shell block that contains this, without installing anything; what it printed."""
    (block,) = blocks("sh", containing=containing)
    script = "\n".join(line for line in lines(block) if not line.startswith("pip "))
    for name, options in TINY.items():
        script = script.replace(f"encagg {name} ", f"encagg {name} {options} ")
    done = bash(script, folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def captured(workplace: Path) -> Path:
    """The first step."""
    run_block("-- python train.py", workplace)
    return workplace


@pytest.fixture(scope="module")
def filtered(captured: Path) -> Path:
    """The second step."""
    run_block("encagg filter runs/mnist -o verdicts.parquet\n", captured)
    return captured


def test_capture_records_what_train_py_hands_over(captured: Path) -> None:
    with Run.open(captured / "runs" / "mnist") as run:
        assert run.rounds == (0, 1, 2)
        stored = run.round(0)
        trusted = [client for client, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag]
    assert trusted == ["hospital-1", "hospital-2"]


def test_filter_writes_a_row_for_every_upload_and_method(filtered: Path) -> None:
    assert len(pd.read_parquet(filtered / "verdicts.parquet")) == 3 * 20
    compared = pd.read_parquet(filtered / "compared.parquet")
    assert compared.groupby("method", observed=True).size().to_dict() == {
        "anchored-views": 60,
        "encagg": 60,
        "multi-krum(f=8)": 60,
    }


def test_score_passes_the_gates_that_these_attackers_cannot_miss(filtered: Path) -> None:
    assert "recall" in run_block("encagg score verdicts.parquet   ", filtered)


def test_report_is_written(filtered: Path) -> None:
    if importlib.util.find_spec("vl_convert") is None:
        pytest.skip("a report needs vl-convert-python")
    run_block("encagg report", filtered)
    assert "<html" in (filtered / "report.html").read_text(encoding="utf-8")[:1000]


def test_red_teaming_on_honest_rounds(workplace: Path) -> None:
    honest = "encagg capture runs/honest --trusted hospital-1,hospital-2 -- python train.py"
    assert bash(honest, workplace, HONEST="1").returncode == 0
    run_block("encagg attack runs/honest", workplace)
    with Run.open(workplace / "runs" / "poisoned") as run:
        assert {name for stored in run for name in stored.attack if name} <= {"lie", "min-max(noise=1.0)", "min-max"}
    assert set(pd.read_parquet(workplace / "bench.parquet")["method"]) >= {"encagg", "mean"}
    with Run.open(workplace / "runs" / "sim") as run:
        assert len(run) == 2


# --- Python ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [block for block in blocks("python") if re.search(r"\brecord\(", block)])
def test_recording_in_a_loop_of_ones_own(workplace: Path, tmp_path: Path, block: str) -> None:
    (tmp_path / "loop.py").write_text(f"{BEFORE_RECORDING}\n{block}")
    done = bash(f"encagg capture {tmp_path}/run -- python {tmp_path}/loop.py", workplace)

    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(Run.open(tmp_path / "run").round(1).rows([0]), np.ones((1, 8)), atol=1e-6)


def test_recording_in_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Client:
        id, n = "hospital-1", 5

        def train(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
            return {name: torch.ones_like(values) for name, values in model.state_dict().items()}

    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python", containing="with Recorder(")
    exec(block, {"rounds": 2, "model": torch.nn.Linear(3, 2), "clients": [Client()]})

    with Run.open("runs/mnist") as run:
        assert run.rounds == (0, 1)
        np.testing.assert_array_equal(run.round(1).rows([0]), np.ones((1, 8)))


def test_filters_on_arrays() -> None:
    (block,) = blocks("python", containing="filters.get(")
    names: dict[str, Any] = {"updates": np.random.default_rng(0).standard_normal((9, 50)).astype(np.float32)}
    exec(block, names)
    assert len(names["decision"].accepted) == 9


# --- the pipeline ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline() -> str:
    """What GitHub Actions runs."""
    (block,) = blocks("yaml", containing="- run: |\n")
    body = block.partition("- run: |\n")[2]
    return "\n".join(line.strip() for line in body.splitlines())


@pytest.mark.parametrize("visible", [True, False])
def test_the_pipeline_gates(workplace: Path, tmp_path: Path, pipeline: str, visible: bool) -> None:
    rng = np.random.default_rng(1)
    direction = rng.standard_normal(200)
    trusted = [f"client-{number:02d}" for number in range(5)]
    with Recorder(tmp_path / "runs" / "nightly", trusted=trusted) as recorder:
        for round_number in range(12):
            with recorder.round(round_number) as stored:
                for number in range(20):
                    poisons = number >= 14
                    update = (-3 if poisons and visible else 1) * direction + 0.2 * rng.standard_normal(200)
                    stored.add(f"client-{number:02d}", update, poisoned=poisons, attack="lie" * poisons)

    (tmp_path / "bin").symlink_to(workplace / "bin")
    done = bash(pipeline, tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))

    verdicts = pd.read_parquet(tmp_path / "verdicts.parquet")
    counted = verdicts[~verdicts["trusted"]]
    rejected = (~counted["accepted"]).groupby(counted["poisoned"].astype(bool)).mean()
    passes = rejected[True] >= 0.9 and rejected[False] <= 0.05
    assert done.returncode == (0 if passes else 3), done.stdout + done.stderr
    assert ("::error" in done.stdout + done.stderr) == (not passes)
    assert (rejected[True] >= 0.9) == visible
    assert "recall" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_a_recipe_in_the_readme_is_one_that_bench_knows(capsys: pytest.CaptureFixture[str]) -> None:
    from encagg_cli.bench.recipes import RECIPES

    named = {command[index + 1] for command in COMMANDS for index, part in enumerate(command) if part == "--recipe"}
    assert named <= {"all", *RECIPES}
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    methods = {
        command[i + 1].partition("(")[0] for command in COMMANDS for i, part in enumerate(command) if part == "--method"
    }
    assert all(method in listed for method in methods)
