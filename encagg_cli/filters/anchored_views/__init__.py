"""Anchored views: the project's own filter. Start at method.py, then detector.py and reversal.py."""

from encagg_cli.filters.anchored_views.method import AnchoredViews, in_words

__all__ = ["AnchoredViews", "in_words"]
