"""Hash a stored round again, and measure its norms again."""

from math import isfinite

from encagg_cli.errors import UnusableInput
from encagg_cli.rounds.digest import combine
from encagg_cli.rounds.encoding import norm
from encagg_cli.rounds.reader import StoredRound
from encagg_cli.rounds.rows import RowReader
from encagg_cli.rounds.shard import Shard

_NORM_TOLERANCE = 1e-9  # another program may sum in another order


def verify(stored: StoredRound) -> None:
    """Read all of a round once. Raises UnusableInput, naming file and client, where it is not what was stored.

    What it protects from is damage: whoever can write a file can also write its digests.
    """
    for shard in stored.shards:
        reader = RowReader(shard)
        try:
            _verify_rows(shard, reader)
            for name, vector in shard.vectors.items():
                reader.checked_vector(name, vector)
        finally:
            reader.close()


def _verify_rows(shard: Shard, reader: RowReader) -> None:
    digests = []
    for index, client in enumerate(shard.client_ids):
        row, digest = reader.checked_row(index)
        measured, said = norm(row, shard.stored_type), float(shard.norms[index])
        if not _is_close(measured, said):
            raise UnusableInput(
                f"{shard.path}: round {shard.number}: the update of client {client!r} has the norm {measured:.6g}, "
                f"not the stored {said:.6g}"
            )
        digests.append((client, digest))
    if combine(digests, shard.stored_type, shard.n_parameters) != shard.digest:
        raise UnusableInput(f"{shard.path}: round {shard.number}: the updates do not have the stored digest")


def _is_close(measured: float, said: float) -> bool:
    if not (isfinite(measured) and isfinite(said)):  # then only that it is not finite counts
        return isfinite(measured) == isfinite(said)
    return abs(measured - said) <= _NORM_TOLERANCE * max(measured, said)
