"""What a bench runs: cells of one run, one attack, one share of attackers and one seed, judged by all methods."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from encagg_cli.attacks.scene import generator
from encagg_cli.errors import UsageError

# The attacks of the public bench: those that published filters are usually tested with, then harder ones.
PUBLISHED = (
    "sign-flip",
    "sign-flip(scale=5.0)",
    "gaussian",
    "lie(z=0.3)",
    "lie",
    "ipm(epsilon=0.1)",
    "ipm(epsilon=1.0)",
    "ipm(epsilon=100.0)",
    "min-max",
    "min-sum",
    "fang-krum",
    "fang-trimmed-mean",
    "ua-fedrec",
    "scaling",
    "label-flip",
)
HARDER = (
    "lie(noise=1.0)",
    "ipm(noise=1.0)",
    "min-max(noise=1.0)",
    "adaptive",
    "adaptive(noise=0.5)",
    "xfed-like",
    "mimic",
    "byz-mean",
    "fedghost-like",
)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True, order=True)
class Cell:
    """Rounds of `run` under `attack` ("" for none) by the share `ratio` of the clients, who all poison in every round.

    `known_benign` clients are drawn anew for each seed, or are the run's own where it is None.
    """

    run: str
    attack: str
    ratio: float
    seed: int
    known_benign: int | None = None

    @property
    def key(self) -> str:
        """A name for files: the same cell has the same key."""
        text = json.dumps([self.run, self.attack, self.ratio, self.seed, self.known_benign])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def grid(
    runs: Iterable[str],
    attacks: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
    known_benign: int | None,
) -> Iterator[Cell]:
    """All cells: for each run and seed one without attack, and every attack with every share above 0."""
    for run in runs:
        for seed in seeds:
            yield Cell(run, "", 0.0, seed, known_benign)
            for attack in attacks:
                for share in shares:
                    if share > 0:
                        yield Cell(run, attack, share, seed, known_benign)


def draw_known_benign(clients: Sequence[str], own: frozenset[str], cell: Cell) -> frozenset[str]:
    """The known-benign clients of a cell; raises UsageError where there are too few clients."""
    if cell.known_benign is None:
        return own
    if cell.known_benign >= len(clients):
        raise UsageError(f"{cell.run} has {len(clients)} clients: {cell.known_benign} of them cannot be known-benign")
    order = generator(cell.seed, "known-benign").permutation(len(clients))
    return frozenset(sorted(clients)[index] for index in order[: cell.known_benign])
