"""A bench in figures: by run and method, the mean over cells of attack and share, with intervals over rounds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from encagg_cli.attacks.scene import generator
from encagg_cli.bench.table import NO_FILTER

_COUNTS = ("tp", "fp", "tn", "fn", "wins", "pairs")
RESAMPLES = 1000
_RNG_SEED = 0

CellOf = tuple[str, float]
"""Attack and share."""


@dataclass(frozen=True)
class MethodSummary:
    """One method on one run. None where undefined.

    f1            mean F1 over the cells of attack and share (micro over rounds and seeds in each), with `interval`
    worst         the attack of least mean F1 over shares, and that F1
    fpr           honest uploads rejected in attacked rounds; `clean_fpr` in rounds without attack
    auroc         ordered pairs within rounds, over all attacked cells
    angle         median over attacked rounds of the angle between the aggregate and the honest mean, in degrees
    harm          mean over cells of `‖aggregate - honest mean‖ / ‖honest mean‖`; None where a rule's aggregate is not
                  its weights times the updates
    harm_share    mean over cells of the harm, divided by that of the plain mean of all uploads (no filter)
    """

    run: str
    method: str
    told_f: bool
    f1: float | None
    interval: tuple[float, float] | None
    worst: tuple[str, float] | None
    by_attack: dict[str, float]
    by_ratio: dict[float, float]
    fpr: float | None
    clean_fpr: float | None
    auroc: float | None
    angle: float | None
    harm: float | None
    harm_share: float | None
    milliseconds: float | None

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "method": self.method,
            "told_f": self.told_f,
            "f1": self.f1,
            "f1_interval": None if self.interval is None else list(self.interval),
            "worst_attack": None if self.worst is None else {"attack": self.worst[0], "f1": self.worst[1]},
            "f1_by_attack": self.by_attack,
            "f1_by_ratio": {str(ratio): value for ratio, value in self.by_ratio.items()},
            "fpr": self.fpr,
            "clean_fpr": self.clean_fpr,
            "auroc": self.auroc,
            "angle": self.angle,
            "harm": self.harm,
            "harm_share": self.harm_share,
            "milliseconds": self.milliseconds,
        }


def summarise(table: pa.Table) -> list[MethodSummary]:
    """Summaries of all methods, by run, best mean F1 first."""
    columns = columns_of(table)
    summaries = []
    for run in dict.fromkeys(columns["run"]):
        here = columns["run"] == run
        unfiltered = _harms({name: values[here & (columns["method"] == NO_FILTER)] for name, values in columns.items()})
        for method in dict.fromkeys(columns["method"][here]):
            chosen = here & (columns["method"] == method)
            rows = {name: values[chosen] for name, values in columns.items()}
            summaries.append(_summary(run, method, rows, unfiltered))
    order = {run: place for place, run in enumerate(dict.fromkeys(columns["run"]))}
    return sorted(summaries, key=lambda s: (order[s.run], -1.0 if s.f1 is None else -s.f1))


def columns_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """A bench's columns as arrays, words as objects."""
    return {
        name: table.column(name).combine_chunks().to_numpy(zero_copy_only=False)
        if not pa.types.is_dictionary(table.schema.field(name).type)
        else np.array(table.column(name).to_pylist(), dtype=object)
        for name in table.column_names
    }


def cell_f1(rows: Mapping[str, NDArray[Any]]) -> dict[CellOf, float]:
    """F1 by cell of attack and share, micro over rounds and seeds; cells where it is undefined are left out."""
    cells, _, totals, _ = _totals(rows)
    return {cell: float(value) for cell, value in zip(cells, _f1(totals), strict=True) if np.isfinite(value)}


def _totals(
    rows: Mapping[str, NDArray[Any]],
) -> tuple[list[CellOf], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Attacked cells, the place among them of each attacked row, the counts by cell (cells, 6) and by row."""
    attacked = rows["attack"] != ""
    cells, places = _cells(rows["attack"][attacked], rows["ratio"][attacked])
    counts = np.stack([rows[name][attacked].astype(np.float64) for name in _COUNTS], axis=1)
    return cells, places, _add(places, counts, len(cells)), counts


def _harms(rows: Mapping[str, NDArray[Any]]) -> dict[CellOf, float]:
    """Mean harm by attacked cell, over the rounds in which it is defined."""
    known = (rows["attack"] != "") & np.isfinite(rows["harm_distance"].astype(np.float64))
    cells, places = _cells(rows["attack"][known], rows["ratio"][known])
    sums = np.bincount(places, rows["harm_distance"][known].astype(np.float64), minlength=len(cells))
    return dict(zip(cells, (sums / np.maximum(np.bincount(places, minlength=len(cells)), 1)).tolist(), strict=True))


def _summary(run: str, method: str, rows: dict[str, NDArray[Any]], unfiltered: Mapping[CellOf, float]) -> MethodSummary:
    cells, places, totals, counts = _totals(rows)
    f1 = _f1(totals)
    attacked = rows["attack"] != ""
    clean = ~attacked
    harms = _harms(rows)
    by_attack = {name: _mean(f1[[c[0] == name for c in cells]]) for name in dict.fromkeys(c[0] for c in cells)}
    by_ratio = {ratio: _mean(f1[[c[1] == ratio for c in cells]]) for ratio in sorted({c[1] for c in cells})}
    known = {name: value for name, value in by_attack.items() if value is not None}
    return MethodSummary(
        run=run,
        method=method,
        told_f=bool(rows["told_f"].any()),
        f1=_mean(f1),
        interval=_interval(rows["round"][attacked], places, counts, len(cells)),
        worst=min(known.items(), key=lambda item: item[1]) if known else None,
        by_attack=known,
        by_ratio={ratio: value for ratio, value in by_ratio.items() if value is not None},
        fpr=_share(counts[:, 1].sum(), counts[:, 2].sum()),
        clean_fpr=_share(rows["fp"][clean].sum(), rows["tn"][clean].sum()),
        auroc=float(counts[:, 4].sum() / counts[:, 5].sum()) if counts[:, 5].sum() else None,
        angle=_median(rows["harm_angle"][attacked].astype(np.float64)),
        harm=_mean(harms.values()),
        harm_share=_mean(value / unfiltered[cell] for cell, value in harms.items() if unfiltered.get(cell, 0.0) > 0),
        milliseconds=_median(rows["milliseconds"].astype(np.float64)),
    )


def _cells(attacks: NDArray[Any], ratios: NDArray[Any]) -> tuple[list[CellOf], NDArray[np.intp]]:
    """The cells of attack and share, and each row's place among them."""
    pairs = list(zip(attacks.tolist(), ratios.tolist(), strict=True))
    cells = list(dict.fromkeys(pairs))
    place = {cell: index for index, cell in enumerate(cells)}
    return cells, np.array([place[pair] for pair in pairs], dtype=np.intp)


def _add(places: NDArray[np.intp], counts: NDArray[np.float64], n_cells: int) -> NDArray[np.float64]:
    totals = np.zeros((n_cells, counts.shape[1]))
    np.add.at(totals, places, counts)
    return totals


def _f1(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of counts (..., 6); NaN where nothing is poisoned and nothing rejected."""
    tp, fp, fn = totals[..., 0], totals[..., 1], totals[..., 3]
    whole = 2 * tp + fp + fn
    f1: NDArray[np.float64] = np.divide(2 * tp, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return f1


def _interval(
    rounds: NDArray[Any], places: NDArray[np.intp], counts: NDArray[np.float64], n_cells: int
) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean F1, over rounds; None with fewer than two rounds."""
    numbers, index = np.unique(rounds, return_inverse=True)
    if len(numbers) < 2:
        return None
    by_round = np.zeros((len(numbers), n_cells, counts.shape[1]))
    np.add.at(by_round, (index, places), counts)
    drawn = generator(_RNG_SEED, "bench-interval").integers(len(numbers), size=(RESAMPLES, len(numbers)))
    weights = np.stack([np.bincount(draw, minlength=len(numbers)) for draw in drawn]).astype(np.float64)
    resampled = np.tensordot(weights, by_round, axes=1)
    means = np.nanmean(_f1(resampled), axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: NDArray[np.float64] | Iterable[float]) -> float | None:
    known = np.array(list(values), dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else None


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _share(part: float, rest: float) -> float | None:
    return float(part / (part + rest)) if part + rest else None
