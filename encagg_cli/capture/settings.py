"""What a recorder can be asked for, and what means nothing."""

import numpy as np

from encagg_cli.capture.trouble import ON_ERROR
from encagg_cli.errors import UsageError
from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import COMPRESSIONS


def check_settings(update_kind: str, dtype: str, compression: str | None, every: int, on_error: str) -> None:
    """Raise UsageError where a setting of `Recorder` is none that it knows."""
    for name, value, known in (
        ("update_kind", update_kind, layout.UPDATE_KINDS),
        ("dtype", dtype, layout.STORED_TYPES),
        ("compression", compression, (None, *COMPRESSIONS)),
        ("on_error", on_error, ON_ERROR),
    ):
        if value not in known:
            raise UsageError(f"{name} is one of {', '.join(map(str, known))}, not {value!r}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise UsageError(f"every is a whole number of at least 1, not {every!r}")


def as_round(number: int) -> int:
    """A round's number as Python has it; raises UsageError where it is none."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number <= layout.LAST_ROUND:
        raise UsageError(f"a round's number is between 0 and {layout.LAST_ROUND}, not {number!r}")
    return int(number)
