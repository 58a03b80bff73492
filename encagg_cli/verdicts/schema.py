"""The verdict table: its columns, types and metadata. One row a round, client and method."""

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = "1"
VERSION_KEY: Final = b"encagg.schema_version"
SIGNATURE_KEY: Final = b"encagg.signature"

_WORD = pa.dictionary(pa.int32(), pa.string())

SCHEMA: Final = pa.schema(
    [
        pa.field("round", pa.int32(), nullable=False),
        pa.field("client_id", _WORD, nullable=False),
        pa.field("method", _WORD, nullable=False),
        pa.field("accepted", pa.bool_(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("statistic", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("weight", pa.float64()),
        pa.field("reason", _WORD, nullable=False),
        pa.field("cluster", pa.int32()),
        pa.field("x", pa.float64()),
        pa.field("y", pa.float64()),
        pa.field("trusted", pa.bool_(), nullable=False),
        pa.field("poisoned", pa.bool_()),
        pa.field("attack", _WORD),
    ]
)
