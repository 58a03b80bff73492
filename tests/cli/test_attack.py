"""`encagg attack`, as a user runs it on a captured run."""

import json

import pytest

from encagg_cli.cli import main
from encagg_cli.rounds.reader import Run


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    run = tmp_path_factory.mktemp("honest") / "run"
    assert main(["simulate", str(run), "--clients", "10", "--rounds", "3", "--trusted", "3"]) == 0
    return run


def test_a_poisoned_copy_is_written_and_summed_up(honest, tmp_path, capsys):
    poisoned = tmp_path / "poisoned"
    options = ["--attack", "lie", "--attack", "sign-flip", "--ratio", "0.4", "--schedule", "always(choice=mix)"]
    assert main(["attack", str(honest), "-o", str(poisoned), *options, "--rounds", "1:"]) == 0
    assert "wrote 2 rounds" in capsys.readouterr().out
    with Run.open(poisoned) as run:
        assert run.rounds == (1, 2)
        for stored in run:
            assert sorted(name for name in stored.attack if name) == ["lie", "lie", "sign-flip", "sign-flip"]
            assert stored.poisoned.sum() == 4


def test_json_prints_one_document(honest, tmp_path, capsys):
    options = ["--attack", "lie", "--ratio", "0.2", "--ratio", "0.4", "--seed", "3", "--json"]
    assert main(["attack", str(honest), "-o", str(tmp_path / "p"), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "encagg-attack-1"
    assert document["settings"]["ratios"] == [0.2, 0.4]
    assert document["settings"]["seed"] == 3


def test_known_benign_clients_may_be_named(honest, tmp_path):
    names = ",".join(f"client-{number:02d}" for number in range(5))
    options = ["--attack", "lie", "--ratio", "0.5", "--schedule", "always", "--trusted", names]
    assert main(["attack", str(honest), "-o", str(tmp_path / "p"), *options]) == 0
    with Run.open(tmp_path / "p") as run:
        stored = run.round(0)
        assert [bool(label) for label in stored.poisoned] == [False] * 5 + [True] * 5
        assert list(stored.trusted) == [True] * 5 + [False] * 5


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--attack", "nonesuch"], 2, "there is no attack"),
        (["--attack", "lie", "--ratio", "0.8"], 2, "only 7 are not known-benign"),
        (["--attack", "lie", "--ratio", "1.5"], 2, "below 1"),
        (["--attack", "lie", "--ratio", "0.01"], 2, "no attacker at all"),
        (["--attack", "label-flip"], 2, "changed labels"),
        (["--attack", "lie", "--rounds", "9"], 2, "no stored round"),
        (["--attack", "lie", "--trusted", "nobody"], 2, "nobody"),
        (["--attack", "lie(z=formula)", "--ratio", "0.6", "--schedule", "always"], 4, "undefined"),
        (["--attack", "lie", "--schedule", "bernoulli(q=1)"], 2, "no setting 'q'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_with_its_exit_code(honest, tmp_path, capsys, options, code, message):
    assert main(["attack", str(honest), "-o", str(tmp_path / "p"), *options]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_none_is_refused(tmp_path, capsys):
    assert main(["attack", str(tmp_path / "nowhere"), "-o", str(tmp_path / "p"), "--attack", "lie"]) == 4
    assert "nowhere" in capsys.readouterr().err


def test_a_poisoned_run_is_not_poisoned_again(honest, tmp_path, capsys):
    options = ["--attack", "lie", "--schedule", "always"]
    assert main(["attack", str(honest), "-o", str(tmp_path / "p"), *options]) == 0
    assert main(["attack", str(tmp_path / "p"), "-o", str(tmp_path / "q"), *options]) == 4
    assert "no honest round" in capsys.readouterr().err
