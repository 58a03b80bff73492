"""`encagg score` as a person or a pipeline meets it: exit codes, streams, files."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import junitparser
import numpy as np
import pandas as pd
import pytest

from encagg_cli import Recorder
from encagg_cli.cli import main

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pyproject.toml of ours, no job summary of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    for name in [name for name in os.environ if name.startswith(("ENCAGG_", "GITHUB_"))]:
        monkeypatch.delenv(name)


def verdicts(*, labels: bool = True, methods: Sequence[str] = ("encagg",)) -> list[dict[str, Any]]:
    """Ten rounds of ten clients; c0 and c1 poison from round 5 on; c0 is rejected, and c9, known to be benign, too."""
    return [
        {
            "round": number,
            "client_id": f"c{client}",
            "method": method,
            "accepted": client not in (0, 9),
            "score": 0.9 if client in (0, 9) else 0.1,
            "trusted": client == 9,
            "poisoned": (client < 2 and number >= 5) if labels else None,
            "attack": ("lie", "min-max")[client] if labels and client < 2 and number >= 5 else None,
        }
        for number in range(10)
        for method in methods
        for client in range(10)
    ]


@pytest.fixture
def path(tmp_path: Path, save_verdicts: Save) -> Path:
    return save_verdicts(tmp_path / "v.parquet", verdicts())


@pytest.fixture
def unlabelled(tmp_path: Path, save_verdicts: Save) -> Path:
    return save_verdicts(tmp_path / "u.parquet", verdicts(labels=False))


# Recall 5/10, by attack 1 and 0; precision 5/10; FPR 5/80; clean FPR 5/45; rejected 10/90; AUROC 0.75.
EXITS: list[tuple[str, int]] = [
    ("", 0),
    ("--min-recall 0.5 --min-precision 0.5 --min-f1 0.5 --min-auroc 0.7 --max-fpr 0.0625", 0),
    ("--min-recall 0.51", 3),
    ("--min-recall lie=1", 0),
    ("--min-recall lie=1 --min-recall min-max=0.1", 3),
    ("--max-clean-fpr 0.12 --max-rejected 0.112 --require-rounds 10", 0),
    ("--max-clean-fpr 0.11", 3),
    ("--max-rejected 0.111", 3),
    ("--require-rounds 11", 3),
    ("--min-recall gone=0", 3),
    ("--method encagg", 0),
    ("--method flame", 2),
    ("--min-recall", 2),
    ("--min-recall 90", 2),
    ("--min-recall nan", 2),
    ("--allow-missing nan", 2),
    ("--require-rounds 0", 2),
    ("--by moon", 2),
    ("--labels a.csv --run b", 2),
    ("--labels nowhere.csv", 4),
    ("--run nowhere", 4),
    ("--max-drop 0.1", 2),
    ("--baseline v.parquet", 2),
    ("--baseline v.parquet --max-drop 0.1", 4),
    ("--baseline nowhere.json --max-drop 0.1", 4),
    ("--junit nowhere/gates.xml", 6),
    ("--junit v.parquet", 2),
]


@pytest.mark.parametrize(("options", "code"), EXITS)
def test_the_exit_code_says_what_happened(path: Path, options: str, code: int) -> None:
    assert main(["score", str(path), *options.split()]) == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("", 5),
        ("--min-recall 0.1", 5),
        ("--max-rejected 0.2", 0),
        ("--max-rejected 0.1", 3),
        ("--require-rounds 10", 0),
        ("--max-rejected 0.2 --min-recall 0.1", 3),
    ],
)
def test_without_labels_only_gates_that_need_none_can_pass(unlabelled: Path, options: str, code: int) -> None:
    assert main(["score", str(unlabelled), *options.split()]) == code


def test_without_labels_it_says_how_to_get_some(unlabelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["score", str(unlabelled)])
    said = capsys.readouterr()
    assert said.out == ""
    assert "no upload has a label" in said.err
    assert "--labels FILE.csv" in said.err
    assert "--max-rejected" in said.err


@pytest.mark.parametrize("content", [b"", b"round,client_id\n", b"PAR1"])
def test_what_is_no_verdict_file_exits_4(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    assert main(["score", "x.parquet"]) == 4
    assert len(capsys.readouterr().err.splitlines()) <= 2


def test_an_empty_table_exits_5(tmp_path: Path, save_verdicts: Save) -> None:
    save_verdicts(tmp_path / "empty.parquet", [])
    assert main(["score", "empty.parquet", "--max-rejected", "1"]) == 5


def test_a_failed_gate_is_named_first_with_figure_and_bound(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(path), "--max-fpr", "0.5", "--min-recall", "0.9", "--min-f1", "0.9"]) == 3
    said = capsys.readouterr()
    assert "encagg: gate failed: encagg: recall >= 0.9: 0.5 is below 0.9 (and 1 more)" in said.err
    gates = said.out[said.out.index("gates failed") :]
    assert gates.index("recall") < gates.index("f1") < gates.index("fpr")


def test_json_is_one_document_and_nothing_else(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(path), "--json", "--explain", "--github", "--min-recall", "0.9"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "encagg-score-1"
    assert document["methods"][0]["metrics"]["recall"] == 0.5
    assert document["passed"] is False


def test_a_score_is_the_baseline_of_the_next(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["score", str(path), "--json"])
    (tmp_path / "score.json").write_text(capsys.readouterr().out)
    assert main(["score", str(path), "--baseline", "score.json", "--max-drop", "0"]) == 0
    assert "7 gates passed" in capsys.readouterr().out
    pd.DataFrame(
        [(n, f"c{c}", c < 2 and n > 4 and c == 1) for n in range(10) for c in range(9)],
        columns=["round", "client_id", "poisoned"],
    ).to_csv("other.csv", index=False)
    assert main(["score", str(path), "--labels", "other.csv", "--baseline", "score.json", "--max-drop", "0.1"]) == 3
    assert "worse than the baseline's 0.5 by more than 0.1" in " ".join(capsys.readouterr().err.split())


def test_labels_may_come_from_a_file_or_a_run(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = [(row["round"], row["client_id"], bool(row["poisoned"]), row["attack"] or "") for row in verdicts()]
    frame = pd.DataFrame(truth, columns=["round", "client_id", "poisoned", "attack"])
    frame.to_csv("labels.csv", index=False)
    frame.to_parquet("labels.parquet")
    frame.to_json("labels.json", orient="records")
    with Recorder(tmp_path / "run") as recorder:
        for number in range(10):
            with recorder.round(number) as stored:
                for _, client, poisoned, attack in (row for row in truth if row[0] == number):
                    stored.add(client, np.ones(2), poisoned=poisoned, attack=attack)
    figures = []
    for source in ("--labels labels.csv", "--labels labels.parquet", "--labels labels.json", "--run run"):
        assert main(["score", str(unlabelled), *source.split(), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        figures.append(document["methods"])
        assert document["labels"]["unlabelled"] == 0
    assert all(other == figures[0] for other in figures)
    assert figures[0][0]["metrics"]["recall"] == 0.5
    assert [attack["attack"] for attack in figures[0][0]["attacks"]] == ["lie", "min-max"]


def test_labels_that_do_not_fit_are_an_error_past_what_is_allowed(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{row['round']},{row['client_id']},{int(row['poisoned'])}\n" for row in verdicts()[:-10]]
    (tmp_path / "l.csv").write_text("round,client_id,poisoned\n" + "".join(lines) + "3,ghost\x1b[31m,1\n")
    assert main(["score", str(path), "--labels", "l.csv"]) == 4
    said = capsys.readouterr().err
    assert "9 of 90 uploads have no label; none has one in round 9" in said
    assert "clients that no verdict names: ghost\\x1b[31m" in said
    assert "--allow-missing 0.1" in said
    assert main(["score", str(path), "--labels", "l.csv", "--allow-missing", "0.1"]) == 0
    assert "9 of 90 uploads have no label" in capsys.readouterr().err


def test_the_report_files_are_written_whatever_the_outcome(path: Path, tmp_path: Path) -> None:
    files = ["--junit", "g.xml", "--markdown", "s.md", "--csv", "v.csv"]
    assert main(["score", str(path), "--min-recall", "0.9", *files]) == 3
    assert junitparser.JUnitXml.fromfile("g.xml").failures == 1
    assert "1 of 1 gate failed" in (tmp_path / "s.md").read_text()
    frame = pd.read_csv("v.csv", keep_default_na=False)
    assert frame["outcome"].value_counts().to_dict() == {
        "kept": 75, "known-benign": 10, "lost": 5, "caught": 5, "missed": 5,
    }  # fmt: skip


def test_a_report_that_exists_is_kept_without_force(path: Path, tmp_path: Path) -> None:
    (tmp_path / "g.xml").write_text("mine")
    assert main(["score", str(path), "--junit", "g.xml"]) == 2
    assert (tmp_path / "g.xml").read_text() == "mine"
    assert main(["score", str(path), "--junit", "g.xml", "--force"]) == 0
    assert junitparser.JUnitXml.fromfile("g.xml").tests == 1


@pytest.mark.parametrize("case", ["no labels", "no verdicts", "damaged"])
def test_where_nothing_was_scored_the_junit_report_is_an_error(
    case: str, unlabelled: Path, tmp_path: Path, save_verdicts: Save
) -> None:
    given = {"no labels": unlabelled, "damaged": tmp_path / "d.parquet"}.get(case)
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    given = given or save_verdicts(tmp_path / "e.parquet", [])
    assert main(["score", str(given), "--junit", "g.xml"]) in {4, 5}
    assert junitparser.JUnitXml.fromfile("g.xml").errors == 1


def test_github_gets_annotations_on_stderr_and_a_summary(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.md").write_text("from an earlier command\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert (
        main(["score", str(path), "--github", "--min-recall", "0.9", "--max-fpr", "0.01", "--max-rejected", "1"]) == 3
    )
    said = capsys.readouterr()
    commands = [line for line in said.err.splitlines() if line.startswith("::")]
    assert commands == [
        "::error title=encagg score::encagg: recall >= 0.9: 0.5 is below 0.9",
        "::error title=encagg score::encagg: fpr <= 0.01: 0.0625 is above 0.01",
    ]
    assert "::" not in said.out
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("from an earlier command\n### encagg score: 2 of 3 gates failed\n")


def test_the_summary_stays_below_what_github_takes(
    tmp_path: Path, save_verdicts: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"round": n, "client_id": "c" * 90 + str(n), "poisoned": True, "attack": f"a{n}" * 9} for n in range(9000)]
    save_verdicts(tmp_path / "long.parquet", rows)
    (tmp_path / "summary.md").write_text("x" * 1000)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert main(["score", "long.parquet", "--github", "--by", "client", "--resamples", "0", "--json"]) == 0
    summary = (tmp_path / "summary.md").read_bytes()
    assert 1_000_000 < len(summary) <= 1024 * 1024
    assert b"Cut short here" in summary[-100:]


def test_explain_says_what_decided(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(path), "--explain"]) == 0
    said = capsys.readouterr().out
    assert "Positive class: poisoned" in said
    assert "90 uploads in 10 rounds, 10 clients: 10 poisoned, 80 honest, 0 without label" in said


def test_every_breakdown_is_printed_and_fits(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    breakdowns = [part for by in ("round", "attack", "method", "client") for part in ("--by", by)]
    assert main(["score", str(path), *breakdowns]) == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    for title in ("rounds, encagg", "attacks, encagg", "clients, encagg"):
        assert title in said.out
    assert "next: encagg score" in said.err


class TestProjectSettings:
    """Gates from pyproject.toml: they count, and a misspelt one is an error."""

    @pytest.mark.parametrize(
        ("written", "code"),
        [
            ("min-recall = 0.5", 0),
            ("min-recall = 0.6", 3),
            ("min_recall = 0.6", 3),
            ("min-recall = '0.6'", 3),
            ("min-recall = [0.5, 'lie=1']", 0),
            ("min-recall = [0.5, 'min-max=1']", 3),
            ("min-recall = {min-max = 1}", 3),
            ("min-recall = {lie = 1}", 0),
            ("max-rejected = 0", 3),
            ("max-rejected = 1", 0),
            ("require-rounds = 11", 3),
            ("allow-missing = 0.5", 0),
            ("method = 'encagg'", 0),
            ("method = ['flame']", 2),
            ("json = true", 0),
            ("min-recal = 0.6", 2),
            ("min-recall = [[0.5]]", 2),
            ("require-rounds = [1, 2]", 2),
            ("require-rounds = 'many'", 2),
        ],
    )
    def test_what_is_written_counts(self, path: Path, tmp_path: Path, written: str, code: int) -> None:
        (tmp_path / "pyproject.toml").write_text(f"[tool.encagg.score]\n{written}\n")
        assert main(["score", str(path)]) == code

    def test_a_flag_comes_before_it(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("[tool.encagg.score]\nmin-recall = 0.9\n")
        assert main(["score", str(path), "--min-recall", "0.1"]) == 0

    def test_the_environment_comes_between(self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "pyproject.toml").write_text("[tool.encagg.score]\nmin-recall = 0.9\n")
        monkeypatch.setenv("ENCAGG_SCORE_MIN_RECALL", "0.1 lie=1")
        assert main(["score", str(path)]) == 0
        monkeypatch.setenv("ENCAGG_SCORE_MIN_RECALL", "0.1 min-max=1")
        assert main(["score", str(path)]) == 3

    @pytest.mark.parametrize("table", ["[tool.encagg.scor]\nmin-recall = 1", "[tool.encagg]\nmin-recall = 1"])
    def test_a_command_that_there_is_not_is_refused(
        self, path: Path, tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "pyproject.toml").write_text(table)
        assert main(["score", str(path)]) == 2
        assert "pyproject.toml: encagg has no command" in capsys.readouterr().err


def test_the_help_has_an_example_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("encagg score verdicts.parquet", "--labels labels.csv", "--max-rejected 0.3", "--baseline score.json"):
        assert part in said


def test_as_a_process_a_failed_gate_exits_3_with_clean_streams(path: Path) -> None:
    program = "import sys; from encagg_cli.cli import run; sys.argv[0] = 'encagg'; run()"
    command = [sys.executable, "-c", program, "score", str(path), "--min-recall", "0.9", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert json.loads(done.stdout)["passed"] is False
    assert done.stderr.strip() == "encagg: gate failed: encagg: recall >= 0.9: 0.5 is below 0.9"
