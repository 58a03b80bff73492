"""What each tensor looks like when only the largest values of every update are kept (LASA).

Two passes: the first takes a sample of the columns, from which each client's threshold follows; the second measures
every tensor with the smaller values set to zero.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.needs import Block, Header, Need, Partial
from encagg_cli.sketch.samples import raw_values
from encagg_cli.sketch.tensors import overlaps, tensor_pieces


def magnitude_thresholds(sample: NDArray[np.float64], kept_share: float) -> tuple[float, ...]:
    """Per client the smallest magnitude among the largest `kept_share` of its sampled values, (n, columns)."""
    columns = sample.shape[1]
    kept = min(columns, max(1, round(kept_share * columns)))
    return tuple(float(t) for t in np.partition(np.abs(sample), columns - kept, axis=1)[:, columns - kept])


@dataclass(frozen=True)
class SparseTensors:
    """Per tensor and client, of the values that were kept: (tensors, n) norms, and positive sign purity in [0, 1]."""

    names: tuple[str, ...]
    norms: NDArray[np.float64]
    purity: NDArray[np.float64]


@dataclass(frozen=True)
class SparseTensorNeed(Need):
    """Norm and sign purity of every tensor where each client's values below its own threshold count as zero.

    Purity is `½ (1 + Σ sign / Σ |sign|)`, ½ where nothing was kept.
    """

    thresholds: tuple[float, ...]

    uses_raw = True

    def partial(self, block: Block, header: Header) -> Partial:
        pieces = tensor_pieces(header.parameters)
        shape = (len(pieces), len(block.rows))
        sums = {name: np.zeros(shape) for name in ("squares", "positive", "negative")}
        raw = raw_values(block)
        thresholds = np.array(self.thresholds, dtype=np.float32)[:, None]
        for index, columns in overlaps(pieces, block):
            values = np.where(np.abs(raw[:, columns]) >= thresholds, raw[:, columns], np.float32(0))
            sums["squares"][index] = np.square(values, dtype=np.float64).sum(axis=1)
            sums["positive"][index] = np.count_nonzero(values > 0, axis=1)
            sums["negative"][index] = np.count_nonzero(values < 0, axis=1)
        return sums

    def total(self, sums: Partial, header: Header) -> SparseTensors:
        positive, negative = sums["positive"], sums["negative"]
        signed = positive + negative
        balance = np.divide(positive - negative, signed, out=np.zeros_like(signed), where=signed > 0)
        return SparseTensors(
            names=tuple(piece.name for piece in tensor_pieces(header.parameters)),
            norms=np.sqrt(sums["squares"]),
            purity=0.5 * (1.0 + balance),
        )

    def held_bytes(self, header: Header) -> int:
        return 24 * len(header.clients) * len(header.parameters)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 16 * len(header.clients) * columns + self.held_bytes(header)
