"""Arguments that several subcommands read: lists of clients, ranges of rounds, settings of methods."""

from collections.abc import Sequence
from pathlib import Path

from encagg_cli.errors import UsageError


def parse_clients(text: str) -> list[str]:
    """`id,id,…`, or `@FILE` with one id a line (blank lines and lines that begin with # are skipped)."""
    if not text.startswith("@"):
        return [part.strip() for part in text.split(",") if part.strip()]
    path = Path(text[1:])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the list of clients {path}: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def parse_rounds(text: str | None, stored: Sequence[int]) -> list[int]:
    """The stored rounds that `3:10` (half-open), `7` or `3:5,9:` name, ascending; all of them for None.

    Raises UsageError for text that is not such a list and for a part that names no stored round.
    """
    if text is None:
        return sorted(stored)
    chosen: set[int] = set()
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        try:
            low = int(first) if first or not colon else min(stored, default=0)
            high = (int(last) if last else max(stored, default=-1) + 1) if colon else low + 1
        except ValueError:
            raise UsageError(
                f"cannot read {part!r} as rounds", hint="write 3:10 (10 is not included), 7, or 3:5,9:"
            ) from None
        matching = [number for number in stored if low <= number < high]
        if not matching:
            extent = f"{min(stored)} to {max(stored)}" if stored else "none"
            raise UsageError(f"no stored round is in {part.strip()!r}", hint=f"the run's rounds: {extent}")
        chosen.update(matching)
    return sorted(chosen)


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """`NAME.key=value` settings, by method name; raises UsageError for other text, and for one that is set twice."""
    settings: dict[str, dict[str, str]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        name, dot, key = target.strip().partition(".")
        if not (equals and dot and name and key):
            raise UsageError(
                f"cannot read the setting {text!r}", hint="write --set NAME.key=value: --set multi-krum.f=8"
            )
        earlier = settings.setdefault(name, {}).setdefault(key, value.strip())
        if earlier != value.strip():
            raise UsageError(f"--set gives {name}.{key} two values: {earlier} and {value.strip()}")
    return settings
