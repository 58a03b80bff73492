"""The table that ends `encagg filter`: what each method rejected, and a picture of it by round."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encagg_cli import console

if TYPE_CHECKING:
    from encagg_cli.verdicts.tally import Tally

_LEVELS = "▁▂▃▄▅▆▇█"
_PICTURE_WIDTH = 30


def sparkline(shares: Sequence[float], width: int = _PICTURE_WIDTH) -> str:
    """Shares between 0 and 1 as one line of blocks; more than `width` of them are averaged in groups. 0 is a dot."""
    if len(shares) > width:
        edges = [round(index * len(shares) / width) for index in range(width + 1)]
        shares = [sum(shares[a:b]) / (b - a) for a, b in pairwise(edges)]
    return "".join("·" if share <= 0 else _LEVELS[min(int(share * 8), 7)] for share in shares)


def as_document(tally: "Tally", output: Path) -> dict[str, Any]:
    """The summary as data, for `--json`."""
    return {
        "schema": "encagg-filter-1",
        "verdicts": str(output),
        "rounds": tally.rounds,
        "non_finite": [{"round": number, "client_id": client} for number, client in tally.non_finite],
        "methods": [
            {
                "method": text,
                "uploads": counted.uploads,
                "rejected": counted.rejected,
                "known_benign_rejected": counted.trusted_rejected,
                "reasons": counted.reasons,
            }
            for text, counted in tally.methods.items()
        ],
    }


def print_summary(tally: "Tally", output: Path, run: Path) -> None:
    """Print the table to stdout and the next step to stderr."""
    from rich.table import Table

    table = Table(title=f"{len(tally.rounds)} rounds filtered", title_justify="left")
    table.add_column("method", overflow="fold")
    table.add_column("uploads", justify="right")
    table.add_column("rejected", justify="right")
    table.add_column("known-benign\nrejected", justify="right")
    table.add_column("rejected by round", no_wrap=True, min_width=min(len(tally.rounds), _PICTURE_WIDTH))
    for text, counted in tally.methods.items():
        share = f"{counted.rejected} ({counted.rejected / counted.uploads:.0%})" if counted.uploads else "0"
        known_benign = str(counted.trusted_rejected)
        table.add_row(text, str(counted.uploads), share, known_benign, sparkline(counted.rejected_share))
    console.stdout().print(table)
    for number, client in tally.non_finite[:5]:
        console.warn(f"round {number}, client {client}: NaN or infinite values; rejected, and kept out of every sum")
    if len(tally.non_finite) > 5:
        console.warn(f"… and {len(tally.non_finite) - 5} more such uploads: reason 'non-finite' in {output}")
    console.note(f"verdicts: {output}\nnext: encagg score {output}    (or --labels FILE where {run} holds no labels)")
