"""What `VerdictWriter` puts into the file, and what it leaves behind when it cannot."""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from encagg_cli.errors import OutputError, OutputExists, UnusableInput
from encagg_cli.filters import Decision
from encagg_cli.verdicts.reader import Verdicts
from encagg_cli.verdicts.schema import SCHEMA
from encagg_cli.verdicts.writer import VerdictWriter

SIGNATURE = {"methods": ["krum"], "seed": 0}


def decision(clients: tuple[str, ...], **changes: object) -> Decision:
    n = len(clients)
    accepted = np.array([row % 2 == 0 for row in range(n)])
    facts: dict[str, object] = {
        "accepted": accepted,
        "score": np.where(accepted, 0.25, 0.75),
        "reason": tuple("kept" if kept else "noise" for kept in accepted),
    }
    return Decision(clients, **{**facts, **changes})  # type: ignore[arg-type]


def write(path: Path, rounds: int = 2, clients: int = 3) -> Path:
    with VerdictWriter(path, signature=SIGNATURE) as writer:
        for number in range(rounds):
            ids = tuple(f"c{row:05d}" for row in range(clients))
            writer.add_round(number, [("krum", decision(ids))], {"c00000"}, {"c00001": True}, {"c00001": "lie"})
    return path


def test_every_column_arrives_as_it_was_given(tmp_path: Path) -> None:
    given = decision(
        ("a", "b"),
        threshold=0.5,
        weight=np.array([1.0, 0.0]),
        statistic=np.array([3.0, np.nan]),
        cluster=np.array([0, -1], dtype=np.int32),
        plane=np.array([[1.0, 2.0], [np.nan, np.nan]]),
    )
    with VerdictWriter(tmp_path / "v.parquet", signature=SIGNATURE) as writer:
        writer.add_round(7, [("krum", given), ("plain", decision(("a", "b")))], {"a"}, {"b": True}, {"b": "lie"})

    with Verdicts(tmp_path / "v.parquet") as verdicts:
        rows = verdicts.read().to_pylist()
        assert verdicts.signature == SIGNATURE
    common = {"round": 7, "method": "krum", "threshold": 0.5}
    assert rows[:2] == [
        {**common, "client_id": "a", "accepted": True, "score": 0.25, "statistic": 3.0, "weight": 1.0, "reason": "kept"}
        | {"cluster": 0, "x": 1.0, "y": 2.0, "trusted": True, "poisoned": None, "attack": None},
        {**common, "client_id": "b", "accepted": False, "score": 0.75, "statistic": None, "weight": 0.0}
        | {"reason": "noise", "cluster": -1, "x": None, "y": None, "trusted": False, "poisoned": True, "attack": "lie"},
    ]
    empty = ("statistic", "threshold", "weight", "cluster", "x", "y")
    assert [rows[2][name] for name in empty] == [None] * 6


def test_the_file_says_its_schema_version_and_signature(tmp_path: Path) -> None:
    schema = pq.read_schema(write(tmp_path / "v.parquet"))
    assert schema.equals(SCHEMA, check_metadata=False)
    assert schema.metadata[b"encagg.schema_version"] == b"1"
    assert json.loads(schema.metadata[b"encagg.signature"]) == SIGNATURE


def test_row_groups_hold_whole_rounds_and_64k_rows_or_more(tmp_path: Path) -> None:
    file = pq.ParquetFile(write(tmp_path / "v.parquet", rounds=9, clients=20_000))
    groups = [file.read_row_group(index, columns=["round"]).column("round") for index in range(file.num_row_groups)]
    assert [len(group) for group in groups] == [80_000, 80_000, 20_000]
    assert [set(group.unique().to_pylist()) for group in groups] == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8}]


def test_no_rounds_make_an_empty_table(tmp_path: Path) -> None:
    with Verdicts(write(tmp_path / "v.parquet", rounds=0)) as verdicts:
        assert verdicts.n_rows == 0
        assert verdicts.read().num_rows == 0


def test_an_existing_file_stays_without_force(tmp_path: Path) -> None:
    path = write(tmp_path / "v.parquet")
    before = path.read_bytes()
    with pytest.raises(OutputExists):
        VerdictWriter(path, signature=SIGNATURE)
    assert path.read_bytes() == before
    VerdictWriter(path, signature=SIGNATURE, force=True).close()
    assert path.read_bytes() != before


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    def break_off() -> None:
        with VerdictWriter(tmp_path / "v.parquet", signature={}) as writer:
            writer.add_round(0, [("krum", decision(("a",)))], set(), {}, {})
            raise RuntimeError("filter broke")

    with pytest.raises(RuntimeError, match="filter broke"):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_an_aborted_file_leaves_the_one_it_would_have_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "v.parquet")
    before = path.read_bytes()
    writer = VerdictWriter(path, signature={}, force=True)
    writer.add_round(0, [("krum", decision(("a",)))], set(), {}, {})
    writer.abort()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", ["nowhere/v.parquet", "closed/v.parquet"])
def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    if where.startswith("closed") and os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    with pytest.raises(OutputError, match="cannot write"):
        VerdictWriter(tmp_path / where, signature={})


def test_a_disk_that_fills_up_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # a file too large fails as a full disk does
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            write_scores(tmp_path / "v.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def write_scores(path: Path) -> None:
    ids = tuple(f"c{row}" for row in range(30_000))
    with VerdictWriter(path, signature={}) as writer:
        for number in range(5):
            scores = np.random.default_rng(number).random(len(ids))
            writer.add_round(number, [("krum", decision(ids, score=scores))], set(), {}, {})


def test_rounds_come_in_order_and_methods_once(tmp_path: Path) -> None:
    with VerdictWriter(tmp_path / "v.parquet", signature={}) as writer:
        writer.add_round(3, [("krum", decision(("a",)))], set(), {}, {})
        with pytest.raises(ValueError, match="round 3 comes after round 3"):
            writer.add_round(3, [], set(), {}, {})
        with pytest.raises(ValueError, match="two decisions"):
            writer.add_round(4, [("krum", decision(("a",)))] * 2, set(), {}, {})
        with pytest.raises(UnusableInput, match="does not fit"):
            writer.add_round(2**31, [], set(), {}, {})


def test_a_score_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    with VerdictWriter(tmp_path / "v.parquet", signature={}) as writer, pytest.raises(ValueError, match="NaN"):
        writer.add_round(0, [("krum", decision(("a",), score=np.array([np.nan])))], set(), {}, {})
