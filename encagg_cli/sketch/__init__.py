"""One streaming pass over a round, from which every filter is answered."""

from encagg_cli.sketch.compute import RoundSketch, sketch_round
from encagg_cli.sketch.gram import Gram
from encagg_cli.sketch.needs import GramNeed, Need
from encagg_cli.sketch.planes import principal_coordinates
from encagg_cli.sketch.source import ArraySource, ColumnSource

__all__ = [
    "ArraySource",
    "ColumnSource",
    "Gram",
    "GramNeed",
    "Need",
    "RoundSketch",
    "principal_coordinates",
    "sketch_round",
]
