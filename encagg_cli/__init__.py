"""Who poisoned this round? Record client updates, replay filters over them, score the verdicts.

The public names are imported when first used: recording must not load torch, and `--help` must not load anything heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Recorder": ("encagg_cli.capture.recorder", "Recorder"),
    "record": ("encagg_cli.capture.child", "record"),
    "end_round": ("encagg_cli.capture.child", "end_round"),
    "Run": ("encagg_cli.rounds.reader", "Run"),
    "filters": ("encagg_cli.filters", None),
}

__all__ = ["Recorder", "Run", "__version__", "end_round", "filters", "record"]

if TYPE_CHECKING:
    from encagg_cli import filters
    from encagg_cli.capture.child import end_round, record
    from encagg_cli.capture.recorder import Recorder
    from encagg_cli.rounds.reader import Run


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'encagg_cli' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = import_module(module_name)
    return module if attribute is None else getattr(module, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
