"""`encagg report` as a person or a pipeline meets it: exit codes, and what it says."""

import builtins
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encagg_cli.cli import main

Save = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path, save_verdicts: Save) -> Path:
    rows = [
        {"round": number, "client_id": f"c{client}", "accepted": client > 0, "poisoned": client == 0}
        for number in range(3)
        for client in range(4)
    ]
    return save_verdicts(tmp_path / "v.parquet", rows)


@pytest.fixture
def score(tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["score", str(path), "--json", "--min-recall", "0.9"]) == 0
    written = tmp_path / "score.json"
    written.write_text(capsys.readouterr().out)
    return written


def report(path: Path, *arguments: object) -> int:
    return main(["report", str(path), "-o", str(path.with_name("r.html")), *map(str, arguments)])


def data_of(path: Path) -> dict[str, Any]:
    text = path.with_name("r.html").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text.split('id="data">')[1].split("</script>")[0])
    return document


def test_a_page_is_written_for_its_owner_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(path) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "open it in a browser" in streams.err
    assert path.with_name("r.html").stat().st_mode & 0o777 == 0o600
    assert data_of(path)["score"]["methods"][0]["metrics"]["recall"] == 1.0


def test_gates_come_from_a_score(path: Path, score: Path) -> None:
    assert report(path, "--score", score) == 0
    assert [(gate["metric"], gate["passed"]) for gate in data_of(path)["score"]["gates"]] == [("recall", True)]


def test_without_labels_there_is_no_score(tmp_path: Path, save_verdicts: Save) -> None:
    path = save_verdicts(tmp_path / "u.parquet", [{"round": 0, "client_id": "a"}])
    assert report(path) == 0
    assert data_of(path)["score"] is None


def test_an_existing_page_is_replaced_by_force_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.with_name("r.html").write_text("mine")
    assert report(path) == 2
    assert "--force" in capsys.readouterr().err
    assert path.with_name("r.html").read_text() == "mine"
    assert report(path, "--force") == 0
    assert path.with_name("r.html").read_text() != "mine"


def test_verdicts_that_cannot_be_read(tmp_path: Path) -> None:
    assert report(tmp_path / "absent.parquet") == 4
    (tmp_path / "text.parquet").write_text("hello")
    assert report(tmp_path / "text.parquet") == 4
    assert not (tmp_path / "r.html").exists()


def test_an_empty_table(tmp_path: Path, save_verdicts: Save) -> None:
    assert report(save_verdicts(tmp_path / "v.parquet", [])) == 5
    assert not (tmp_path / "r.html").exists()


def test_a_folder_that_is_not_there(path: Path) -> None:
    assert main(["report", str(path), "-o", str(path.parent / "absent" / "r.html")]) == 6


def test_without_the_plotting_library_it_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from encagg_cli.report.page import plotting_library

    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "vl_convert":
            raise ImportError(name)
        return real(name, *arguments, **named)

    plotting_library.cache_clear()
    monkeypatch.delitem(sys.modules, "vl_convert", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert report(path) == 2
    assert "pip install vl-convert-python" in capsys.readouterr().err
    assert not path.with_name("r.html").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda score: [],
        lambda score: {"schema": "encagg-score-2"},
        lambda score: {**score, "methods": "many"},
        lambda score: {**score, "methods": [{"method": "encagg"}]},
        lambda score: {**score, "gates": [{"passed": 1}]},
        lambda score: {**score, "signature": None},
        lambda score: {**score, "signature": {"verdicts.digest": "another"}},
        lambda score: {**score, "methods": [{**score["methods"][0], "method": "flame"}]},
        lambda score: {**score, "more": float("nan")},
    ],
)
def test_a_score_that_is_not_one_of_these_verdicts(
    path: Path, score: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    score.write_text(json.dumps(change(json.loads(score.read_text()))))
    assert report(path, "--score", score) == 4
    assert not path.with_name("r.html").exists()


def test_a_score_that_is_not_json(path: Path, tmp_path: Path) -> None:
    assert report(path, "--score", tmp_path / "absent.json") == 4
    (tmp_path / "score.json").write_text("[" * 100_000)
    assert report(path, "--score", tmp_path / "score.json") == 4


def test_a_run_gives_its_facts_and_a_trace_its_planes(attacked_run: Path, tmp_path: Path) -> None:
    verdicts, trace = tmp_path / "v.parquet", tmp_path / "t.h5"
    assert main(["filter", str(attacked_run), "-o", str(verdicts), "--method", "encagg", "--trace", str(trace)]) == 0
    assert report(verdicts, "--run", attacked_run, "--trace", trace) == 0
    document = data_of(verdicts)
    assert document["run"].startswith("attacked: 4 stored rounds")
    assert sorted(document["traces"]) == [str(number) for number in document["rounds"]]
    traced = document["traces"][str(document["rounds"][0])]["encagg"]
    assert traced["radius"] > 0
    assert len(traced["second"]["pseudo"]) == 100
    assert len(traced["second"]["x"]) == len(traced["second"]["client"]) > 0
