"""`encagg attacks`: the list of what can attack."""

import dataclasses
import json

import pytest

from encagg_cli import attacks, console
from encagg_cli.attacks.schedule import SCHEDULES
from encagg_cli.cli import main


def test_every_attack_and_schedule_is_described_as_json(capsys):
    assert main(["attacks", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [attack["name"] for attack in document["attacks"]] == list(attacks.available())
    assert [schedule["name"] for schedule in document["schedules"]] == list(SCHEDULES)
    described = {attack["name"]: attack for attack in document["attacks"]}
    assert described["lie"]["settings"][-1] == {
        "name": "z",
        "default": 1.5,
        "help": "how many standard deviations; formula: the paper's own",
    }
    assert described["adaptive"]["needs"] == ["known-benign clients"]
    assert described["xfed-like"]["needs"] == ["the stored global model of every round"]
    assert described["lie"]["colluding"]
    assert not described["sign-flip"]["colluding"]
    assert all(setting["help"] for attack in document["attacks"] for setting in attack["settings"])


def test_the_list_names_every_attack_and_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    console.stdout.cache_clear()
    assert main(["attacks"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for name in (*attacks.available(), *SCHEDULES):
        assert any(line.startswith(f"{name} ") for line in shown)
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize("name", attacks.available())
def test_one_attack_is_shown_in_full(capsys, name):
    assert main(["attacks", name]) == 0
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    kind = attacks.kind_of(name)
    assert " ".join(kind.source.split()) in words
    assert " ".join(kind.__doc__.split()) in words
    for setting in dataclasses.fields(kind):
        assert setting.name in shown
        assert setting.metadata["help"].split()[0] in words
    for need in attacks.get(name).requires():
        assert need.value in words


def test_what_an_attack_knows_is_said(capsys):
    for name, knowledge in (
        ("min-max", "knows all honest uploads"),
        ("ua-fedrec", "knows the attackers' own honest updates"),
        ("sign-flip", "knows nothing of other clients' updates"),
    ):
        assert main(["attacks", name]) == 0
        assert knowledge in " ".join(capsys.readouterr().out.split())


def test_a_schedule_is_shown_too(capsys):
    assert main(["attacks", "periodic"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "--schedule periodic" in words
    assert "rounds with poison" in words
    assert main(["attacks", "periodic", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["attacks"], [schedule["name"] for schedule in document["schedules"]]) == ([], ["periodic"])


def test_an_unknown_attack_is_a_usage_error(capsys):
    assert main(["attacks", "nonesuch"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "there is no attack 'nonesuch'" in err
