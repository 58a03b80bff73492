"""What signs tell: how many of each update are positive, zero, negative; who agrees; what opposes a direction."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.needs import Block, Header, Need, Partial
from encagg_cli.sketch.products import self_product
from encagg_cli.sketch.samples import raw_values


@dataclass(frozen=True)
class SignCountNeed(Need):
    """(n, 3) shares of positive, zero and negative values in one contiguous window of the columns.

    The window holds `share` of the columns (one at least) and begins at a random place that the seed decides: the
    same in every round.
    """

    share: float
    seed: int = 0

    uses_raw = True

    def window(self, n_parameters: int) -> tuple[int, int]:
        """Its first column and the one after its last."""
        length = min(n_parameters, max(1, int(self.share * n_parameters)))
        start = int(np.random.default_rng((self.seed, 4)).integers(n_parameters - length + 1))
        return start, start + length

    def partial(self, block: Block, header: Header) -> Partial:
        start, stop = self.window(header.n_parameters)
        start, stop = max(start, block.start), min(stop, block.stop)
        if start >= stop:
            return {"counts": np.zeros((len(block.rows), 3))}
        values = raw_values(block)[:, start - block.start : stop - block.start]
        positive = np.count_nonzero(values > 0, axis=1)
        negative = np.count_nonzero(values < 0, axis=1)
        zero = values.shape[1] - positive - negative
        return {"counts": np.stack([positive, zero, negative], axis=1).astype(np.float64)}

    def total(self, sums: Partial, header: Header) -> NDArray[np.float64]:
        counts = sums["counts"]
        shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
        return shares

    def held_bytes(self, header: Header) -> int:
        return 24 * len(header.clients)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 2 * len(header.clients) * columns


@dataclass(frozen=True)
class SignCosines:
    """Cosines of the updates' signs, (n, n), and of how many coordinates they are: those that are not zero, (n,).

    How many coordinates agree less how many oppose, over the geometric mean of the two counts; 0 with an all-zero
    update, 1 on the diagonal of the others. Exact, so that equal signs have exactly equal cosines.
    """

    cosines: NDArray[np.float64]
    counts: NDArray[np.float64]

    def __getitem__(self, clients: NDArray[np.intp]) -> "SignCosines":
        """Those of some clients."""
        return SignCosines(self.cosines[np.ix_(clients, clients)], self.counts[clients])


@dataclass(frozen=True)
class SignCosinesNeed(Need):
    """The updates' `SignCosines`.

    What clients have in common stands in the signs of all coordinates; what they differ in (classes, batches) in the
    size of a few. Signs are what signSGD aggregates (Bernstein et al., ICML 2018), and SignGuard counts.
    """

    uses_raw = True

    def partial(self, block: Block, header: Header) -> Partial:
        # Whole numbers, no larger than a block has columns: float32 adds them without loss, in any order.
        return {"agreement": self_product(np.sign(raw_values(block)), block.device)}

    def total(self, sums: Partial, header: Header) -> SignCosines:
        agreement = np.asarray(sums["agreement"], dtype=np.float64)
        counts = np.diag(agreement).copy()
        return SignCosines(agreement / np.sqrt(np.maximum(np.outer(counts, counts), 1.0)), counts)

    def working_bytes(self, header: Header, columns: int) -> int:
        n = len(header.clients)
        return 4 * n * (columns + n)


@dataclass(frozen=True)
class PackedSigns:
    """Signs of a vector, two bits a value: where it is positive, and where it is negative."""

    positive: NDArray[np.uint8]
    negative: NDArray[np.uint8]

    @classmethod
    def pack(cls, pieces: Iterable[NDArray[np.floating]]) -> "PackedSigns":
        """Of a vector given in pieces from its first value; all but the last must hold a multiple of 8."""
        bits = [(np.packbits(piece > 0), np.packbits(piece < 0)) for piece in pieces]
        empty = np.zeros(0, dtype=np.uint8)
        return cls(*(np.concatenate([empty, *(pair[side] for pair in bits)]) for side in (0, 1)))

    def columns(self, start: int, stop: int) -> NDArray[np.int8]:
        """-1, 0 or 1 for the columns `start` to `stop`."""
        first = start // 8
        unpacked = [
            np.unpackbits(bits[first : -(-stop // 8)])[start - 8 * first : stop - 8 * first].astype(np.int8)
            for bits in (self.positive, self.negative)
        ]
        return unpacked[0] - unpacked[1]


@dataclass(frozen=True)
class SignedEnergy:
    """(n,) `Σ_j g_ij²` over the columns whose sign is not the expected one, and whose signs were expected."""

    energy: NDArray[np.float64]
    stored_step: bool


@dataclass(frozen=True)
class SignedEnergyNeed(Need):
    """The `SignedEnergy` against the last step (FLAIR's flip score).

    The stored last step is used where the round has it, else `own` signs, named by `own_name`; None with neither.
    """

    own_name: str = ""
    own: PackedSigns | None = field(default=None, compare=False, repr=False)

    uses_raw = True
    vectors = frozenset({"last_step"})

    @property
    def key(self) -> str:
        """Own signs are of one round of one replay: not worth keeping."""
        return repr(self) if self.own is None else ""

    def partial(self, block: Block, header: Header) -> Partial:
        vector = block.vectors.get("last_step")
        if vector is not None:
            expected = np.sign(-vector if header.update_kind == "gradient" else vector).astype(np.int8)
        elif self.own is not None:
            expected = self.own.columns(block.start, block.stop)
        else:
            return {}
        flipped = np.sign(raw_values(block)).astype(np.int8) != expected
        scaled = np.ldexp(raw_values(block), -header.exponents[:, None].astype(np.int32))
        energy = np.where(flipped, np.square(scaled), 0).sum(axis=1, dtype=np.float64)
        return {"energy": energy, "stored": np.array(float(vector is not None))}

    def total(self, sums: Partial, header: Header) -> SignedEnergy | None:
        if not sums:
            return None
        return SignedEnergy(sums["energy"] * header.scale**2, stored_step=bool(sums["stored"] > 0))

    def held_bytes(self, header: Header) -> int:
        return 8 * len(header.clients) + (0 if self.own is None else 2 * self.own.positive.nbytes)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 16 * len(header.clients) * columns
