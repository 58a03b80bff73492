"""A row of shares as one line of blocks."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ASCII: Final = "_.-=+*%#"


def sparkline(shares: Sequence[float | None], width: int, *, ascii_only: bool = False) -> str:
    """Shares from 0 to 1 as at most `width` characters; 0 is a dot, None a blank.

    More than `width` of them are averaged in groups of neighbours, those that are None left out.
    """
    if len(shares) > width:
        edges = [index * len(shares) // width for index in range(width + 1)]
        shares = [_mean(shares[start:end]) for start, end in pairwise(edges)]
    levels, nothing = (_ASCII, "'") if ascii_only else (_BLOCKS, "·")
    return "".join(
        " " if share is None else nothing if share <= 0 else levels[min(int(share * len(levels)), len(levels) - 1)]
        for share in shares
    )


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None
