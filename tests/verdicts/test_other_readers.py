"""Verdict files are for others, too: DuckDB, polars and pandas open them and count the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

Save = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path, save_verdicts: Save) -> Path:
    rows: list[dict[str, Any]] = [
        {
            "round": number,
            "client_id": f"c{client}",
            "method": method,
            "accepted": client > 0,
            "poisoned": client == 0 if number else None,
            "attack": "lie" if client == 0 and number else None,
            "cluster": client % 2,
        }
        for number in range(3)
        for method in ("encagg", "krum(f=1)")
        for client in range(4)
    ]
    return save_verdicts(tmp_path / "v.parquet", rows)


def test_duckdb_counts_who_was_caught(path: Path) -> None:
    query = f"""
        SELECT method, count(*) FILTER (NOT accepted AND poisoned), count(*) FILTER (poisoned IS NULL)
        FROM '{path}' GROUP BY method ORDER BY method
    """
    assert duckdb.sql(query).fetchall() == [("encagg", 2, 4), ("krum(f=1)", 2, 4)]
    kinds = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM '{path}')").fetchall())
    assert (kinds["round"], kinds["score"], kinds["poisoned"]) == ("INTEGER", "DOUBLE", "BOOLEAN")


def test_polars_counts_who_was_caught(path: Path) -> None:
    caught = (
        pl.scan_parquet(path)
        .filter(~pl.col("accepted") & pl.col("poisoned"))
        .group_by(pl.col("method").cast(pl.String))
        .len()
        .sort("method")
        .collect()
    )
    assert caught.rows() == [("encagg", 2), ("krum(f=1)", 2)]


def test_pandas_reads_every_column(path: Path) -> None:
    frame = pd.read_parquet(path)
    assert len(frame) == 24
    assert frame["attack"].isna().sum() == 20
    assert frame.loc[~frame["accepted"], "client_id"].astype(str).unique().tolist() == ["c0"]
    assert frame["poisoned"].isna().sum() == 8
