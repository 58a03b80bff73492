"""Counting verdicts against labels, vectorised over whole rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encagg_cli.score.metrics import COLUMN, COLUMNS

UNLABELLED: Final = -1
NO_ATTACK: Final = -1

Int = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Chunk:
    """Verdicts with their labels as arrays, one row each.

    round         round numbers, ascending
    method, client, attack  codes; the attack is `NO_ATTACK` where the upload is not labelled poisoned
    score         suspicion, without NaN
    label         1 poisoned, 0 honest, `UNLABELLED`
    contradicted  the label is not the one that came with the verdict
    """

    round: Int
    method: Int
    client: Int
    accepted: Mask
    score: NDArray[np.float64]
    trusted: Mask
    label: NDArray[np.int8]
    attack: Int
    contradicted: Mask

    def __len__(self) -> int:
        return len(self.round)

    def take(self, rows: Mask | slice) -> "Chunk":
        """Some of the rows."""
        return Chunk(*(getattr(self, spec.name)[rows] for spec in fields(self)))

    @staticmethod
    def join(chunks: "Sequence[Chunk]") -> "Chunk":
        """Several chunks, one after the other; at least one."""
        return Chunk(*(np.concatenate([getattr(chunk, spec.name) for chunk in chunks]) for spec in fields(Chunk)))


@dataclass(frozen=True)
class Ranking:
    """Where each upload's score stands among those of its round and method. All of shape (rows,).

    rank           0 for the lowest score of the group; equal scores share a rank
    honest_below   honest uploads with a lower score, those with the same score as halves
    honest_from    honest uploads with this score or a higher one
    poisoned_from  poisoned uploads with this score or a higher one
    """

    rank: Int
    honest_below: NDArray[np.float64]
    honest_from: Int
    poisoned_from: Int


def group_of(chunk: Chunk, n_methods: int) -> tuple[Int, Int]:
    """Each row's group, (round, method), as a number from 0; and the numbers of the rounds, ascending."""
    starts = np.flatnonzero(np.diff(chunk.round, prepend=chunk.round[:1] - 1))
    index = np.zeros(len(chunk), dtype=np.int64)
    index[starts[1:]] = 1
    return np.cumsum(index) * n_methods + chunk.method, chunk.round[starts]


def rank_scores(group: Int, score: NDArray[np.float64], poisoned: Mask, honest: Mask) -> Ranking:
    """Rank scores within groups; rows that are neither poisoned nor honest are ranked but counted nowhere."""
    n = len(group)
    order = np.lexsort((score, group))
    sorted_group, sorted_score = group[order], score[order]
    new_group = np.ones(n, dtype=bool)
    new_group[1:] = sorted_group[1:] != sorted_group[:-1]
    new_tie = new_group.copy()
    new_tie[1:] |= sorted_score[1:] != sorted_score[:-1]
    tie = np.cumsum(new_tie) - 1
    tie_starts, group_starts = np.flatnonzero(new_tie), np.flatnonzero(new_group)
    tie_ends = np.append(tie_starts[1:], n)
    which_group = np.cumsum(new_group) - 1
    group_ends = np.append(group_starts[1:], n)

    def below_tied_from(mask: Mask) -> tuple[Int, Int, Int]:
        """Marked rows of the same group: with a lower score, with the same score, with this score or a higher one."""
        total = np.concatenate([[0], np.cumsum(mask[order])])
        first, last = total[group_starts][which_group], total[group_ends][which_group]
        start, end = total[tie_starts][tie], total[tie_ends][tie]
        return start - first, end - start, last - start

    honest_below, honest_tied, honest_from = below_tied_from(honest)
    _, _, poisoned_from = below_tied_from(poisoned)
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    return Ranking(
        rank=(tie - tie[group_starts][which_group])[back],
        honest_below=(honest_below + 0.5 * honest_tied)[back],
        honest_from=honest_from[back],
        poisoned_from=poisoned_from[back],
    )


def count_groups(chunk: Chunk, group: Int, n_groups: int, ranking: Ranking) -> NDArray[np.float64]:
    """Counts by group, (groups, columns). Uploads of known-benign clients are counted by themselves only."""
    counted = ~chunk.trusted
    poisoned, honest = counted & (chunk.label == 1), counted & (chunk.label == 0)
    unlabelled = counted & (chunk.label == UNLABELLED)
    counts = np.zeros((n_groups, len(COLUMNS)))

    def put(name: str, values: NDArray[np.generic] | float) -> None:
        counts[:, COLUMN[name]] = values

    def number(mask: Mask) -> Int:
        return np.bincount(group[mask], minlength=n_groups)

    rejected = ~chunk.accepted
    tp, fp = number(poisoned & rejected), number(honest & rejected)
    n_poisoned, n_honest = number(poisoned), number(honest)
    n_unlabelled, n_counted = number(unlabelled), number(counted)
    mixed = (n_poisoned > 0) & (n_honest > 0)
    # A poisoned upload of a known-benign client does not count, but the round is no longer without poison.
    clean = (n_honest > 0) & (n_unlabelled == 0) & (number(chunk.label == 1) == 0)
    put("tp", tp)
    put("fp", fp)
    put("tn", n_honest - fp)
    put("fn", n_poisoned - tp)
    put("wins", np.bincount(group[poisoned], ranking.honest_below[poisoned], n_groups))
    put("pairs", n_poisoned * n_honest)
    put("precision_sum", np.where(mixed, _average_precision(group, poisoned, n_groups, n_poisoned, ranking), 0.0))
    put("mixed_rounds", mixed)
    put("clean_fp", np.where(clean, fp, 0))
    put("clean_tn", np.where(clean, n_honest - fp, 0))
    put("clean_rounds", clean)
    put("labelled_rounds", n_poisoned + n_honest > 0)
    put("rounds", np.bincount(group, minlength=n_groups) > 0)
    put("uploads", n_counted)
    put("rejected", number(counted & rejected))
    put("unlabelled", n_unlabelled)
    put("known_benign", number(chunk.trusted))
    put("known_benign_rejected", number(chunk.trusted & rejected))
    return counts


def count_attacks(
    chunk: Chunk, group: Int, ranking: Ranking, by_group: NDArray[np.float64], n_attacks: int
) -> tuple[Int, Int, NDArray[np.float64]]:
    """Counts by attack within groups: the group and the attack of each row of counts.

    The poisoned uploads are that attack's alone; the honest ones are all of the same round's. So precision and FPR of
    an attack are over the rounds in which it occurs, and other attacks' uploads in these rounds do not count.
    """
    poisoned = ~chunk.trusted & (chunk.label == 1)
    rows = np.flatnonzero(poisoned)
    key, cell = np.unique(group[rows] * n_attacks + chunk.attack[rows], return_inverse=True)
    n_cells = len(key)
    cell_group, cell_attack = key // max(n_attacks, 1), key % max(n_attacks, 1)
    rejected = ~chunk.accepted[rows]
    fp, tn = by_group[cell_group, COLUMN["fp"]], by_group[cell_group, COLUMN["tn"]]
    n_poisoned = np.bincount(cell, minlength=n_cells)
    tp = np.bincount(cell[rejected], minlength=n_cells)
    among = rank_scores(cell, chunk.score[rows], np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool))
    precision_at = among.poisoned_from / (among.poisoned_from + ranking.honest_from[rows])
    mixed = fp + tn > 0
    counts = np.zeros((n_cells, len(COLUMNS)))
    values = {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": n_poisoned - tp,
        "wins": np.bincount(cell, ranking.honest_below[rows], n_cells),
        "pairs": n_poisoned * (fp + tn),
        "precision_sum": np.where(mixed, np.bincount(cell, precision_at, n_cells) / np.maximum(n_poisoned, 1), 0.0),
        "mixed_rounds": mixed,
        "labelled_rounds": 1,
        "rounds": 1,
        "uploads": n_poisoned + fp + tn,
        "rejected": tp + fp,
    }
    for name, column in values.items():
        counts[:, COLUMN[name]] = column
    return cell_group, cell_attack, counts


def count_clients(chunk: Chunk, n_methods: int) -> tuple[Int, NDArray[np.float64]]:
    """Counts by client and method: the cells, `client * n_methods + method`, and their counts (cells, columns)."""
    cells, cell = np.unique(chunk.client * n_methods + chunk.method, return_inverse=True)
    counted, rejected = ~chunk.trusted, ~chunk.accepted
    poisoned, honest = counted & (chunk.label == 1), counted & (chunk.label == 0)
    marks = {
        "tp": poisoned & rejected,
        "fp": honest & rejected,
        "tn": honest & chunk.accepted,
        "fn": poisoned & chunk.accepted,
        "rounds": np.ones(len(chunk), dtype=bool),
        "labelled_rounds": poisoned | honest,
        "uploads": counted,
        "rejected": counted & rejected,
        "unlabelled": counted & (chunk.label == UNLABELLED),
        "known_benign": chunk.trusted,
        "known_benign_rejected": chunk.trusted & rejected,
    }
    counts = np.zeros((len(cells), len(COLUMNS)))
    for name, mask in marks.items():
        counts[:, COLUMN[name]] = np.bincount(cell[mask], minlength=len(cells))
    return cells, counts


def _average_precision(
    group: Int, poisoned: Mask, n_groups: int, n_poisoned: Int, ranking: Ranking
) -> NDArray[np.float64]:
    """By group, the mean over its poisoned uploads of the precision at their score, ties included."""
    at = ranking.poisoned_from[poisoned] / (ranking.poisoned_from[poisoned] + ranking.honest_from[poisoned])
    summed = np.bincount(group[poisoned], at, n_groups)
    return np.asarray(summed / np.maximum(n_poisoned, 1), dtype=np.float64)
