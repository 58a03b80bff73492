"""What `Verdicts` accepts, and how it refuses the rest."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encagg_cli.errors import UnusableInput
from encagg_cli.verdicts.reader import Verdicts
from encagg_cli.verdicts.schema import SCHEMA, SCHEMA_VERSION, SIGNATURE_KEY, VERSION_KEY

METADATA = {VERSION_KEY: SCHEMA_VERSION.encode(), SIGNATURE_KEY: b'{"seed": 0}'}


def table(rows: int = 2, **changes: Any) -> pa.Table:
    columns = {
        "round": list(range(rows)),
        "client_id": ["a"] * rows,
        "method": ["krum"] * rows,
        "accepted": [True] * rows,
        "score": [0.5] * rows,
        "reason": ["kept"] * rows,
        "trusted": [False] * rows,
    } | changes
    nullable = [pa.field(field.name, field.type) for field in SCHEMA]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column or [None] * rows, type=field.type)
        for field, column in ((field, columns.get(field.name)) for field in nullable)
    ]
    return pa.table(arrays, names=SCHEMA.names).replace_schema_metadata(METADATA)


def save(path: Path, content: pa.Table) -> Path:
    pq.write_table(content, path)
    return path


def test_batches_have_the_types_of_the_schema_whoever_wrote_the_file(tmp_path: Path) -> None:
    plain = table(client_id=pa.array(["a", "b"], type=pa.large_string()), method=pa.array(["krum", "krum"]))
    with Verdicts(save(tmp_path / "v.parquet", plain)) as verdicts:
        (batch,) = verdicts.batches(["client_id", "method", "round"])
    assert batch.schema == pa.schema([SCHEMA.field(name) for name in ("client_id", "method", "round")])
    assert batch.column("client_id").to_pylist() == ["a", "b"]


def test_batches_are_bounded_and_whole_reads_are_the_same(tmp_path: Path) -> None:
    with Verdicts(save(tmp_path / "v.parquet", table(rows=10))) as verdicts:
        assert [len(batch) for batch in verdicts.batches(rows=4)] == [4, 4, 2]
        assert verdicts.read(["round"]).column("round").to_pylist() == list(range(10))
        assert verdicts.n_rows == 10


def test_columns_of_later_versions_are_left_out(tmp_path: Path) -> None:
    grown = table().append_column("mood", pa.array(["calm", "calm"]))
    with Verdicts(save(tmp_path / "v.parquet", grown)) as verdicts:
        assert verdicts.read().column_names == SCHEMA.names


BROKEN = {
    "another table": (pa.table({"a": [1]}), "not a table of verdicts"),
    "another version": (table().replace_schema_metadata({**METADATA, VERSION_KEY: b"2"}), "schema version 2"),
    "no signature": (table().replace_schema_metadata({VERSION_KEY: b"1"}), "signature"),
    "a signature that is no JSON": (table().replace_schema_metadata({**METADATA, SIGNATURE_KEY: b"{"}), "signature"),
    "a signature that is a list": (table().replace_schema_metadata({**METADATA, SIGNATURE_KEY: b"[]"}), "signature"),
    "a signature nested without end": (
        table().replace_schema_metadata({**METADATA, SIGNATURE_KEY: b"[" * 100_000}),
        "signature",
    ),
    "a column missing": (table().drop_columns(["score"]), "no columns 'score'"),
    "a column twice": (table().append_column("score", pa.array([1.0, 1.0])), "2 columns 'score'"),
    "a column of another type": (table(score=pa.array([1, 2])), "'score' is int64, not double"),
    "rounds that are no int32": (table(round=pa.array([1, 2])), "'round' is int64"),
    "a verdict missing": (table(accepted=[True, None]), "'accepted' has empty cells"),
    "a client id missing": (table(client_id=["a", None]), "'client_id' has empty cells"),
    "a score that is not a number": (table(score=[0.5, float("nan")]), "not a number"),
    "rounds out of order": (table(round=[2, 1]), "not sorted"),
    "text that is not UTF-8": (
        table(reason=pa.array([b"\xff", b"ok"]).view(pa.string()).dictionary_encode()),
        "cannot be read as verdicts",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_sound_is_refused_with_a_reason(tmp_path: Path, case: str) -> None:
    content, reason = BROKEN[case]
    path = save(tmp_path / "v.parquet", content)
    with pytest.raises(UnusableInput, match=reason) as caught, Verdicts(path) as verdicts:
        verdicts.read()
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_rounds_out_of_order_are_seen_across_batches(tmp_path: Path) -> None:
    path = save(tmp_path / "v.parquet", table(rows=4, round=[1, 2, 1, 2]))
    with pytest.raises(UnusableInput, match="not sorted"), Verdicts(path) as verdicts:
        list(verdicts.batches(rows=2))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 but nothing else PAR1", b"round,client_id\n1,a\n"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.parquet").write_bytes(content)
    with pytest.raises(UnusableInput, match="cannot be read as verdicts"):
        Verdicts(tmp_path / "v.parquet")


def test_damage_anywhere_in_the_file_is_an_error_of_ours_or_none(tmp_path: Path) -> None:
    whole = save(tmp_path / "v.parquet", table(rows=50)).read_bytes()
    for place in range(0, len(whole), 17):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "d.parquet").write_bytes(damaged)
        try:
            with Verdicts(tmp_path / "d.parquet") as verdicts:
                verdicts.read()
        except UnusableInput as error:
            assert "d.parquet" in error.message  # noqa: PT017 - some damage, as to an unused number, goes unseen


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"no verdict file .*v\.parquet"):
        Verdicts(tmp_path / "v.parquet")


def test_the_signature_is_what_was_written(tmp_path: Path) -> None:
    with Verdicts(save(tmp_path / "v.parquet", table())) as verdicts:
        assert verdicts.signature == json.loads('{"seed": 0}')
