"""The table that ends `encagg filter`: what each method rejected, and a picture of it by round."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from encagg_cli import console

if TYPE_CHECKING:
    from encagg_cli.verdicts.tally import Tally

_PICTURE_WIDTH = 24


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
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from encagg_cli.score.picture import sparkline

    width = min(len(tally.rounds), _PICTURE_WIDTH)
    table = Table(
        title=f"{console.counted(len(tally.rounds), 'round')} filtered",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("method", overflow="fold", min_width=22)
    table.add_column("rejected", justify="right", no_wrap=True)
    table.add_column("of\nuploads", justify="right")
    table.add_column("known-benign\nrejected", justify="right")
    table.add_column("rejected by round", no_wrap=True, min_width=width)
    for text, counted in tally.methods.items():
        share = f"{counted.rejected / counted.uploads:.1%}" if counted.uploads else "-"
        picture = sparkline(counted.rejected_share, width)
        table.add_row(console.plain(text), share, str(counted.uploads), str(counted.trusted_rejected), picture)
    console.stdout().print(table)
    for number, client in tally.non_finite[:5]:
        console.warn(f"round {number}, client {client}: NaN or infinite values; rejected, and kept out of every sum")
    if len(tally.non_finite) > 5:
        console.warn(
            f"… and {console.counted(len(tally.non_finite) - 5, 'more such upload')}: reason 'non-finite' in {output}"
        )
    console.note(f"verdicts: {output}")
    console.note(f"next: encagg score {output}")
    if not tally.labelled:
        console.note(f"  with --labels FILE: {run} holds no labels")
    console.note(f"  encagg report {output} -o report.html  shows why")
