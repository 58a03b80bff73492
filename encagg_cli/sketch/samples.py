"""Seeded random samples of the columns: their Gram matrices (DnC), or a few columns themselves."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.needs import Block, Header, Need, Partial
from encagg_cli.sketch.products import centred_products


@dataclass(frozen=True)
class SampledGramNeed(Need):
    """(samples, n, n) `⟨g_i - r, g_j - r⟩` over `columns` random columns each, drawn without replacement.

    The seed decides the columns: the same in every round of as many parameters.
    """

    samples: int
    columns: int
    seed: int = 0

    def partial(self, block: Block, header: Header) -> Partial:
        n = len(block.rows)
        grams = np.zeros((self.samples, n, n), dtype=np.float32)
        for sample in range(self.samples):
            chosen = sampled_columns(self.seed, sample, self.columns, header.n_parameters)
            here = _within(chosen, block)
            if len(here):
                rows, reference = block.rows[:, here], block.reference[here]
                grams[sample] = centred_products(rows, reference, header.reference, block.device).centred
        return {"grams": grams}

    def total(self, sums: Partial, header: Header) -> NDArray[np.float64]:
        grams = sums["grams"] * np.outer(header.scale, header.scale)
        symmetric: NDArray[np.float64] = (grams + grams.transpose(0, 2, 1)) / 2.0
        return symmetric

    def held_bytes(self, header: Header) -> int:
        return 8 * self.samples * (len(header.clients) ** 2 + self.columns)

    def working_bytes(self, header: Header, columns: int) -> int:
        n = len(header.clients)
        return 4 * n * (columns + self.samples * n)


@dataclass(frozen=True)
class SampledColumnsNeed(Need):
    """(n, columns) stored values of random columns, drawn without replacement; all columns where there are no more."""

    columns: int
    seed: int = 0

    uses_raw = True

    def partial(self, block: Block, header: Header) -> Partial:
        here = _within(sampled_columns(self.seed, 0, self.columns, header.n_parameters), block)
        return {column_name(block.start): raw_values(block)[:, here]} if len(here) else {}

    def total(self, sums: Partial, header: Header) -> NDArray[np.float64]:
        return in_column_order(sums, len(header.clients))

    def held_bytes(self, header: Header) -> int:
        return 8 * self.columns * (len(header.clients) + 1)

    def working_bytes(self, header: Header, columns: int) -> int:
        return 4 * len(header.clients) * min(columns, self.columns)


@lru_cache(maxsize=64)
def sampled_columns(seed: int, sample: int, columns: int, n_parameters: int) -> NDArray[np.int64]:
    """Ascending indices of the columns in one sample; all of them where there are no more."""
    generator = np.random.default_rng((seed, 5, sample))
    chosen = generator.choice(n_parameters, min(columns, n_parameters), replace=False, shuffle=False)
    return np.sort(chosen.astype(np.int64))


def raw_values(block: Block) -> NDArray[np.float32]:
    """The block's values as stored; the need must say `uses_raw`."""
    if block.raw is None:
        raise ValueError("the block was read without its stored values")
    return block.raw


def column_name(start: int) -> str:
    """Names under which blocks keep columns apart, instead of adding them up: they sort in column order."""
    return f"columns-{start:020d}"


def in_column_order(sums: Partial, n: int) -> NDArray[np.float64]:
    """The columns that blocks kept under `column_name`, side by side: (n, …)."""
    kept = [sums[name] for name in sorted(sums) if name.startswith("columns-")]
    return np.concatenate(kept, axis=1).astype(np.float64) if kept else np.zeros((n, 0))


def _within(chosen: NDArray[np.int64], block: Block) -> NDArray[np.int64]:
    """The chosen columns that the block holds, counted from its first."""
    return chosen[np.searchsorted(chosen, block.start) : np.searchsorted(chosen, block.stop)] - block.start
