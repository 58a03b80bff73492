"""Putting labels beside verdicts, batch by batch, and noting where the two disagree."""

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from encagg_cli.score.counts import NO_ATTACK, UNLABELLED, Chunk
from encagg_cli.score.disagreement import EXAMPLES, Disagreement
from encagg_cli.score.labels import MISSING, LabelTable, Source, Upload

VERDICT_COLUMNS: Final = ("round", "client_id", "method", "accepted", "score", "trusted", "poisoned", "attack")


class Words:
    """Codes for words, in order of first appearance; the same across batches whose dictionaries differ."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._codes: dict[str, int] = {}
        self._dictionary: pa.Array | None = None
        self._map = np.zeros(0, dtype=np.int64)

    def encode(self, column: pa.DictionaryArray, *, null: int = MISSING) -> NDArray[np.int64]:
        """The code of each row; `null` where it is empty."""
        dictionary = column.dictionary
        if self._dictionary is None or not dictionary.equals(self._dictionary):
            self._map = np.array([self.code(word) for word in dictionary.to_pylist()], dtype=np.int64)
            self._dictionary = dictionary
        if column.null_count == len(column):
            return np.full(len(column), null, dtype=np.int64)
        indices = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        if column.null_count:
            return np.where(indices < 0, null, self._map[indices])
        return np.asarray(self._map[indices], dtype=np.int64)

    def code(self, word: str) -> int:
        """The code of one word, made if need be."""
        code = self._codes.setdefault(word, len(self._codes))
        if code == len(self.words):
            self.words.append(word)
        return code

    def __len__(self) -> int:
        return len(self.words)


class Labeller:
    """Turns batches of verdicts into chunks with labels: of a label table, or the verdicts' own where there is none."""

    def __init__(self, table: LabelTable | None) -> None:
        self.table = table
        self.methods, self.clients, self.attacks = Words(), Words(), Words()
        self.disagreement = Disagreement()
        self._label_client = np.zeros(0, dtype=np.int64)  # client code here to client code of the label table
        self._matched = np.zeros(0 if table is None else len(table), dtype=bool)
        self._attack_code = (
            np.zeros(0, dtype=np.int64)
            if table is None
            else np.array([self.attacks.code(name) for name in table.attacks], dtype=np.int64)
        )
        self._any_label = False

    @property
    def source(self) -> Source:
        """Where the labels come from; "none" where no upload had one so far."""
        if self.table is not None:
            return self.table.source
        return "verdicts" if self._any_label else "none"

    def attach(self, batch: pa.RecordBatch) -> Chunk:
        """A batch with the columns `VERDICT_COLUMNS`, as arrays with labels."""
        rounds = batch.column("round").to_numpy(zero_copy_only=False).astype(np.int64)
        client = self.clients.encode(batch.column("client_id"))
        own = batch.column("poisoned").cast(pa.int8()).fill_null(UNLABELLED).to_numpy(zero_copy_only=False)
        own_attack = self.attacks.encode(batch.column("attack"), null=self.attacks.code(""))
        if self.table is None:
            label, attack = own, own_attack
            self._any_label = self._any_label or bool((own != UNLABELLED).any())
        else:
            label, attack = self._look_up(rounds, client, own_attack)
        return Chunk(
            round=rounds,
            method=self.methods.encode(batch.column("method")),
            client=client,
            accepted=_mask(batch.column("accepted")),
            score=batch.column("score").to_numpy(zero_copy_only=False),
            trusted=_mask(batch.column("trusted")),
            label=label,
            attack=np.where(label == 1, attack, NO_ATTACK),
            contradicted=(own != UNLABELLED) & (label != UNLABELLED) & (own != label),
        )

    def count(self, chunk: Chunk) -> None:
        """Note what a chunk of whole rounds shows: uploads without labels, and labels that are odd."""
        d = self.disagreement
        _, first = np.unique(chunk.round * len(self.clients) + chunk.client, return_index=True)
        rounds, clients = chunk.round[first], chunk.client[first]
        trusted, label = chunk.trusted[first], chunk.label[first]
        unlabelled = ~trusted & (label == UNLABELLED)
        d.uploads += int((~trusted).sum())
        d.contradicted += int(chunk.contradicted[first].sum())
        odd = trusted & (label == 1)
        d.trusted_poisoned += int(odd.sum())
        d.note("trusted_poisoned", self._describe(rounds[odd], clients[odd]))
        if unlabelled.any():
            d.unlabelled += int(unlabelled.sum())
            d.note("unlabelled", self._describe(rounds[unlabelled], clients[unlabelled]))
            d.missing_rounds.extend(np.setdiff1d(rounds[~trusted], rounds[label != UNLABELLED]).tolist())

    def finish(self, rounds_seen: NDArray[np.int64]) -> None:
        """After the last chunk: what the labels hold that the verdicts, of these rounds (ascending), do not."""
        table = self.table
        if table is None or not len(rounds_seen):
            return
        d = self.disagreement
        rounds = table.rounds()
        inside = (rounds >= rounds_seen[0]) & (rounds <= rounds_seen[-1])
        unmatched = np.flatnonzero(inside & ~self._matched)
        d.labels, d.duplicates = len(table), table.duplicates
        d.outside, d.unmatched = int((~inside).sum()), len(unmatched)
        d.note("unmatched", table.describe(unmatched[:EXAMPLES].tolist()))
        d.unknown_rounds = np.setdiff1d(rounds[unmatched], rounds_seen).tolist()
        known = set(self.clients.words)
        d.unknown_clients = sorted(name for name in table.client_names(unmatched) if name not in known)

    def _look_up(
        self, rounds: NDArray[np.int64], client: NDArray[np.int64], own_attack: NDArray[np.int64]
    ) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        table = self.table
        assert table is not None
        new = self.clients.words[len(self._label_client) :]
        codes = np.array([table.clients.get(name, MISSING) for name in new], dtype=np.int64)
        self._label_client = np.concatenate([self._label_client, codes])
        rows = table.find(rounds, self._label_client[client])
        found = rows != MISSING
        self._matched[rows[found]] = True
        label = np.full(len(rounds), UNLABELLED, dtype=np.int8)
        label[found] = table.poisoned[rows[found]]
        attack = own_attack.copy()
        if table.names_attacks:
            attack[found] = self._attack_code[table.attack[rows[found]]]
        return label, attack

    def _describe(self, rounds: NDArray[np.int64], clients: NDArray[np.int64]) -> list[Upload]:
        few = zip(rounds[:EXAMPLES].tolist(), clients[:EXAMPLES].tolist(), strict=True)
        return [(number, self.clients.words[client]) for number, client in few]


def _mask(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)
