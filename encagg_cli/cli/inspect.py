"""`encagg inspect`: what is stored, and whether it is sound."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encagg_cli import console
from encagg_cli.errors import UnusableInput

if TYPE_CHECKING:
    from encagg_cli.rounds.summary import RoundSummary, RunSummary

_SHOWN_ROUNDS = 40
_SHOWN_NAMES = 6
_HEADINGS = ("round", "clients", "known-\nbenign", "poisoned", "updates", "digest", "size")


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run: a folder of rounds, or one packed file.", show_default=False)
    ],
    verify: Annotated[bool, typer.Option("--verify", help="Read every update, and hash it again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
) -> None:
    """Show what a run holds, and whether it is sound (exit 4 where it is not).

    [bold]Examples[/bold]

      encagg inspect runs/mnist

      encagg inspect runs/mnist --verify

      encagg inspect runs/mnist --json | jq '.rounds[].digest'
    """
    from encagg_cli.cli.progress import track
    from encagg_cli.kinds import expect_run
    from encagg_cli.rounds.summary import summarise
    from encagg_cli.rounds.verify import verify as verify_round

    expect_run(run)
    what = "verifying" if verify else "reading"
    found = summarise(run, check=verify_round if verify else None, watch=lambda numbers: track(numbers, what))
    if as_json:
        typer.echo(json.dumps(as_document(found, verified=verify), indent=2))
    else:
        _print(found)
    for item in found.damaged:
        console.warn(f"round {item.number}: {item.problem}")
    total = console.counted(len(found.rounds), "round")
    if found.damaged:
        numbers = ", ".join(str(item.number) for item in found.damaged[:_SHOWN_NAMES])
        more = " …" if len(found.damaged) > _SHOWN_NAMES else ""
        raise UnusableInput(
            f"{run}: {len(found.damaged)} of {total} cannot be used: {numbers}{more}",
            hint="the other rounds can; move the damaged files away to go on without them",
        )
    if verify:
        console.note(f"verified: {total}, each what was stored")


def as_document(found: "RunSummary", *, verified: bool) -> dict[str, Any]:
    """The summary as data, for `--json`."""
    return {
        "schema": "encagg-inspect-1",
        "run": str(found.path),
        "packed": found.is_packed,
        "verified": verified,
        "bytes": found.n_bytes,
        "free_bytes": found.free_bytes,
        "clients": list(found.clients),
        "trusted": list(found.trusted),
        "parameters": {
            "count": sum(parameter.size for parameter in found.parameters),
            "tensors": [
                {"name": parameter.name, "shape": list(parameter.shape), "role": parameter.role}
                for parameter in found.parameters
            ],
        },
        "missing_rounds": [list(gap) for gap in found.missing],
        "interrupted": [partial.path.name for partial in found.unfinished if not partial.is_live],
        "being_written": [partial.path.name for partial in found.unfinished if partial.is_live],
        "rounds": [_round_document(item) for item in found.rounds],
    }


def _round_document(item: "RoundSummary") -> dict[str, Any]:
    document: dict[str, Any] = {
        "round": item.number,
        "files": list(item.files),
        "bytes": item.n_bytes,
        "problem": item.problem,
    }
    if item.problem is None:
        document |= {
            "session": item.session,
            "created": item.created,
            "update_kind": item.update_kind,
            "dtype": item.stored_type,
            "compressed": item.is_compressed,
            "digest": item.digest,
            "clients": item.n_clients,
            "trusted": item.n_trusted,
            "poisoned": item.n_poisoned,
            "honest": item.n_honest,
            "unlabelled": item.n_clients - item.n_poisoned - item.n_honest,
            "attacks": item.attacks,
            "non_finite": list(item.non_finite),
            "global_model": item.has_global_model,
            "root_gradient": item.has_root_gradient,
        }
    return document


def _print(found: "RunSummary") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    out = console.stdout()
    for name, value in _facts(found):
        out.print(f"{name:<12} {console.plain(value)}", markup=False)
    rows = [_cells(item) for item in _shown(found.rounds)]

    def make(left_out: frozenset[str]) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        kept = [index for index, heading in enumerate(_HEADINGS) if heading not in left_out]
        for index in kept:
            widest = max(len(row[index]) for row in rows)
            is_text = _HEADINGS[index] in {"updates", "digest"}
            table.add_column(_HEADINGS[index], justify="left" if is_text else "right", no_wrap=True, min_width=widest)
        for row in rows:
            table.add_row(*(row[index] for index in kept))
        return table

    out.print(console.narrowed(make, ("digest", "updates", "size", "known-\nbenign", "poisoned")))


def _facts(found: "RunSummary") -> list[tuple[str, str]]:
    from encagg_cli.rounds.estimate import human_bytes
    from encagg_cli.rounds.layout import ROLE_OUTPUT

    sound = [item for item in found.rounds if item.problem is None]
    output = [parameter.name for parameter in found.parameters if parameter.role == ROLE_OUTPUT]
    size = sum(parameter.size for parameter in found.parameters)
    models = sum(item.has_global_model for item in sound)
    roots = sum(item.has_root_gradient for item in sound)
    facts = [
        ("run", f"{found.path} ({'one packed file' if found.is_packed else 'a folder'})"),
        ("rounds", f"{len(found.rounds)}: {found.rounds[0].number} to {found.rounds[-1].number}"),
        ("parameters", f"{size:,} in {console.counted(len(found.parameters), 'tensor')}" + _of("output layer", output)),
        ("clients", f"{len(found.clients)}" + _of("known-benign", found.trusted)),
        ("labels", _labels(sound)),
        ("models", f"global model in {console.counted(models, 'round')}, root gradient in {roots:,}"),
        (
            "size",
            f"{human_bytes(found.n_bytes)}, {human_bytes(found.n_bytes / len(found.rounds))} a round; "
            f"{human_bytes(found.free_bytes)} free, for {found.rounds_that_fit:,} more",
        ),
    ]
    sessions = {item.session for item in sound}
    if len(sessions) > 1:
        facts.append(("sessions", f"{len(sessions)} (recording was begun anew)"))
    if found.missing:
        gaps = [f"{first}" if first == last else f"{first} to {last}" for first, last in found.missing]
        facts.append(("missing", "rounds " + _some(gaps)))
    non_finite = [f"{client} in round {item.number}" for item in sound for client in item.non_finite]
    if non_finite:
        facts.append(("non-finite", _some(non_finite)))
    for title, is_live in (("interrupted", False), ("in progress", True)):
        names = [partial.path.name for partial in found.unfinished if partial.is_live == is_live]
        if names:
            facts.append((title, _some(names)))
    return facts


def _labels(rounds: "list[RoundSummary]") -> str:
    poisoned, honest = sum(item.n_poisoned for item in rounds), sum(item.n_honest for item in rounds)
    unknown = sum(item.n_clients for item in rounds) - poisoned - honest
    attacks: dict[str, int] = {}
    for item in rounds:
        for attack, count in item.attacks.items():
            attacks[attack] = attacks.get(attack, 0) + count
    named = [f"{attack} {count}" for attack, count in attacks.items()]
    return f"{console.counted(poisoned, 'upload')} poisoned, {honest} honest, {unknown} unknown" + _of("attacks", named)


def _of(what: str, names: "list[str] | tuple[str, ...]") -> str:
    return f"; {what}: {_some(names)}" if names else ""


def _some(names: "list[str] | tuple[str, ...]") -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _shown(rounds: "tuple[RoundSummary, ...]") -> "list[RoundSummary | None]":
    if len(rounds) <= _SHOWN_ROUNDS:
        return list(rounds)
    return [*rounds[: _SHOWN_ROUNDS // 2], None, *rounds[-_SHOWN_ROUNDS // 2 :]]


def _cells(item: "RoundSummary | None") -> tuple[str, ...]:
    from encagg_cli.rounds.estimate import human_bytes

    if item is None:
        return ("…",) * 7
    if item.problem is not None:
        return (str(item.number), "", "", "", "cannot be used", "", human_bytes(item.n_bytes))
    labelled = item.n_poisoned + item.n_honest
    return (
        str(item.number),
        str(item.n_clients),
        str(item.n_trusted),
        str(item.n_poisoned) if labelled else "?",
        f"{item.update_kind} {item.stored_type}" + (" gzip" if item.is_compressed else ""),
        item.digest.partition(":")[2][:12],
        human_bytes(item.n_bytes),
    )
