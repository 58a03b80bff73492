"""EnCAgg as published (arXiv 2605.22506): a file a stage, put together in method.py; CHOICES.md fills its gaps."""

from encagg_cli.filters.encagg.method import EnCAgg

__all__ = ["EnCAgg"]
