"""The table that ends `encagg filter`: what each method rejected, and a picture of it by round."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from encagg_cli import console

if TYPE_CHECKING:
    from encagg_cli.verdicts.tally import Tally

_PICTURE_WIDTH = 24
_COUNTS = ("rejected", "of\nuploads", "known-benign\nrejected")
_AGGREGATES = "aggregates only"


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
                "aggregates_only": not counted.rejects,
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
    rows = sorted(tally.methods.items(), key=lambda row: not row[1].rejects)
    least = console.name_width(text for text, _ in rows)

    def make(left_out: frozenset[str]) -> Table:
        title = f"{console.counted(len(tally.rounds), 'round')} filtered"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("method", overflow="fold", min_width=least)
        kept = [heading for heading in _COUNTS if heading not in left_out]
        for heading in kept:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("rejected\nby round", no_wrap=True, min_width=max(width, len(_AGGREGATES)))
        for text, counted in rows:
            share = f"{counted.rejected / counted.uploads:.1%}" if counted.uploads else "-"
            counts = (share, str(counted.uploads), str(counted.trusted_rejected))
            cells = dict(zip(_COUNTS, counts, strict=True))
            picture = sparkline(counted.rejected_share, width) if counted.rejects else _AGGREGATES
            table.add_row(console.plain(text), *(cells[heading] for heading in kept), picture)
        return table

    console.stdout().print(console.narrowed(make, (_COUNTS[1], _COUNTS[2], _COUNTS[0])))
    if not all(counted.rejects for _, counted in rows):
        console.note(f"{_AGGREGATES}: such a rule rejects nobody; its work is in --aggregate")
    for number, client in tally.non_finite[:5]:
        console.warn(f"round {number}, client {client}: NaN or infinite values; rejected, and kept out of every sum")
    if len(tally.non_finite) > 5:
        console.warn(
            f"… and {console.counted(len(tally.non_finite) - 5, 'more such upload')}: reason 'non-finite' in {output}"
        )
    console.note(f"verdicts: {output}")
    if tally.labelled:
        console.note(f"next: encagg score {output}")
    else:
        console.note(f"next: encagg score {output} --labels FILE    ({run} says of no upload whether it is poisoned)")
        console.note(f"      encagg score {output} --max-rejected 0.3    needs no labels")
    console.note(f"      encagg report {output} -o report.html    shows why")
