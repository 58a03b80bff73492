"""What tests of several packages share."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encagg_cli.verdicts.schema import SCHEMA, SCHEMA_VERSION, SIGNATURE_KEY, VERSION_KEY

# A loaded machine is slow: a deadline would fail tests of what is right.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

Row = Mapping[str, Any]
DEFAULTS: Row = {"method": "encagg", "accepted": True, "score": 0.0, "reason": "kept", "trusted": False}


@pytest.fixture(scope="session")
def save_verdicts() -> Callable[..., Path]:
    """Writes a verdict file from rows as mappings, by Arrow alone; what a row leaves out is `DEFAULTS` or null."""

    def save(
        path: Path, rows: Iterable[Row], *, signature: Mapping[str, Any] | None = None, rows_in_group: int | None = None
    ) -> Path:
        whole = [{**dict.fromkeys(SCHEMA.names), **DEFAULTS, **row} for row in rows]
        metadata = {VERSION_KEY: SCHEMA_VERSION, SIGNATURE_KEY: json.dumps(signature or {})}
        columns = [pa.array([row[field.name] for row in whole], type=field.type) for field in SCHEMA]
        table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata(metadata))
        pq.write_table(table, path, row_group_size=rows_in_group)
        return path

    return save


@pytest.fixture(scope="session")
def attacked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rounds of 14 clients on digits, four of them known-benign, up to half of them poisoning."""
    from encagg_cli.federation.setup import Setup
    from encagg_cli.federation.simulate import simulate

    path = tmp_path_factory.mktemp("runs") / "attacked"
    setup = Setup(clients=14, rounds=4, trusted=4, attacks=("lie", "sign-flip"), ratio=0.5, partition="iid", seed=3)
    simulate(setup, run=path)
    return path
