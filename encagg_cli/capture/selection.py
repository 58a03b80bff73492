"""Which tensors of a model make up an update, and in which order.

Running averages and counters of normalisation layers are not trained: averaged over clients they are of another scale
than weights and drown them in every distance, so they are left out where they can be recognised.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from encagg_cli.capture.tensors import Entry

# The last part of a name: PyTorch's batch normalisation, Keras's, rotary embeddings' constant frequencies.
_NOT_TRAINED: Final = frozenset(
    {"running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance", "inv_freq"}
)
_NOT_TRAINED_COLLECTIONS: Final = frozenset({"batch_stats"})  # Flax
_SEPARATORS = re.compile(r"[./]")
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Selection:
    """Tensors by name, with shell patterns (`*`, `?`, `[…]`).

    With `include`, exactly the tensors that match one of its patterns are taken, of whatever kind; without, all that
    are not recognised as state that is not trained. Those that match `exclude` are then left out.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, name: str, entry: Entry) -> bool:
        if any(fnmatchcase(name, pattern) for pattern in self.exclude):
            return False
        if self.include:
            return any(fnmatchcase(name, pattern) for pattern in self.include)
        return not is_untrained(name, is_floating=entry.is_floating)

    def taken(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        return {name: entry for name, entry in entries.items() if self.takes(name, entry)}


def is_untrained(name: str, *, is_floating: bool) -> bool:
    """Whether a tensor is recognisable as state that training does not learn: by its name, or as integers."""
    parts = _SEPARATORS.split(name.removesuffix(":0"))
    return not is_floating or parts[-1] in _NOT_TRAINED or not _NOT_TRAINED_COLLECTIONS.isdisjoint(parts)


def by_name(names: Iterable[str]) -> list[str]:
    """Names in the order a reader expects: numbers in them count as numbers, so that layer 10 follows layer 9."""
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[list[tuple[str, int, str]], str]:
    parts = _DIGITS.split(name)  # text and digits in turn; digits are compared by length, then as text
    digits = [part.lstrip("0") for part in parts[1::2]]
    texts = parts[::2]
    return [(text, len(digit), digit) for text, digit in zip(texts, [*digits, ""], strict=True)], name
