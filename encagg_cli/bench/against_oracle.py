"""How far a method is from the best that any threshold on an oracle's score can do: where the gap is small, a weak
figure is a limit of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from encagg_cli.bench.summary import CellOf, cell_f1, columns_of
from encagg_cli.bench.table import NO_FILTER, ORACLE
from encagg_cli.filters import DEFAULT_METHOD

FEW = 3  # methods that are all compared; of more, only the default one


@dataclass(frozen=True)
class Gap:
    """Mean F1 over the shares of an attack: of a method, and of the oracle's score that is best in each cell."""

    run: str
    method: str
    attack: str
    f1: float
    oracle: float

    @property
    def gap(self) -> float:
        return self.oracle - self.f1

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": self.run,
            "method": self.method,
            "attack": self.attack,
            "f1": self.f1,
            "oracle_f1": self.oracle,
            "gap": self.gap,
        }


def gaps(table: pa.Table) -> list[Gap]:
    """Of all methods of a bench where they are few, or else of the default method: by run and method, worst first."""
    columns = columns_of(table)
    found: list[Gap] = []
    for run in dict.fromkeys(columns["run"]):
        by_method = {
            method: cell_f1(
                {
                    name: values[(columns["run"] == run) & (columns["method"] == method)]
                    for name, values in columns.items()
                }
            )
            for method in dict.fromkeys(columns["method"][columns["run"] == run])
        }
        best: dict[CellOf, float] = {}
        for method, cells in by_method.items():
            if method.startswith(ORACLE):
                for cell, f1 in cells.items():
                    best[cell] = max(best.get(cell, 0.0), f1)
        for method in _compared([m for m in by_method if not m.startswith(ORACLE) and m != NO_FILTER]):
            both = {cell: (f1, best[cell]) for cell, f1 in by_method[method].items() if cell in best}
            of_method = []
            for attack in dict.fromkeys(name for name, _ in both):
                f1, oracle = np.mean([pair for (name, _), pair in both.items() if name == attack], axis=0)
                of_method.append(Gap(run, method, attack, float(f1), float(oracle)))
            found += sorted(of_method, key=lambda gap: -gap.gap)
    return found


def _compared(methods: Sequence[str]) -> list[str]:
    if len(methods) <= FEW:
        return list(methods)
    return [method for method in methods if method.partition("(")[0] == DEFAULT_METHOD]
