"""The registry of attacks: `get("lie(z=2.0)")` makes one, `available()` lists them.

An attack's module is imported when the attack is first asked for.
"""

from importlib import import_module

from encagg_cli.attacks.base import Attack, AttackNeed, craft, craft_matrix
from encagg_cli.attacks.scene import Scene
from encagg_cli.errors import UsageError
from encagg_cli.settings import build, canonical, parse_call

__all__ = ["Attack", "AttackNeed", "Scene", "available", "canonical", "craft", "craft_matrix", "get", "kind_of"]

_MODULES = {
    "lie": ("encagg_cli.attacks.lie", "Lie"),
    "lie-optimised": ("encagg_cli.attacks.lie_optimised", "LieOptimised"),
    "ipm": ("encagg_cli.attacks.ipm", "Ipm"),
    "ipm-optimised": ("encagg_cli.attacks.ipm_optimised", "IpmOptimised"),
    "min-max": ("encagg_cli.attacks.min_max", "MinMax"),
    "min-sum": ("encagg_cli.attacks.min_sum", "MinSum"),
    "agr-tailored": ("encagg_cli.attacks.agr_tailored", "AgrTailored"),
    "adaptive": ("encagg_cli.attacks.adaptive", "Adaptive"),
    "cmp": ("encagg_cli.attacks.cmp", "CovertPoisoning"),
    "fang-krum": ("encagg_cli.attacks.fang_krum", "FangKrum"),
    "fang-trimmed-mean": ("encagg_cli.attacks.fang_trimmed_mean", "FangTrimmedMean"),
    "ua-fedrec": ("encagg_cli.attacks.ua_fedrec", "UaFedRec"),
    "byz-mean": ("encagg_cli.attacks.byz_mean", "ByzMean"),
    "mimic": ("encagg_cli.attacks.mimic", "Mimic"),
    "sign-flip": ("encagg_cli.attacks.sign_flip", "SignFlip"),
    "scaling": ("encagg_cli.attacks.scaling", "Scaling"),
    "gaussian": ("encagg_cli.attacks.gaussian", "Gaussian"),
    "free-rider": ("encagg_cli.attacks.free_rider", "FreeRider"),
    "label-flip": ("encagg_cli.attacks.label_flip", "LabelFlip"),
    "xfed-like": ("encagg_cli.attacks.xfed_like", "XfedLike"),
    "fedghost-like": ("encagg_cli.attacks.fedghost_like", "FedGhostLike"),
    "fedimp-like": ("encagg_cli.attacks.fedimp_like", "FedImpLike"),
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
    name, arguments = parse_call(text, "an attack")
    return build(kind_of(name), {**arguments, **{key: str(value) for key, value in settings.items()}})
