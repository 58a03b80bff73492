"""What decided a score: a flat list of named facts, without paths, times or machines, that travels with the number.

As text: `name:value|name:value|…`, names in a fixed order, with `%`, `|`, `:` and all but printable ASCII
percent-encoded (UTF-8), so that the text is one line, the same everywhere, and read back by `Signature.parse`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from encagg_cli import console
from encagg_cli.errors import UnusableInput

SIGNATURE_VERSION: Final = "1"

# Two builds naturally differ in these; a difference is told, and does not forbid a comparison.
_MAY_DIFFER: Final = (
    "version",
    "methods",
    "labels.",
    "verdicts.digest",
    "counts.",
    "bootstrap.",
    "filter.version",
    "filter.trusted",
    "filter.rounds.",
    "filter.updates",
)


@dataclass(frozen=True)
class Signature:
    """The facts by name, all as text."""

    facts: Mapping[str, str]

    def __str__(self) -> str:
        return "|".join(f"{_encode(name)}:{_encode(value)}" for name, value in self.facts.items())

    @classmethod
    def parse(cls, text: str) -> "Signature":
        """Read the text form back. Raises UnusableInput."""
        facts: dict[str, str] = {}
        for part in text.split("|") if text else []:
            name, colon, value = part.partition(":")
            if not colon:
                raise UnusableInput(f"{part[:60]!r} in a signature is not name:value")
            try:
                facts[unquote(name, errors="surrogatepass")] = unquote(value, errors="surrogatepass")
            except UnicodeDecodeError as error:
                raise UnusableInput(f"{part[:60]!r} in a signature is not UTF-8") from error
        return cls(facts)

    def differences(self, other: "Signature") -> Iterator[tuple[str, str | None, str | None]]:
        """Facts that are not the same: name, here, there; None where one side lacks it."""
        for name in dict.fromkeys([*self.facts, *other.facts]):
            here, there = self.facts.get(name), other.facts.get(name)
            if here != there:
                yield name, here, there


def sign(
    *,
    version: str,
    filter_signature: Mapping[str, Any],
    methods: Iterable[str],
    labels: Mapping[str, object],
    verdicts: Mapping[str, object],
    counts: Mapping[str, int],
    bootstrap: Mapping[str, int],
) -> Signature:
    """The signature of a score. Of the filter's own, what concerns methods that are not scored is left out."""
    chosen = sorted(methods)
    own = dict(filter_signature)
    if isinstance(own.get("methods"), Mapping):
        own["methods"] = {name: settings for name, settings in own["methods"].items() if name in chosen}
    facts: dict[str, str] = {
        "schema": SIGNATURE_VERSION,
        "version": version,
        "positive": "poisoned",
        "known-benign": "not counted",
        "methods": "+".join(chosen),
    }
    for name, group in (("filter", own), ("verdicts", verdicts), ("labels", labels), ("counts", counts)):
        facts.update(_flatten(name, group))
    facts.update(_flatten("bootstrap", bootstrap))
    return Signature(facts)


def must_agree(name: str, methods: Collection[str]) -> bool:
    """Whether two scores are comparable only where this fact is the same. `methods` are those compared."""
    if name.startswith("filter.methods."):
        rest = name.removeprefix("filter.methods.")
        return any(rest == method or rest.startswith(f"{method}.") for method in methods)
    return not any(name == part or (part.endswith(".") and name.startswith(part)) for part in _MAY_DIFFER)


def explain(signature: Signature) -> list[str]:
    """The signature in words, as lines that are safe to print."""
    f = signature.facts
    n = {name.removeprefix("counts."): value for name, value in f.items() if name.startswith("counts.")}
    lines = [
        f"Scored by encagg {f.get('version', '?')}: {f.get('methods', '?').replace('+', ', ')}.",
        f"Positive class: {f.get('positive', '?')}; a positive verdict is a rejection. "
        f"Uploads of known-benign clients ({n.get('known_benign', '?')}) are {f.get('known-benign', '?')}.",
        f"Counted: {_many(n, 'upload')} in {_many(n, 'round')}, {_many(n, 'client')}: "
        f"{n.get('poisoned', '?')} poisoned, {n.get('honest', '?')} honest, {n.get('unlabelled', '?')} without label.",
        f"Labels: {_SOURCES.get(f.get('labels.source', ''), '?')} (digest {f.get('labels.digest', '?')}).",
        f"Verdicts: table of schema {f.get('verdicts.schema', '?')} (digest {f.get('verdicts.digest', '?')}).",
        "Precision, recall, F1, FPR and kept are over all labelled uploads; AUROC counts pairs within rounds; AP is a",
        "mean over rounds that have both classes; clean FPR is over rounds without any poisoned upload.",
        f"Intervals: 95 %, rounds resampled {f.get('bootstrap.resamples', '?')} times, "
        f"seed {f.get('bootstrap.seed', '?')}.",
    ]
    made = {name.removeprefix("filter."): value for name, value in f.items() if name.startswith("filter.")}
    if made:
        lines.append("The verdicts were made with:")
        lines.extend(f"- {name} = {value}" for name, value in made.items())
    return [console.plain(line) for line in lines]


def _many(counts: dict[str, str], what: str) -> str:
    """`3 rounds`, of counts that are text and may be missing."""
    number = counts.get(f"{what}s", "?")
    return f"{number} {what}{'' if number == '1' else 's'}"


_SOURCES: Final = {
    "csv": "a CSV file",
    "parquet": "a Parquet file",
    "json": "a JSON file",
    "run": "the run's own",
    "verdicts": "those that came with the verdicts",
    "none": "none",
}


def _flatten(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    """Nested facts as dotted names."""
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _flatten(f"{prefix}.{key}", value[key])
    elif isinstance(value, list | tuple):
        yield prefix, "+".join(_text(item) for item in value)
    else:
        yield prefix, _text(value)


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _encode(text: str) -> str:
    """Percent-encode what would break the text form: its separators, and whatever is not printable ASCII."""
    return "".join(
        char if " " <= char <= "~" and char not in "%|:" else _percent(char.encode("utf-8", "surrogatepass"))
        for char in text
    )


def _percent(encoded: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in encoded)
