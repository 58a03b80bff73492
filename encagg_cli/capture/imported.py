"""What a run has of a spool already: whether a round was imported, and from the same files."""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from encagg_cli.capture import flatten
from encagg_cli.capture.labels import UNLABELLED
from encagg_cli.capture.material import RoundMaterial
from encagg_cli.capture.tensors import open_tensors
from encagg_cli.capture.updates import num_examples_of, update_of
from encagg_cli.errors import UnusableInput
from encagg_cli.outputs import writing
from encagg_cli.rounds.digest import bytes_digest, combine
from encagg_cli.rounds.encoding import stored_dtype
from encagg_cli.rounds.layout import EXAMPLES_UNKNOWN, POISONED_UNKNOWN
from encagg_cli.rounds.reader import Run, StoredRound

INDEX_NAME: Final = ".spool.jsonl"


class ImportedIndex:
    """In the run's folder: fingerprints of the files that rounds came from, so that they need not be read again.

    A help and no record: of a round that it does not know, the contents are compared. It keeps those of rounds that
    were removed from the run, so that pruning a run whose spool is still there is not undone by the next import.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / INDEX_NAME
        self._entries: dict[int, str] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            try:
                entry = json.loads(line)
                self._entries[int(entry["round"])] = str(entry["files"])
            except (ValueError, TypeError, KeyError):
                continue  # a line cut short by a full disk or a kill

    def get(self, number: int) -> str | None:
        return self._entries.get(number)

    def put(self, number: int, fingerprint: str) -> None:
        self._entries[number] = fingerprint
        line = json.dumps({"round": number, "files": fingerprint})
        with writing(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, f"\n{line}\n".encode())
            finally:
                os.close(descriptor)


def difference(run: Path, material: RoundMaterial) -> str | None:
    """What the run's round has otherwise than the spool, as a clause to follow "and"; None where they are the same."""
    try:
        with Run.open(run).round(material.found.number) as stored:
            return _difference_of_facts(stored, material) or _difference_of_values(stored, material)
    except UnusableInput as error:
        return f"they cannot be compared: {error}"


def _difference_of_facts(stored: StoredRound, material: RoundMaterial) -> str | None:
    settings = material.settings
    if set(material.clients) != set(stored.client_ids):
        return "it has other clients there"
    if (stored.update_kind, stored.stored_type) != (settings.update_kind, settings.dtype):
        return f"it is stored there as {stored.update_kind}s in {stored.stored_type}"
    for index, known_as in enumerate(stored.client_ids):
        client_id, _ = material.clients[known_as]
        label = material.labels.get(client_id, UNLABELLED)
        truth = POISONED_UNKNOWN if label.poisoned is None else int(label.poisoned)
        if (int(stored.poisoned[index]), stored.attack[index]) != (truth, label.attack):
            return f"client {client_id} has another label there"
        if bool(stored.trusted[index]) != (client_id in material.trusted):
            return f"client {client_id} is {'trusted' if stored.trusted[index] else 'not trusted'} there"
    return None


def _difference_of_values(stored: StoredRound, material: RoundMaterial) -> str | None:
    with ExitStack() as files:
        model, root = material.open_vectors(files)
        for what, tensors, kept in (
            ("global model", None if model is None else model.tensors, stored.global_model()),
            ("root gradient", root, stored.root_gradient()),
        ):
            if (tensors is None) != (kept is None):
                return f"it has {'no' if kept is None else 'a'} {what} there"
            if tensors is not None and kept is not None:
                vector = np.empty_like(kept)
                flatten.flatten(update_of(tensors, material.selection), stored.parameters, "float32", vector, what)
                if not np.array_equal(vector, kept, equal_nan=True):
                    return f"it has another {what} there"
        row = np.empty(stored.n_parameters, dtype=stored_dtype(stored.stored_type))
        examples = dict(zip(stored.client_ids, stored.num_examples.tolist(), strict=True))
        digests = []
        for known_as, (client_id, path) in material.clients.items():
            with open_tensors(path) as tensors:
                counted = num_examples_of(tensors)
                if (EXAMPLES_UNKNOWN if counted is None else counted) != examples[known_as]:
                    return f"client {client_id} has another number of examples there"
                update = update_of(tensors, material.selection, model if material.weights else None)
                whose = f"round {stored.number}, client {client_id!r}"
                flatten.flatten(update, stored.parameters, stored.stored_type, row, whose)
            digests.append((known_as, bytes_digest(row)))
    is_same = combine(digests, stored.stored_type, stored.n_parameters) == stored.digest
    return None if is_same else "it holds other updates there"
