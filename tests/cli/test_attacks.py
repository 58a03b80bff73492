"""`encagg attacks`: the list of what can attack."""

import json

from encagg_cli import attacks
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


def test_the_table_names_every_attack(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["attacks"]) == 0
    shown = capsys.readouterr().out
    for name in (*attacks.available(), *SCHEDULES):
        assert name in shown
