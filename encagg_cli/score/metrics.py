"""The metrics and their formulas, in one place: from counts (summed over rounds) to figures.

The positive class is *poisoned*; a positive verdict is a rejection. Counts are arrays whose last axis is `COLUMNS`,
so that the same formulas serve a total, a table by round, and the resamples of a bootstrap.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Figures = dict[str, float | None]
"""Metric name to value; None where it is undefined."""

COLUMNS: Final = (
    "tp",  # poisoned, rejected
    "fp",  # honest, rejected
    "tn",  # honest, accepted
    "fn",  # poisoned, accepted
    "wins",  # pairs within a round whose poisoned upload scores above the honest one; a tie is half a pair
    "pairs",  # pairs of a poisoned and an honest upload within a round
    "precision_sum",  # sum over rounds of the round's average precision
    "mixed_rounds",  # rounds that have both classes
    "clean_fp",  # honest and rejected, in rounds without any poisoned upload
    "clean_tn",  # honest and accepted, in such rounds
    "clean_rounds",  # such rounds
    "labelled_rounds",  # rounds with an upload that counts and has a label
    "rounds",
    "uploads",  # that count: not of known-benign clients
    "rejected",  # of those
    "unlabelled",  # of those
    "known_benign",  # uploads of known-benign clients, never counted above
    "known_benign_rejected",
)
COLUMN: Final = MappingProxyType({name: index for index, name in enumerate(COLUMNS)})


@dataclass(frozen=True)
class Metric:
    """A metric as people and gates know it."""

    name: str
    label: str
    better: Literal["higher", "lower"]
    meaning: str
    undefined: str

    @property
    def option(self) -> str:
        """The name as it is written in an option: `clean-fpr`."""
        return self.name.replace("_", "-")


_NO_LABELS = "no upload that counts has a label"
_ALL = (
    Metric("precision", "precision", "higher", "rejected uploads that are poisoned", "no labelled upload was rejected"),
    Metric("recall", "recall", "higher", "poisoned uploads that were rejected", "no upload is labelled poisoned"),
    Metric(
        "f1", "F1", "higher", "harmonic mean of precision and recall", "nothing is poisoned and nothing was rejected"
    ),
    Metric("fpr", "FPR", "lower", "honest uploads that were rejected", "no upload is labelled honest"),
    Metric("benign_retention", "kept", "higher", "honest uploads that were accepted", "no upload is labelled honest"),
    Metric(
        "auroc",
        "AUROC",
        "higher",
        "pairs of a poisoned and an honest upload of one round that the score orders rightly",
        "no round has both poisoned and honest uploads",
    ),
    Metric(
        "average_precision",
        "AP",
        "higher",
        "average precision, the mean over rounds that have both classes",
        "no round has both poisoned and honest uploads",
    ),
    Metric(
        "clean_fpr",
        "clean FPR",
        "lower",
        "honest uploads that were rejected in rounds without any poisoned upload",
        "no round is known to be without poisoned uploads",
    ),
    Metric(
        "rejected", "rejected", "lower", "uploads that were rejected, labelled or not", "there is no upload that counts"
    ),
)
METRICS: Final = MappingProxyType({metric.name: metric for metric in _ALL})


def metric_values(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """All metrics of counts of shape (..., columns), each of shape (...,); NaN where undefined."""
    c = {name: counts[..., index] for name, index in COLUMN.items()}
    positive, honest = c["tp"] + c["fn"], c["fp"] + c["tn"]
    return {
        "precision": _ratio(c["tp"], c["tp"] + c["fp"]),
        "recall": _ratio(c["tp"], positive),
        "f1": _ratio(2 * c["tp"], 2 * c["tp"] + c["fp"] + c["fn"]),
        "fpr": _ratio(c["fp"], honest),
        "benign_retention": _ratio(c["tn"], honest),
        "auroc": _ratio(c["wins"], c["pairs"]),
        "average_precision": _ratio(c["precision_sum"], c["mixed_rounds"]),
        "clean_fpr": _ratio(c["clean_fp"], c["clean_fp"] + c["clean_tn"]),
        "rejected": _ratio(c["rejected"], c["uploads"]),
    }


def figures(counts: NDArray[np.float64]) -> Figures:
    """All metrics of one row of counts, shape (columns,)."""
    return {name: None if np.isnan(value) else float(value) for name, value in metric_values(counts).items()}


def why_undefined(name: str, counts: NDArray[np.float64]) -> str:
    """In words, why a metric of these counts has no value."""
    if name != "rejected" and counts[COLUMN["uploads"]] and counts[COLUMN["unlabelled"]] == counts[COLUMN["uploads"]]:
        return _NO_LABELS
    return METRICS[name].undefined


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.asarray(whole) > 0
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=known), dtype=np.float64)
