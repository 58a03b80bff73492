"""The results of a bench: one row a round, method and cell, in one Parquet file."""

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = "1"
VERSION_KEY: Final = b"encagg.bench_version"
SETTINGS_KEY: Final = b"encagg.bench_settings"

_WORD = pa.dictionary(pa.int32(), pa.string())

NO_FILTER: Final = "no-filter"  # the plain mean of all finite uploads: what every filter is compared with

ORACLE: Final = "oracle:"  # begins the names of scores that are told who is honest

# The oracle's rows have the method "oracle:cosine" and the like; `told_f` marks methods that were told the number of
# attackers. Known-benign clients are in no count.
SCHEMA: Final = pa.schema(
    [
        pa.field("run", _WORD, nullable=False),
        pa.field("attack", _WORD, nullable=False),
        pa.field("ratio", pa.float64(), nullable=False),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("method", _WORD, nullable=False),
        pa.field("told_f", pa.bool_(), nullable=False),
        pa.field("tp", pa.int32(), nullable=False),
        pa.field("fp", pa.int32(), nullable=False),
        pa.field("tn", pa.int32(), nullable=False),
        pa.field("fn", pa.int32(), nullable=False),
        pa.field("wins", pa.float64(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("known_benign_rejected", pa.int32(), nullable=False),
        pa.field("harm_distance", pa.float64()),
        pa.field("harm_angle", pa.float64()),
        pa.field("milliseconds", pa.float64()),
    ]
)
