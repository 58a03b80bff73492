"""The registry of filters: `get("multi-krum(f=8)")` makes one, `available()` lists them.

A filter's module is imported when the filter is first asked for: some need torch or scikit-learn.

Not here: filters that need a model and data beside the updates (Zeno, FLShield, DeepSight, CrowdGuard), RSA, which is a
training protocol and not a filter, and those whose equations are not public (TDFL, MODEL, FedMP, SINE, MESAS).
"""

from difflib import get_close_matches
from importlib import import_module

from encagg_cli.errors import UsageError
from encagg_cli.filters.base import Context, Decision, Filter, Requirement
from encagg_cli.filters.requirements import Facts, unmet, what_to_do
from encagg_cli.settings import build, canonical, parse_call

__all__ = [
    "DEFAULT_METHOD",
    "Context",
    "Decision",
    "Facts",
    "Filter",
    "Requirement",
    "available",
    "canonical",
    "get",
    "kind_of",
    "unmet",
    "what_to_do",
]

DEFAULT_METHOD = "anchored-views"

_MODULES = {
    "anchored-views": ("encagg_cli.filters.anchored_views", "AnchoredViews"),
    "encagg": ("encagg_cli.filters.encagg", "EnCAgg"),
    "cosine-to-known-benign": ("encagg_cli.filters.cosine_to_known_benign", "CosineToKnownBenign"),
    "k-means": ("encagg_cli.filters.k_means", "KMeans"),
    "median": ("encagg_cli.filters.median", "Median"),
    "trimmed-mean": ("encagg_cli.filters.trimmed_mean", "TrimmedMean"),
    "krum": ("encagg_cli.filters.krum", "Krum"),
    "multi-krum": ("encagg_cli.filters.krum", "MultiKrum"),
    "bulyan": ("encagg_cli.filters.bulyan", "Bulyan"),
    "faba": ("encagg_cli.filters.faba", "Faba"),
    "dnc": ("encagg_cli.filters.dnc", "DnC"),
    "norm-bound": ("encagg_cli.filters.norm_bound", "NormBound"),
    "flame": ("encagg_cli.filters.flame", "Flame"),
    "signguard": ("encagg_cli.filters.signguard", "SignGuard"),
    "rflbat": ("encagg_cli.filters.rflbat", "Rflbat"),
    "freqfed": ("encagg_cli.filters.freqfed", "FreqFed"),
    "auror": ("encagg_cli.filters.auror", "Auror"),
    "dpfla": ("encagg_cli.filters.dpfla", "Dpfla"),
    "flguardian": ("encagg_cli.filters.flguardian", "FLGuardian"),
    "lasa": ("encagg_cli.filters.lasa", "Lasa"),
    "fedra": ("encagg_cli.filters.fedra", "FedRA"),
    "rfa": ("encagg_cli.filters.rfa", "Rfa"),
    "crh-truth-discovery": ("encagg_cli.filters.crh", "CrhTruthDiscovery"),
    "fltrust": ("encagg_cli.filters.fltrust", "FLTrust"),
    "centred-clipping": ("encagg_cli.filters.centred_clipping", "CentredClipping"),
    "shieldfl": ("encagg_cli.filters.shieldfl", "ShieldFL"),
    "foolsgold": ("encagg_cli.filters.foolsgold", "FoolsGold"),
    "fldetector": ("encagg_cli.filters.fldetector", "FLDetector"),
    "flair": ("encagg_cli.filters.flair", "Flair"),
    "mean": ("encagg_cli.filters.mean", "Mean"),
}


def available() -> tuple[str, ...]:
    """Names of all filters."""
    return tuple(_MODULES)


def kind_of(name: str) -> type[Filter]:
    """The class of the filter with that name; raises UsageError."""
    if name not in _MODULES:
        near = get_close_matches(name, _MODULES, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no method {name!r}", hint=f"{guess}choose from {', '.join(_MODULES)}")
    module, attribute = _MODULES[name]
    kind: type[Filter] = getattr(import_module(module), attribute)
    return kind


def get(text: str, **settings: object) -> Filter:
    """Make a filter from its canonical text, `get("multi-krum(f=8)")`, or from settings, `get("multi-krum", f=8)`."""
    name, arguments = parse_call(text)
    kind = kind_of(name)
    return build(kind, {**arguments, **{key: str(value) for key, value in settings.items()}})
