"""What decided a file of verdicts, stable across machines: data, methods with every setting, known-benign clients."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from encagg_cli import __version__
from encagg_cli.filters import Filter
from encagg_cli.settings import settings_of
from encagg_cli.verdicts.schema import SCHEMA_VERSION


def filter_signature(
    methods: Mapping[str, Filter], trusted: Iterable[str], rounds: Sequence[int], digests: Iterable[str]
) -> dict[str, Any]:
    """The signature of a replay; `digests` are those of the stored rounds, made at capture, in round order."""
    return {
        "schema": SCHEMA_VERSION,
        "version": __version__,
        "methods": {text: {"name": chosen.name, "settings": settings_of(chosen)} for text, chosen in methods.items()},
        "trusted": _digest(sorted(trusted)),
        "rounds": {"count": len(rounds), "first": rounds[0], "last": rounds[-1]},
        "updates": _digest(digests),
    }


def _digest(texts: Iterable[str]) -> str:
    """SHA-256 over texts, each preceded by its length, shortened to 16 hex digits: it names, it does not protect."""
    total = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        total.update(len(encoded).to_bytes(8, "little") + encoded)
    return total.hexdigest()[:16]
