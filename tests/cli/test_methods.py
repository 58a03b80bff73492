"""`encagg methods`: the catalogue, for people and for programs."""

import json

import pytest

from encagg_cli.cli import main
from encagg_cli.filters import available


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["methods", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_lists_every_filter_with_source_grade_needs_and_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    for name in available():
        assert name in out
    for text in ("f=none", "Blanchard", "needs the number of attackers", "(earlier rounds)"):
        assert text in out


def test_json_is_one_document_with_all_that_is_declared(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["schema"] == "encagg-methods-1"
    methods = {method["name"]: method for method in document["methods"]}
    assert tuple(methods) == available()
    assert methods["fltrust"]["needs"] == ["the stored root gradient"]
    assert methods["median"]["aggregate"] == "coordinate-wise"
    assert methods["flame"]["uses"] == ["the stored global model"]
    for method in methods.values():
        assert method["grade"] in {"A", "B", "C"}
        assert method["source"]
        assert method["description"]
        assert all(setting["help"] for setting in method["settings"])
    assert {s["name"]: s["default"] for s in methods["krum"]["settings"]} == {"f": None, "relaxed": False}


def test_tells_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "trimmed-mean")
    assert code == 0
    assert "Yin et al." in out
    assert "reject_above" in out
    assert "median" not in out.splitlines()[0]


def test_an_unknown_method_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "crumb")
    assert code == 2
    assert not out
    assert "there is no method 'crumb'" in err
    assert "multi-krum" in err
