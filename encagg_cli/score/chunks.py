"""Verdicts as chunks of whole rounds, with labels: what counting works on, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from encagg_cli.errors import UnusableInput
from encagg_cli.score.counts import Chunk
from encagg_cli.score.labelling import VERDICT_COLUMNS, Labeller
from encagg_cli.verdicts.reader import Verdicts


def labelled_rounds(verdicts: Verdicts, labeller: Labeller, wanted: Callable[[str], bool]) -> Iterator[Chunk]:
    """Verdicts of the methods that are wanted, in chunks of whole rounds.

    Raises UnusableInput where a method has two verdicts on one upload.
    """
    pieces = (labeller.attach(batch) for batch in verdicts.batches(VERDICT_COLUMNS))
    for chunk in _whole_rounds(pieces):
        _refuse_repeats(chunk, labeller, verdicts)
        mask = np.array([wanted(name) for name in labeller.methods.words], dtype=bool)
        chosen = chunk if mask.all() else chunk.take(mask[chunk.method])
        if len(chosen):
            yield chosen


def _whole_rounds(pieces: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same rows, cut where a round ends."""
    waiting: list[Chunk] = []
    for piece in pieces:
        if not len(piece):
            continue
        cut = int(np.searchsorted(piece.round, piece.round[-1]))
        if waiting and waiting[0].round[0] != piece.round[-1]:
            yield Chunk.join([*waiting, piece.take(slice(0, cut))])
            waiting = [piece.take(slice(cut, None))]
        elif cut:
            yield piece.take(slice(0, cut))
            waiting = [piece.take(slice(cut, None))]
        else:
            waiting.append(piece)
    if waiting:
        yield Chunk.join(waiting)


def _refuse_repeats(chunk: Chunk, labeller: Labeller, verdicts: Verdicts) -> None:
    index = np.cumsum(np.diff(chunk.round, prepend=chunk.round[:1]) != 0)
    key = (index * len(labeller.methods) + chunk.method) * len(labeller.clients) + chunk.client
    in_order = np.argsort(key, kind="stable")
    repeats = np.flatnonzero(np.diff(key[in_order]) == 0)
    if len(repeats):
        row = in_order[repeats[0] + 1]
        raise UnusableInput(
            f"{verdicts.path}: round {chunk.round[row]}, client {labeller.clients.words[chunk.client[row]]}: "
            f"two verdicts of {labeller.methods.words[chunk.method[row]]}"
        )
