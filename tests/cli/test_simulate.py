"""`encagg simulate`, as a user runs it."""

import json

import pytest

from encagg_cli.cli import main
from encagg_cli.rounds.reader import Run

SMALL = ["--clients", "8", "--rounds", "2", "--trusted", "2"]


def test_rounds_are_shown_as_they_are_trained_and_recorded_with_the_truth(tmp_path, capsys):
    run = tmp_path / "run"
    attack = ["--attack", "lie", "--ratio", "0.5", "--schedule", "always", "--method", "encagg"]
    assert main(["simulate", str(run), *SMALL, *attack]) == 0
    out, err = capsys.readouterr()
    assert "recorded 2 rounds" in out
    assert "16 uploads, 8 of them poisoned" in out
    assert "encagg in the loop" in out
    lines = err.splitlines()
    assert lines[0].split()[:3] == ["round", "accuracy", "poisoned"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1"]
    for line in lines[1:]:
        assert line.split()[2] == "4/8"
        rejected, *of_which = (int(cell) for cell in line.split()[3:7])
        assert rejected == sum(of_which)
        assert len(line) < 80
    with Run.open(run) as stored:
        assert stored.rounds == (0, 1)
        assert stored.round(1).attack.count("lie") == 4
        assert stored.round(1).has_global_model


def test_json_prints_one_document(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "run"), *SMALL, "--algorithm", "fedsgd", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "encagg-simulation-1"
    assert document["settings"]["algorithm"] == "fedsgd"
    assert document["settings"]["method"] is None
    assert [round_["round"] for round_ in document["rounds"]] == [0, 1]
    with Run.open(tmp_path / "run") as stored:
        assert stored.round(0).update_kind == "gradient"


def test_an_existing_run_is_refused_unless_forced(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["simulate", str(run), *SMALL]) == 0
    assert main(["simulate", str(run), *SMALL]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["simulate", str(run), *SMALL, "--force"]) == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--attack", "nonesuch"], 2, "there is no attack 'nonesuch'"),
        (["--ratio", "0.5"], 2, "attackers need an attack"),
        (["--attack", "lie", "--ratio", "0.9"], 2, "only 6 are not known-benign"),
        (["--attack", "lie", "--schedule", "never"], 2, "there is no schedule 'never'"),
        (["--method", "nonesuch"], 2, "there is no method 'nonesuch'"),
        (["--method", "encagg", "--trusted", "0"], 2, "known-benign"),
        (["--dataset", "mnist"], 2, "folder of yours"),
        (["--dataset", "imagenet"], 2, "no data set"),
        (["--partition", "random"], 2, "no partition"),
        (["--clients", "2000"], 2, "cannot share"),
        (["--rounds", "0"], 2, "rounds must be at least 1"),
        (["--attack", "lie(z=formula)", "--ratio", "0.7", "--schedule", "always"], 4, "undefined"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_with_its_exit_code(tmp_path, capsys, options, code, message):
    assert main(["simulate", str(tmp_path / "run"), *SMALL, *options]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("encagg: ")]) == 1
    assert "Traceback" not in err
    assert not out
