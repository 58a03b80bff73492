"""How much disk a run will take, before it takes it."""

from encagg_cli.rounds.layout import STORED_BYTES, StoredType

_BYTES_PER_CLIENT = 256  # facts, norm, digest, place
_BYTES_PER_FILE = 16_384


def round_bytes(n_clients: int, n_parameters: int, stored_type: StoredType, *, vectors: int = 0) -> int:
    """Bytes of a round without compression; `vectors` counts the global model and the root gradient (float32)."""
    rows = n_clients * (n_parameters * STORED_BYTES[stored_type] + _BYTES_PER_CLIENT)
    return rows + 4 * vectors * n_parameters + _BYTES_PER_FILE


def human_bytes(n_bytes: float) -> str:
    """A size as people read it: `40 GB`, `1.5 MB` (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
