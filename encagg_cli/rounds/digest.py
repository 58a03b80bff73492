"""The digest of a round's updates: one hash a row, made while it is written, combined in the order of client ids.

So it depends neither on the order of arrival, nor on how a session's processes shared the round, nor on compression
(FORMAT.md gives the definition).
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.rounds.layout import FORMAT, FORMAT_VERSION, StoredType

ROW_DIGEST_BYTES: Final = 32
_PREFIX: Final = "sha256:"


def bytes_digest(stored: NDArray[np.generic]) -> bytes:
    """SHA-256 of an array's bytes as stored."""
    return hashlib.sha256(stored.data.cast("B")).digest()


def as_text(digest: bytes) -> str:
    return _PREFIX + digest.hex()


def combine(rows: Iterable[tuple[str, bytes]], stored_type: StoredType, n_parameters: int) -> str:
    """The round's digest from (client id, row digest) pairs, in any order."""
    total = hashlib.sha256(f"{FORMAT} {FORMAT_VERSION} {stored_type}\n".encode() + struct.pack("<Q", n_parameters))
    for client, digest in sorted((client.encode(), digest) for client, digest in rows):
        total.update(struct.pack("<I", len(client)) + client + digest)
    return as_text(total.digest())
