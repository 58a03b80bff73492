"""Cells that need no crafted update: linear combinations of honest uploads, judged by what a sketch of those tells.

The honest round is read once, whatever the number of cells: its sketch is kept beside the run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encagg_cli import attacks
from encagg_cli.attacks.campaign import Campaign, RoundPlan
from encagg_cli.bench.poisoned import Poisoned
from encagg_cli.filters import Filter
from encagg_cli.filters.without_columns import needs_without_columns
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import Need, RoundSketch, Sketcher
from encagg_cli.sketch.mixing import mix, mixed_norms
from encagg_cli.sketch.stored import StoredSource

_NORMS = (1e-30, 1e37)  # of crafted uploads that float32 holds without loss; others are crafted
_DWARFED = 1e3  # times the median norm: beside an honest upload so large, products of the others keep too few digits


@dataclass(frozen=True, kw_only=True)
class MixedRound(Poisoned):
    """A poisoned round of which only the norms are known beside the facts; its updates are never read."""

    norms: NDArray[np.float64]

    def read_columns(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        raise AssertionError("the updates of a mixed round are not there to be read")


def needs_of(attack: str, methods: Sequence[Filter]) -> tuple[Need, ...] | None:
    """What a cell with this attack ("" for none) must know of an honest round; None where it must be crafted."""
    needs = needs_without_columns(methods)
    if not attack or needs is None:
        return needs
    chosen = attacks.get(attack)
    return tuple(dict.fromkeys((*needs, *chosen.sketch_needs()))) if chosen.is_linear() else None


def keep_sketches(path: Path, needs: Iterable[Need]) -> None:
    """Sketch a run's honest rounds, on all cores, unless their sketches are kept already."""
    with Run.open(path) as run, Sketcher(run) as sketcher:
        for _ in sketcher.rounds(None, needs):
            pass


def mix_round(
    sketch: RoundSketch, honest: StoredSource, campaign: Campaign, plan: RoundPlan, known_benign: frozenset[str]
) -> tuple[MixedRound, RoundSketch] | None:
    """A planned round and its sketch, from that of the honest round.

    None where only crafting can tell: where an upload takes from an update that is not finite, where it may be too
    large or too small for float32, or where one honest upload dwarfs the others.
    """
    if not sketch.clients:
        return None
    facts = Poisoned(honest=honest, plan=plan, known_benign=known_benign)
    weights = campaign.weigh(honest, plan, sketch)
    column = np.array([facts.index[client] for client in sketch.clients], dtype=np.intp)
    finite = np.zeros(len(honest.client_ids), dtype=bool)
    finite[column] = True
    if not np.isfinite(weights).all() or weights[:, ~finite].any():
        return None
    crafted = mixed_norms(sketch.gram, weights[:, column])
    if not ((crafted == 0) | ((crafted > _NORMS[0]) & (crafted < _NORMS[1]))).all():
        return None
    usual = sketch.gram.norms[sketch.gram.norms > 0]
    if len(usual) and usual.max() > _DWARFED * np.median(usual):
        return None
    norms = np.array(honest.norms)
    rows = np.eye(len(honest.client_ids))
    for client, place in facts.place.items():
        norms[facts.index[client]] = crafted[place]
        rows[facts.index[client]] = weights[place]
    mixed = MixedRound(honest=honest, plan=plan, known_benign=known_benign, norms=norms)
    judged = sorted(client for client, row in facts.index.items() if np.isfinite(norms[row]))
    chosen = np.array([facts.index[client] for client in judged], dtype=np.intp)
    return mixed, mix(sketch, mixed, rows[chosen][:, column])
