"""The registry of attacks: `get("lie(z=2.0)")` makes one, `available()` lists them.

An attack's module is imported when the attack is first asked for.
"""

from importlib import import_module

from encagg_cli.attacks.base import Attack, AttackNeed, craft, craft_matrix
from encagg_cli.attacks.scene import Scene
from encagg_cli.errors import UsageError
from encagg_cli.filters.settings import build, canonical, parse_call

__all__ = ["Attack", "AttackNeed", "Scene", "available", "canonical", "craft", "craft_matrix", "get", "kind_of"]

_MODULES = {
    "label-flip": ("encagg_cli.attacks.label_flip", "LabelFlip"),
    "lie": ("encagg_cli.attacks.lie", "Lie"),
    "min-max": ("encagg_cli.attacks.min_max", "MinMax"),
    "sign-flip": ("encagg_cli.attacks.sign_flip", "SignFlip"),
}


def available() -> tuple[str, ...]:
    """Names of all attacks."""
    return tuple(_MODULES)


def kind_of(name: str) -> type[Attack]:
    """The class of the attack with that name; raises UsageError."""
    if name not in _MODULES:
        raise UsageError(f"there is no attack {name!r}", hint=f"choose from {', '.join(_MODULES)}")
    module, attribute = _MODULES[name]
    kind: type[Attack] = getattr(import_module(module), attribute)
    return kind


def get(text: str, **settings: object) -> Attack:
    """Make an attack from its canonical text, `get("lie(z=2.0)")`, or from settings, `get("lie", z=2.0)`."""
    name, arguments = parse_call(text)
    return build(kind_of(name), {**arguments, **{key: str(value) for key, value in settings.items()}})
