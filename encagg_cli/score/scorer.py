"""From a verdict file to a score: one pass over the verdicts, then figures by method, attack, round and client."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli import __version__
from encagg_cli.errors import NothingToDo, UsageError
from encagg_cli.score.chunks import labelled_rounds
from encagg_cli.score.counts import Chunk, count_attacks, count_clients, count_groups, group_of, rank_scores
from encagg_cli.score.disagreement import Disagreement
from encagg_cli.score.intervals import Interval, intervals
from encagg_cli.score.labelling import Labeller
from encagg_cli.score.labels import LabelTable, Source
from encagg_cli.score.metrics import COLUMN, COLUMNS, Figures, figures
from encagg_cli.score.signature import Signature, sign
from encagg_cli.verdicts.reader import Verdicts
from encagg_cli.verdicts.schema import SCHEMA_VERSION

RESAMPLES: Final = 1000
_WHOLE_COUNTS: Final = tuple(name for name in COLUMNS if name not in {"wins", "pairs", "precision_sum", "mixed_rounds"})

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Section:
    """Figures of some uploads, the counts they come from (of shape (columns,)), and their intervals."""

    counts: Counts
    figures: Figures
    intervals: dict[str, Interval]

    def count(self, name: str) -> int:
        """One of the counts of `metrics.COLUMNS`."""
        return int(self.counts[COLUMN[name]])

    def whole_counts(self) -> dict[str, int]:
        """All counts that are numbers of uploads or rounds, those of either class among them."""
        counts = {name: self.count(name) for name in _WHOLE_COUNTS}
        return {**counts, "poisoned": counts["tp"] + counts["fn"], "honest": counts["fp"] + counts["tn"]}


@dataclass(frozen=True)
class Breakdown:
    """Sections by name or number, as arrays until they are asked for: a run may have very many rounds."""

    names: Sequence[str | int]
    counts: Counts

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str | int, Section]]:
        for name, counts in zip(self.names, self.counts, strict=True):
            yield name, Section(counts, figures(counts), {})


@dataclass(frozen=True)
class MethodScore:
    """One method's figures in total, by attack ("" without a name), by round and, if asked for, by client."""

    method: str
    total: Section
    attacks: dict[str, Section]
    rounds: Breakdown
    clients: Breakdown | None


@dataclass(frozen=True)
class Score:
    """The figures of every method, what decided them, and how well the labels fitted."""

    methods: tuple[MethodScore, ...]
    signature: Signature
    disagreement: Disagreement
    labels: Source

    @property
    def has_labels(self) -> bool:
        """Whether any upload that counts has a label."""
        return any(scored.total.count("labelled_rounds") for scored in self.methods)


def score_verdicts(
    verdicts: Verdicts,
    labels: LabelTable | None = None,
    *,
    methods: Sequence[str] = (),
    by_client: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Score:
    """Score a verdict file, in memory that does not grow with its rows beyond figures by round (and labels given).

    `labels` take the place of those in the file. `methods` are canonical texts, or names that mean every setting of
    the method; default all. Raises UsageError for a method that is not in the file, NothingToDo where there are no
    verdicts, UnusableInput where the file is not sound.
    """
    labeller = Labeller(labels)
    collected = _Collected(labeller, by_client=by_client)
    for chunk in labelled_rounds(verdicts, labeller, lambda name: _is_wanted(name, methods)):
        collected.add(chunk)
    present = labeller.methods.words
    for wanted in methods:
        if present and not any(_is_wanted(name, [wanted]) for name in present):
            raise UsageError(f"no verdict is of the method {wanted!r}", hint=f"there are: {', '.join(present)}")
    if not collected.rounds:
        raise NothingToDo(f"{verdicts.path} holds no verdicts", hint="filter a run that holds rounds")
    labeller.finish(np.unique(np.concatenate(collected.rounds)))
    scored = tuple(collected.method_score(code, resamples, seed) for code in collected.chosen_methods())
    return Score(
        methods=scored,
        signature=_sign(verdicts, labeller, collected, scored, resamples, seed),
        disagreement=labeller.disagreement,
        labels=labeller.source,
    )


def _is_wanted(name: str, methods: Sequence[str]) -> bool:
    return not methods or name in methods or name.partition("(")[0] in methods


class _Collected:
    """Counts by round and method, by round, method and attack, and by client, as chunks come in."""

    def __init__(self, labeller: Labeller, *, by_client: bool) -> None:
        self.labeller = labeller
        self.rounds: list[NDArray[np.int64]] = []
        self.digests = _Digests()
        self._by_client = by_client
        self._groups: list[tuple[NDArray[np.int64], NDArray[np.int64], Counts]] = []
        self._attacks: list[tuple[NDArray[np.int64], NDArray[np.int64], Counts]] = []
        self._clients: dict[tuple[int, int], Counts] = {}

    def add(self, chunk: Chunk) -> None:
        n_methods, n_attacks = len(self.labeller.methods), len(self.labeller.attacks)
        group, rounds = group_of(chunk, n_methods)
        counted = ~chunk.trusted
        ranking = rank_scores(group, chunk.score, counted & (chunk.label == 1), counted & (chunk.label == 0))
        counts = count_groups(chunk, group, len(rounds) * n_methods, ranking)
        cell_group, cell_attack, by_attack = count_attacks(chunk, group, ranking, counts, n_attacks)
        present = np.flatnonzero(counts[:, COLUMN["rounds"]])
        self.rounds.append(rounds)
        self._groups.append((rounds[present // n_methods], present % n_methods, counts[present]))
        self._attacks.append((cell_group % n_methods, cell_attack, by_attack))
        if self._by_client:
            cells, by_client = count_clients(chunk, n_methods)
            for cell, row in zip(cells.tolist(), by_client, strict=True):
                key = divmod(cell, n_methods)
                self._clients[key] = self._clients[key] + row if key in self._clients else row
        self.labeller.count(chunk)
        self.digests.add(chunk, ranking.rank, self.labeller)

    def chosen_methods(self) -> list[int]:
        """Codes of the methods that have verdicts here, in the order of the file."""
        return sorted({int(code) for _, methods, _ in self._groups for code in np.unique(methods)})

    def method_score(self, code: int, resamples: int, seed: int) -> MethodScore:
        rounds = np.concatenate([numbers[methods == code] for numbers, methods, _ in self._groups])
        counts = np.concatenate([values[methods == code] for _, methods, values in self._groups])
        attacks = np.concatenate([names[methods == code] for methods, names, _ in self._attacks])
        by_attack = np.concatenate([values[methods == code] for methods, _, values in self._attacks])
        names = self.labeller.attacks.words
        clients = sorted(
            (self.labeller.clients.words[client], row)
            for (client, method), row in self._clients.items()
            if method == code
        )
        return MethodScore(
            method=self.labeller.methods.words[code],
            total=_section(counts, resamples, seed),
            attacks={
                names[attack]: _section(by_attack[attacks == attack], resamples, seed)
                for attack in sorted(np.unique(attacks).tolist(), key=lambda attack: names[attack])
            },
            rounds=Breakdown(rounds.tolist(), counts),
            clients=Breakdown([name for name, _ in clients], np.array([row for _, row in clients]))
            if self._by_client
            else None,
        )


class _Digests:
    """Digests of what decides the figures, the same however the file is laid out.

    Of the verdicts: round, method, client, verdict, known-benign, and the rank of the score within round and method
    (ranks, since figures depend on no more, and last bits differ between machines). Of the labels: those used.
    """

    def __init__(self) -> None:
        self._verdicts = [hashlib.sha256() for _ in range(6)]
        self._labels = [hashlib.sha256() for _ in range(2)]
        self._words: dict[str, NDArray[np.uint64]] = {}

    def add(self, chunk: Chunk, rank: NDArray[np.int64], labeller: Labeller) -> None:
        method = self._names("method", labeller.methods.words)[chunk.method]
        client = self._names("client", labeller.clients.words)[chunk.client]
        attack = np.append(self._names("attack", labeller.attacks.words), np.uint64(0))[chunk.attack]
        decided: tuple[NDArray[Any], ...] = (chunk.round, method, client, chunk.accepted, chunk.trusted, rank)
        used: tuple[NDArray[Any], ...] = (chunk.label, attack)
        for digests, columns in ((self._verdicts, decided), (self._labels, used)):
            for digest, column in zip(digests, columns, strict=True):
                digest.update(_little_endian(column))

    def verdicts(self) -> str:
        return hashlib.sha256(b"".join(digest.digest() for digest in self._verdicts)).hexdigest()[:16]

    def labels(self) -> str:
        return hashlib.sha256(b"".join(digest.digest() for digest in self._labels)).hexdigest()[:16]

    def _names(self, kind: str, words: Sequence[str]) -> NDArray[np.uint64]:
        """A 64-bit digest of each word, so that codes, which depend on the file's layout, are not what is hashed."""
        known = self._words.get(kind, np.zeros(0, dtype=np.uint64))
        if len(known) < len(words):
            new = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words[len(known) :])
            known = self._words[kind] = np.concatenate([known, np.frombuffer(new, dtype="<u8")])
        return known


def _little_endian(column: NDArray[Any]) -> bytes:
    return column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes()


def _section(by_round: Counts, resamples: int, seed: int) -> Section:
    total = by_round.sum(axis=0)
    values = figures(total)
    return Section(total, values, intervals(by_round, values, resamples, seed))


def _sign(
    verdicts: Verdicts,
    labeller: Labeller,
    collected: _Collected,
    scored: Sequence[MethodScore],
    resamples: int,
    seed: int,
) -> Signature:
    """The counts are the first method's: all methods of a replay judge the same uploads."""
    counts = scored[0].total.whole_counts()
    return sign(
        version=__version__,
        filter_signature=verdicts.signature,
        methods=[one.method for one in scored],
        verdicts={"schema": SCHEMA_VERSION, "digest": collected.digests.verdicts()},
        labels={"source": labeller.source, "digest": collected.digests.labels()},
        counts={
            "rounds": counts["rounds"],
            "clients": len(labeller.clients),
            **{name: counts[name] for name in ("uploads", "poisoned", "honest", "unlabelled", "known_benign")},
        },
        bootstrap={"resamples": resamples, "seed": seed},
    )
