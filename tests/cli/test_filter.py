"""`encagg filter`, on a captured run."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.cli import main
from encagg_cli.filters import DEFAULT_METHOD, available
from encagg_cli.verdicts.schema import SCHEMA


def filtered(run: Path, output: Path, *options: str) -> pd.DataFrame:
    assert main(["filter", str(run), "-o", str(output), *options]) == 0
    return pd.read_parquet(output)


def copy_run(
    source: Path,
    target: Path,
    *,
    changed: dict[tuple[int, str], np.ndarray] | None = None,
    left_out: Sequence[str] = (),
) -> Path:
    """The same run with some updates replaced, or some clients left out."""
    with Run.open(source) as run, Recorder(target) as recorder:
        for stored in run:
            with recorder.round(stored.number) as round_:
                rows = stored.rows(range(len(stored.client_ids)))
                for index, client in enumerate(stored.client_ids):
                    if client not in left_out:
                        row = (changed or {}).get((stored.number, client), rows[index])
                        round_.add(
                            client,
                            row,
                            trusted=bool(stored.trusted[index]),
                            poisoned=bool(stored.poisoned[index]),
                            attack=stored.attack[index],
                        )
    return target


def test_every_client_of_every_round_gets_a_verdict_from_every_method(attacked_run: Path, tmp_path: Path) -> None:
    methods = ["encagg", "multi-krum(f=4)", "cosine-to-known-benign"]
    verdicts = filtered(attacked_run, tmp_path / "v.parquet", *(o for m in methods for o in ("--method", m)))
    assert list(verdicts.columns) == SCHEMA.names
    with Run.open(attacked_run) as run:
        expected = {(s.number, client, m) for s in run for client in s.client_ids for m in methods}
        truth = {(s.number, c): p for s in run for c, p in zip(s.client_ids, s.poisoned, strict=True)}
    rows = list(zip(verdicts["round"], verdicts["client_id"], verdicts["method"], strict=True))
    assert len(rows) == len(expected)
    assert set(rows) == expected
    assert [truth[row[:2]] for row in rows] == verdicts["poisoned"].astype(int).tolist()
    assert verdicts["round"].is_monotonic_increasing
    assert verdicts["trusted"].sum() == 4 * 4 * len(methods)


def test_settings_make_the_method_that_the_verdicts_name(attacked_run: Path, tmp_path: Path) -> None:
    options = ["--method", "multi-krum", "--set", "multi-krum.f=4", "--set", "multi-krum.relaxed=true"]
    verdicts = filtered(attacked_run, tmp_path / "v.parquet", *options)
    assert set(verdicts["method"]) == {"multi-krum(f=4,relaxed=true)"}


def test_the_signature_tells_data_methods_and_known_benign_clients_apart(attacked_run: Path, tmp_path: Path) -> None:
    def signature(name: str, *options: str) -> dict[str, object]:
        filtered(attacked_run, tmp_path / name, *options)
        metadata = pq.read_schema(tmp_path / name).metadata
        assert metadata[b"encagg.schema_version"] == b"1"
        return json.loads(metadata[b"encagg.signature"])

    first = signature("1.parquet", "--method", "encagg")
    assert first == signature("2.parquet", "--method", "encagg")
    assert first["methods"] != signature("3.parquet", "--method", "encagg(r=0.3)")["methods"]
    assert first["updates"] != signature("4.parquet", "--method", "encagg", "--rounds", "1:")["updates"]
    fewer = ["--trusted", "client-00,client-01"]
    assert first["trusted"] != signature("5.parquet", "--method", "encagg", *fewer)["trusted"]


def test_rounds_and_known_benign_clients_can_be_chosen(attacked_run: Path, tmp_path: Path) -> None:
    (tmp_path / "trusted.txt").write_text("client-00\nclient-02\n", encoding="utf-8")
    options = ["--method", "encagg", "--rounds", "1:3", "--trusted", f"@{tmp_path / 'trusted.txt'}"]
    verdicts = filtered(attacked_run, tmp_path / "v.parquet", *options)
    assert set(verdicts["round"]) == {1, 2}
    assert set(verdicts[verdicts["trusted"]]["client_id"]) == {"client-00", "client-02"}


def test_a_non_finite_upload_is_rejected_and_changes_nothing_else(attacked_run: Path, tmp_path: Path) -> None:
    with Run.open(attacked_run) as run:
        broken = np.full(run.n_parameters, 0.1, dtype=np.float32)
    broken[7] = np.nan
    run_with = copy_run(attacked_run, tmp_path / "with", changed={(r, "client-13"): broken for r in range(4)})
    run_without = copy_run(attacked_run, tmp_path / "without", left_out=["client-13"])
    options = ["--method", "encagg", "--method", "multi-krum(f=4)", "--method", "cosine-to-known-benign"]
    verdicts = filtered(run_with, tmp_path / "with.parquet", *options)
    others = filtered(run_without, tmp_path / "without.parquet", *options)
    named = verdicts[verdicts["client_id"] == "client-13"]
    assert set(named["reason"]) == {"non-finite"}
    assert not named["accepted"].any()
    rest = verdicts[verdicts["client_id"] != "client-13"].reset_index(drop=True)
    for column in ("round", "accepted", "score", "x", "y"):
        np.testing.assert_array_equal(rest[column].to_numpy(), others[column].to_numpy())
    for _, group in verdicts.groupby(["round", "method"], observed=True):
        assert group["score"].max() == group[group["client_id"] == "client-13"]["score"].iloc[0]


def test_non_finite_uploads_can_be_made_an_error(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run.open(attacked_run) as run:
        broken = np.full(run.n_parameters, np.inf, dtype=np.float32)
    run_with = copy_run(attacked_run, tmp_path / "with", changed={(2, "client-05"): broken})
    output = tmp_path / "v.parquet"
    assert main(["filter", str(run_with), "-o", str(output), "--non-finite", "error"]) == 4
    assert "round 2, client client-05" in capsys.readouterr().err
    assert not output.exists()


def test_a_filter_goes_on_from_its_state_as_if_it_had_never_stopped(attacked_run: Path, tmp_path: Path) -> None:
    whole = filtered(attacked_run, tmp_path / "whole.parquet", "--method", "encagg")
    state = str(tmp_path / "state.h5")
    first = filtered(attacked_run, tmp_path / "1.parquet", "--method", "encagg", "--rounds", ":2", "--state", state)
    second = filtered(attacked_run, tmp_path / "2.parquet", "--method", "encagg", "--rounds", "2:", "--state", state)
    pd.testing.assert_frame_equal(
        whole.astype({"reason": str, "attack": str}),
        pd.concat([first, second], ignore_index=True).astype({"reason": str, "attack": str}),
        check_categorical=False,
    )
    fresh = filtered(attacked_run, tmp_path / "3.parquet", "--method", "encagg", "--rounds", "2:")
    assert not np.array_equal(fresh["score"], second["score"])  # the generator does carry something over


def test_a_state_is_not_fed_the_same_round_twice(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state", str(tmp_path / "state.h5")]
    filtered(attacked_run, tmp_path / "1.parquet", *state)
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / "2.parquet"), *state]) == 2
    assert "already seen round 3" in capsys.readouterr().err
    assert not (tmp_path / "2.parquet").exists()


def test_a_damaged_state_is_named(attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state.h5"
    state.write_bytes(b"not a state")
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / "v.parquet"), "--state", str(state)]) == 4
    assert "state.h5" in capsys.readouterr().err
    assert state.read_bytes() == b"not a state"


def test_a_trace_holds_what_a_picture_needs(attacked_run: Path, tmp_path: Path) -> None:
    filtered(attacked_run, tmp_path / "v.parquet", "--method", "encagg", "--trace", str(tmp_path / "t.h5"))
    with h5py.File(tmp_path / "t.h5") as trace:
        assert trace.attrs["format"] == "encagg-trace"
        decision = trace["rounds/000001/encagg"]
        assert decision["plane"].shape == (14, 2)
        assert decision["radius"][()] > 0
        assert len(decision["clients"]) == 14


def test_an_output_that_exists_is_kept_unless_forced(attacked_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "v.parquet"
    output.write_bytes(b"precious")
    assert main(["filter", str(attacked_run), "-o", str(output)]) == 2
    assert output.read_bytes() == b"precious"
    assert len(filtered(attacked_run, output, "--force")) == 56


def test_a_failure_in_a_later_round_leaves_nothing_behind(attacked_run: Path, tmp_path: Path) -> None:
    run = copy_run(attacked_run, tmp_path / "run")
    with Recorder(run) as recorder, recorder.round(9) as round_:
        for client in range(4):  # too few for f=5
            round_.add(f"client-{client:02d}", np.ones(Run.open(run).n_parameters, dtype=np.float32))
    folder = tmp_path / "out"
    folder.mkdir()
    assert main(["filter", str(run), "-o", str(folder / "v.parquet"), "--method", "multi-krum(f=5)"]) == 2
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--method", "nonsense"], 2, "nonsense"),
        (["--method", "encagg(radius=2)"], 2, "radius"),
        (["--method", "encagg(r=2)"], 2, "encagg.r"),
        (["--method", "encagg(r=wide)"], 2, "wide"),
        (["--method", "encagg", "--method", "encagg"], 2, "twice"),
        (["--set", "multi-krum.f=3"], 2, "multi-krum"),
        (["--method", "multi-krum"], 2, "number of attackers"),
        (["--method", "multi-krum(f=9)"], 2, "relaxed=true"),
        (["--trusted", "client-00"], 2, "at least 2 known-benign"),
        (["--trusted", ""], 2, "known-benign"),
        (["--trusted", "nobody,no one"], 2, "'no one', 'nobody'"),
        (["--method", "encagg(r=0.3)", "--set", "encagg.r=0.4"], 2, "encagg.r is set twice: 0.3 by"),
        (["--method", "encagg", "--set", "encagg.r=0.3", "--set", "encagg.r=0.4"], 2, "two values: 0.3 and 0.4"),
        (["--rounds", "7:9"], 2, "7:9"),
        (["--non-finite", "maybe"], 2, "maybe"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_in_two_lines(
    attacked_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    message: str,
) -> None:
    if not any(option.startswith(("encagg", "multi", "nonsense")) for option in options):
        options = ["--method", "encagg", *options]
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / "v.parquet"), *options]) == code
    complaint = capsys.readouterr().err.strip().splitlines()
    assert message in complaint[0] + complaint[-1]
    assert len(complaint) <= 2
    assert not (tmp_path / "v.parquet").exists()


def test_a_known_benign_client_that_no_round_holds_is_told(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = filtered(attacked_run, tmp_path / "v.parquet", "--trusted", "client-00,client-02,nobody")
    assert set(verdicts[verdicts["trusted"]]["client_id"]) == {"client-00", "client-02"}
    assert "warning: known-benign, but in no round: 'nobody'" in capsys.readouterr().err


def test_a_setting_is_for_every_method_of_its_name(attacked_run: Path, tmp_path: Path) -> None:
    options = ["--method", "encagg(r=0.3)", "--method", "encagg(r=0.5)", "--set", "encagg.gamma=2"]
    verdicts = filtered(attacked_run, tmp_path / "v.parquet", *options)
    assert set(verdicts["method"]) == {"encagg(r=0.3,gamma=2.0)", "encagg(r=0.5,gamma=2.0)"}


@pytest.mark.parametrize("name", ["v.csv", "v.JSON", "v.h5", "v.xlsx"])
def test_verdicts_are_not_named_like_another_format(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / name)]) == 2
    assert "v.parquet" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["verdicts", "v.encagg", "v.2026-01"])
def test_verdicts_may_have_any_name_that_is_no_other_formats(attacked_run: Path, tmp_path: Path, name: str) -> None:
    assert len(filtered(attacked_run, tmp_path / name)) == 56


def test_a_file_that_is_no_run_is_unusable_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.h5").write_bytes(b"\x89HDF\r\n\x1a\n nonsense")
    for path in (tmp_path / "run.h5", tmp_path / "absent"):
        assert main(["filter", str(path), "-o", str(tmp_path / "v.parquet")]) == 4
        assert str(path) in capsys.readouterr().err


def test_json_is_the_only_thing_on_stdout(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / "v.parquet"), "--json", "--method", "encagg"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rounds"] == [0, 1, 2, 3]
    (method,) = document["methods"]
    assert method["uploads"] == 56
    assert sum(method["reasons"].values()) == 56


def test_the_table_fits_eighty_columns(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    methods = ["--method", "encagg", "--method", "multi-krum(f=9,relaxed=true)", "--method", "cosine-to-known-benign"]
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / "v.parquet"), *methods]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in printed) <= 80
    assert any("encagg" in line and "%" in line for line in printed)


def test_a_full_disk_is_an_output_error(attacked_run: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    folder = tmp_path / "gone"
    assert main(["filter", str(attacked_run), "-o", str(folder / "v.parquet")]) == 6
    shutil.rmtree(folder, ignore_errors=True)


def test_all_runs_what_the_run_allows_and_says_what_it_skipped(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--method", "all", "--set", "multi-krum.f=9"]  # 9 of 14 is beyond the theory
    verdicts = filtered(attacked_run, tmp_path / "v.parquet", *options)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
    skipped = {name for line in lines for name in line.split(": ")[1].split(", ")}
    ran = {method.partition("(")[0] for method in set(verdicts["method"])}
    assert {"fltrust", "multi-krum", "krum"} <= skipped
    assert {"anchored-views", "encagg", "median", "foolsgold", "mean"} <= ran
    assert ran.isdisjoint(skipped)
    assert ran | skipped == set(available())


def test_what_a_run_lacks_is_known_before_it_is_read(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / "v.parquet"), "--method", "fltrust"]) == 2
    assert "root gradient" in capsys.readouterr().err


def test_help_names_the_default_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "--help"]) == 0
    words = capsys.readouterr().out.replace("│", " ").split()
    assert f"Default: {DEFAULT_METHOD}." in " ".join(words)


def test_what_comes_next_depends_on_the_labels(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filtered(attacked_run, tmp_path / "v.parquet")
    assert f"next: encagg score {tmp_path / 'v.parquet'}\n" in capsys.readouterr().err
    with Recorder(tmp_path / "unlabelled", trusted=["a", "b"]) as recorder, recorder.round(0) as round_:
        for client in "abcd":
            round_.add(client, np.arange(4.0) + ord(client))
    filtered(tmp_path / "unlabelled", tmp_path / "w.parquet")
    said = capsys.readouterr().err
    assert "--labels FILE" in said
    assert "--max-rejected 0.3    needs no labels" in said


def test_a_table_keeps_the_names_on_a_narrow_terminal(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], set_columns: Callable[[int], None]
) -> None:
    set_columns(48)
    filtered(attacked_run, tmp_path / "v.parquet", "--method", "median", "--method", "cosine-to-known-benign")
    shown = capsys.readouterr().out.splitlines()
    (rejecting,) = (number for number, line in enumerate(shown) if "cosine-to-known-benign" in line)
    (aggregating,) = (number for number, line in enumerate(shown) if "median" in line)
    assert "aggregates only" in shown[aggregating]
    assert rejecting < aggregating
    assert max(map(len, shown)) <= 48


def test_methods_that_are_skipped_for_one_reason_are_told_in_one_line(
    attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filtered(attacked_run, tmp_path / "v.parquet", "--method", "all", "--rounds", "0")
    skipped = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
    (told,) = (line for line in skipped if "needs the number of attackers (" in line)
    assert told.startswith("skipped: krum, multi-krum, bulyan, faba, dnc: needs")


def test_a_misspelt_method_is_guessed(attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", str(attacked_run), "-o", str(tmp_path / "v.parquet"), "--method", "multikrum"]) == 2
    assert "did you mean multi-krum? " in capsys.readouterr().err
