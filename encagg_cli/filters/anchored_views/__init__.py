"""Anchored views: the project's own filter. A file a stage: views.py, split.py, trust.py, detector.py, method.py."""

from encagg_cli.filters.anchored_views.method import AnchoredViews, in_words

__all__ = ["AnchoredViews", "in_words"]
