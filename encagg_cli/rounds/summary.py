"""What a run holds, as data: for `encagg inspect`."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import gcd
from pathlib import Path

import numpy as np

from encagg_cli.errors import NothingToDo, UnusableInput
from encagg_cli.rounds.directory import PartialFile, partial_files, round_files
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import StoredRound
from encagg_cli.rounds.shard import read_outline, read_shard


@dataclass(frozen=True)
class RoundSummary:
    """One round. `problem` says what is wrong with it; then only `number`, `files` and `n_bytes` are known."""

    number: int
    files: tuple[str, ...]
    n_bytes: int
    problem: str | None = None
    session: str = ""
    created: str = ""
    update_kind: str = ""
    stored_type: str = ""
    is_compressed: bool = False
    digest: str = ""
    n_clients: int = 0
    n_trusted: int = 0
    n_poisoned: int = 0
    n_honest: int = 0
    attacks: dict[str, int] = field(default_factory=dict)
    non_finite: tuple[str, ...] = ()
    has_global_model: bool = False
    has_root_gradient: bool = False


@dataclass(frozen=True)
class RunSummary:
    """A run. `missing` are the rounds that its numbering leads one to expect, as (first, last) pairs."""

    path: Path
    is_packed: bool
    parameters: tuple[Parameter, ...]
    rounds: tuple[RoundSummary, ...]
    clients: tuple[str, ...]
    trusted: tuple[str, ...]
    missing: tuple[tuple[int, int], ...]
    unfinished: tuple[PartialFile, ...]
    n_bytes: int
    free_bytes: int

    @property
    def damaged(self) -> tuple[RoundSummary, ...]:
        return tuple(item for item in self.rounds if item.problem is not None)

    @property
    def rounds_that_fit(self) -> int:
        """How many more rounds of this size the disk takes."""
        return int(self.free_bytes // max(1, self.n_bytes / max(1, len(self.rounds))))


def summarise(
    path: Path,
    *,
    check: Callable[[StoredRound], None] | None = None,
    watch: Callable[[Sequence[int]], Iterable[int]] = lambda numbers: numbers,
) -> RunSummary:
    """Look at every round of a run, `check` each, and collect what is wrong instead of stopping at it.

    `watch` passes on the numbers while it shows progress. Raises UnusableInput where `path` is no run at all,
    NothingToDo where it holds no round.
    """
    files, unfinished = _files(path)
    parameters: tuple[Parameter, ...] = ()
    clients: dict[str, bool] = {}
    rounds = []
    for number in watch(list(files)):
        n_bytes = sum(file.stat().st_size for file in files[number]) if path.is_dir() else 0
        names = tuple(file.name for file in files[number])
        try:
            with StoredRound([read_shard(file, number) for file in files[number]]) as stored:
                if parameters and stored.parameters != parameters:
                    raise UnusableInput(f"{files[number][0]} holds updates of another model than the rounds before it")
                parameters = stored.parameters
                if check is not None:
                    check(stored)
                rounds.append(_summary(stored, names, n_bytes))
        except UnusableInput as error:
            rounds.append(RoundSummary(number, names, n_bytes, problem=error.message))
            continue
        for client, trusted in zip(stored.client_ids, stored.trusted.tolist(), strict=True):
            clients[client] = clients.get(client, False) or trusted
    return RunSummary(
        path=path,
        is_packed=path.is_file(),
        parameters=parameters,
        rounds=tuple(rounds),
        clients=tuple(sorted(clients)),
        trusted=tuple(sorted(client for client, trusted in clients.items() if trusted)),
        missing=missing_rounds(list(files)),
        unfinished=tuple(unfinished),
        n_bytes=sum(file.stat().st_size for file in {file for found in files.values() for file in found}),
        free_bytes=shutil.disk_usage(path if path.is_dir() else path.parent).free,
    )


def missing_rounds(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Gaps, as (first, last) pairs. Rounds of which every N-th is recorded have no gaps but of those."""
    pairs = list(pairwise(numbers))
    step = gcd(*(after - before for before, after in pairs)) or 1
    return tuple((before + step, after - step) for before, after in pairs if after - before > step)


def _files(path: Path) -> tuple[dict[int, tuple[Path, ...]], list[PartialFile]]:
    if not path.exists():
        raise UnusableInput(f"there is no run {path}", hint="encagg capture makes one")
    if path.is_file():
        _, numbers = read_outline(path)
        if not numbers:
            raise NothingToDo(f"{path} holds no round")
        return dict.fromkeys(numbers, (path,)), []
    unfinished = partial_files(path)
    files = {number: tuple(file.path for file in found) for number, found in round_files(path).items()}
    if not files:
        names = ", ".join(partial.path.name for partial in unfinished)
        raise NothingToDo(f"{path} holds no round" + (f", only what is unfinished: {names}" if names else ""))
    return files, unfinished


def _summary(stored: StoredRound, files: tuple[str, ...], n_bytes: int) -> RoundSummary:
    finite = np.isfinite(stored.norms)
    return RoundSummary(
        number=stored.number,
        files=files,
        n_bytes=n_bytes or _stored_bytes(stored),
        session=stored.session,
        created=stored.created,
        update_kind=stored.update_kind,
        stored_type=stored.stored_type,
        is_compressed=any(shard.is_compressed for shard in stored.shards),
        digest=stored.digest,
        n_clients=len(stored.client_ids),
        n_trusted=int(stored.trusted.sum()),
        n_poisoned=int((stored.poisoned == 1).sum()),
        n_honest=int((stored.poisoned == 0).sum()),
        attacks=dict(sorted(Counter(attack for attack in stored.attack if attack).items())),
        non_finite=tuple(client for client, is_finite in zip(stored.client_ids, finite, strict=True) if not is_finite),
        has_global_model=stored.has_global_model,
        has_root_gradient=stored.has_root_gradient,
    )


def _stored_bytes(stored: StoredRound) -> int:
    """Of a round within a packed file: its rows and vectors."""
    return sum(int(shard.chunk_bytes.sum()) + 4 * len(shard.vectors) * shard.n_parameters for shard in stored.shards)
