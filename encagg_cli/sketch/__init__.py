"""One streaming pass over a round, from which every filter is answered.

Of a round in memory: `sketch_round(source, needs)`. Of a stored run, in bounded memory, on all cores or machines:

    sketch_run(
        run: Run,
        needs: Iterable[Need],
        *,
        rounds: Iterable[int] | None = None,             # numbers, in the order in which they are wanted; None: all
        memory: int | str = "512MB",                     # anonymous memory of all workers together
        workers: int | None = None,                      # None: a thread a core; N: that many processes
        engine: Literal["local", "dask"] = "local",
        scheduler: str | None = None,                    # Dask's address; None: a local cluster
        device: Literal["cpu", "cuda"] = "cpu",
        cache: Path | Literal["beside", "none"] = "beside",  # a folder; beside the run; or none
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[RoundSketch]

Sketches come in the order of `rounds` while later rounds are being computed. They are the same, bit for bit, from every
engine, number of workers and memory limit. While the iterator lives, BLAS in this process has one thread.
"""

from encagg_cli.sketch.compute import RoundSketch, sketch_round
from encagg_cli.sketch.gram import Gram
from encagg_cli.sketch.needs import Block, GramNeed, Header, Need
from encagg_cli.sketch.planes import principal_coordinates
from encagg_cli.sketch.source import ArraySource, ColumnSource

__all__ = [
    "ArraySource",
    "Block",
    "ColumnSource",
    "Gram",
    "GramNeed",
    "Header",
    "Need",
    "RoundSketch",
    "principal_coordinates",
    "sketch_round",
]
