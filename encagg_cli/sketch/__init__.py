"""One streaming pass over a round, from which every filter is answered.

Of a round in memory: `sketch_round(source, needs)`. Of a stored run, in bounded memory, on all cores or machines:

    with Sketcher(
        run,                        # rounds.reader.Run
        memory="512MB",             # anonymous memory of all workers together
        workers=None,               # None: a thread a core; N: that many processes (1: this one alone)
        engine="local",             # or "dask"
        scheduler=None,             # Dask's address; None: a local cluster
        device="cpu",               # or "cuda"
        cache="beside",             # the run; "none"; or a folder (a Path)
        progress=None,              # called with a Progress: rounds and bytes, done and expected
    ) as sketcher:
        for sketch in sketcher.rounds(numbers, needs): ...   # a stream, computed ahead
        sketch = sketcher(run.round(12), needs)              # or one round at a time: a `Sketcher` of filters.passes
        sketcher.expect(numbers, needs)                      # the calls that follow are answered from a stream

`sketch_run(run, needs, rounds=…, …)` is the stream alone. Sketches are the same, bit for bit, from every engine, number
of workers and memory limit. While a sketcher lives, BLAS has one thread in this process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from encagg_cli.sketch.compute import RoundSketch, sketch_round
from encagg_cli.sketch.gram import Gram
from encagg_cli.sketch.needs import Block, GramNeed, Header, Need
from encagg_cli.sketch.planes import principal_coordinates
from encagg_cli.sketch.progress import Progress
from encagg_cli.sketch.source import ArraySource, ColumnSource

if TYPE_CHECKING:
    from encagg_cli.sketch.sketcher import Sketcher, sketch_run

__all__ = [
    "ArraySource",
    "Block",
    "ColumnSource",
    "Gram",
    "GramNeed",
    "Header",
    "Need",
    "Progress",
    "RoundSketch",
    "Sketcher",
    "principal_coordinates",
    "sketch_round",
    "sketch_run",
]


def __getattr__(name: str) -> Any:
    if name in ("Sketcher", "sketch_run"):  # they read stored runs, and filters do not import HDF5
        return getattr(import_module("encagg_cli.sketch.sketcher"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
