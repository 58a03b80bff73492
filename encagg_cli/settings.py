"""Settings of filters, attacks and schedules: typed dataclass fields, validated, read and written as canonical text."""

import operator
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from encagg_cli.errors import UsageError

AttackerCount = int | float | Literal["oracle"] | None
"""The number of attackers a filter is told: a count, a share of the round's clients below 1, or ground truth."""

T = TypeVar("T")
_CALL = re.compile(r"\s*([a-z0-9][a-z0-9-]*)\s*(?:\((.*)\))?\s*", re.DOTALL)


def setting(
    default: T,
    help: str,  # noqa: A002 - the word that command-line tools use for it
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> T:
    """A dataclass field that `encagg methods` and `encagg attacks` explain and `check_settings` validates."""
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    made: T = field(default=default, metadata={"help": help, **bounds})
    return made


def check_settings(owner: Any) -> None:
    """Raise UsageError where a setting is of the wrong type or out of its bounds. Called from `__post_init__`."""
    hints = get_type_hints(type(owner))
    for spec in fields(owner):
        value = getattr(owner, spec.name)
        label = f"{owner.name}.{spec.name}"
        if not _is_of_type(value, hints[spec.name]):
            raise UsageError(f"{label} must be {_type_text(hints[spec.name])}, not {value!r}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_bounds(label, value, spec.metadata)


def settings_of(owner: Any) -> dict[str, Any]:
    """All settings by name."""
    return {spec.name: getattr(owner, spec.name) for spec in fields(owner)}


def canonical(owner: Any) -> str:
    """`name(key=value, …)` with the settings that differ from their defaults, in the order they are declared."""
    changed = [f"{spec.name}={_text(getattr(owner, spec.name))}" for spec in fields(owner) if _is_changed(owner, spec)]
    return f"{owner.name}({','.join(changed)})" if changed else str(owner.name)


def parse_call(text: str, what: str = "a method") -> tuple[str, dict[str, str]]:
    """Split `name(key=value, …)`; raises UsageError, which says that `what` was to be read."""
    match = _CALL.fullmatch(text)
    if match is None:
        raise UsageError(f"cannot read {text!r} as {what}", hint="write NAME or NAME(key=value,key=value)")
    arguments: dict[str, str] = {}
    for part in _top_level_parts(match[2] or ""):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"cannot read {part.strip()!r} in {text!r}", hint="settings are key=value")
        arguments[key.strip()] = value.strip()
    return match[1], arguments


def _top_level_parts(text: str) -> list[str]:
    """Split at the commas outside of brackets: a setting's value may itself be `name(key=value,key=value)`."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def build(kind: type[T], arguments: Mapping[str, str]) -> T:
    """Make a filter, an attack or a schedule from settings as text; raises UsageError for what cannot be used."""
    hints = get_type_hints(kind)
    names = [spec.name for spec in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, text in arguments.items():
        if key not in names:
            known = f"its settings are {', '.join(names)}" if names else "it has none"
            raise UsageError(f"{kind.name} has no setting {key!r}", hint=known)  # type: ignore[attr-defined]
        values[key] = _parse_value(f"{kind.name}.{key}", text, hints[key])  # type: ignore[attr-defined]
    return kind(**values)


def _is_changed(owner: Any, spec: Field[Any]) -> bool:
    return spec.default is MISSING or getattr(owner, spec.name) != spec.default


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _options(hint: Any) -> list[Any]:
    """The alternatives of a union, a Literal's values included; a plain type is its own only alternative."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    arguments = get_args(hint)
    return [option for argument in arguments for option in _options(argument)] if arguments else [hint]


def _is_of_type(value: Any, hint: Any) -> bool:
    for option in _options(hint):
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return True
        if option is int and isinstance(value, bool):
            continue
        if isinstance(option, type):
            if isinstance(value, option):
                return True
        elif type(value) is type(option) and value == option:
            return True
    return False


def _parse_value(label: str, text: str, hint: Any) -> Any:
    options = _options(hint)
    if text in [option for option in options if isinstance(option, str)]:
        return text
    if bool in options and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if type(None) in options and text.lower() == "none":
        return None
    for kind in (int, float):
        if kind in options:
            try:
                return kind(text)
            except ValueError:
                continue
    if str in options:
        return text
    raise UsageError(f"{label} must be {_type_text(hint)}, not {text!r}")


def _type_text(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return " or ".join(names.get(option, str(option)) for option in _options(hint))


def _check_bounds(label: str, value: float, bounds: Mapping[str, Any]) -> None:
    checks = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}
    for key, holds in checks.items():
        bound = bounds.get(key)
        if bound is not None and not holds(value, bound):
            raise UsageError(f"{label} must be {key.replace('_', ' ')} {bound}, not {value}")
