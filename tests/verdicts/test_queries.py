"""The README's example queries over a verdict file, run as its reader would run them."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

QUERIES = Path(__file__).parent / "queries"


@pytest.fixture(autouse=True)
def _beside_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_verdicts: Callable[..., Path]) -> None:
    """Two rounds; `bad` lies in both, and is missed by `krum(f=1)` in the first; `odd` is wrongly rejected once."""
    rejected: dict[tuple[int, str], dict[str, str]] = {
        (0, "encagg"): {"bad": "other-cluster", "odd": "noise"},
        (0, "krum(f=1)"): {},
        (1, "encagg"): {"bad": "out-of-reach"},
        (1, "krum(f=1)"): {"bad": "far"},
    }
    rows: list[dict[str, Any]] = [
        {
            "round": number,
            "client_id": client,
            "method": method,
            "accepted": client not in reasons,
            "reason": reasons.get(client, "kept"),
            "trusted": client == "root",
            "poisoned": client in ("bad", "root"),
            "attack": "lie" if client in ("bad", "root") else None,
        }
        for (number, method), reasons in rejected.items()
        for client in ("bad", "good", "odd", "root")
    ]
    save_verdicts(tmp_path / "verdicts.parquet", rows)
    monkeypatch.chdir(tmp_path)


def test_duckdb_finds_what_methods_disagree_on() -> None:
    found = duckdb.sql((QUERIES / "disagreement.sql").read_text()).fetchall()
    assert found == [(0, "bad", ["encagg"]), (0, "odd", ["encagg"])]


def test_polars_finds_repeat_offenders() -> None:
    offenders = runpy.run_path(str(QUERIES / "repeat_offenders.py"))["offenders"]
    assert [(client, count, list(reasons)) for client, count, reasons in offenders.rows()] == [
        ("bad", 2, ["other-cluster", "out-of-reach"]),
        ("odd", 1, ["noise"]),
    ]


def test_pandas_finds_recall_by_attack() -> None:
    recall = runpy.run_path(str(QUERIES / "recall_by_attack.py"))["recall"]
    assert recall.to_dict() == {"lie": {"encagg": 1.0, "krum(f=1)": 0.5}}
