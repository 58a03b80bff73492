"""From a rule's own figures to a verdict and a score, the same way for every filter."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.filters.base import ACCEPT_THRESHOLD, Decision, suspicion
from encagg_cli.sketch import RoundSketch

REJECT_ABOVE = float(np.nextafter(ACCEPT_THRESHOLD, 0.0))

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]


def verdict(
    sketch: RoundSketch,
    accepted: Mask,
    figure: Numbers,
    *,
    dropped: str | Iterable[str],
    kept: str | Iterable[str] = "kept",
    notes: Iterable[str] = (),
    statistic: Numbers | None = None,
    weight: Numbers | None = None,
    cluster: NDArray[np.int32] | None = None,
    plane: Numbers | None = None,
    trace: Mapping[str, NDArray[Any]] | None = None,
    rejects: bool = True,
) -> Decision:
    """A decision whose score respects the verdict and, on either side of it, the order of a non-negative `figure`.

    `figure` (higher is worse) is also the statistic, unless another is given. `dropped` and `kept` are the reasons, one
    for all or one a client; `notes` are appended to every reason (`kept-relaxed`). Without `rejects`, the rule has no
    verdict, so no threshold.
    """
    n = len(sketch.clients)
    no, yes = _words(dropped, n), _words(kept, n)
    tail = "".join(f"-{note}" for note in notes)
    return Decision(
        clients=sketch.clients,
        accepted=accepted,
        score=suspicion(accepted, relative(figure)),
        reason=tuple((yes[i] if accepted[i] else no[i]) + tail for i in range(n)),
        threshold=REJECT_ABOVE if rejects else None,
        weight=weight,
        statistic=figure if statistic is None else statistic,
        cluster=cluster,
        plane=plane,
        trace=trace or {},
    )


def relative(figure: Numbers) -> Numbers:
    """The figures in units of their own median (of those above zero), so that a score does not depend on scale."""
    positive = figure[(figure > 0) & np.isfinite(figure)]
    with np.errstate(over="ignore"):
        return figure / np.median(positive) if len(positive) else figure


def equal_weights(accepted: Mask) -> Numbers:
    """The mean of the accepted uploads; all zero where there are none."""
    return accepted / max(1, int(accepted.sum()))


def clipped_weights(accepted: Mask, norms: Numbers, bound: float) -> Numbers:
    """The mean of the accepted uploads, each shortened to a norm of at most `bound`."""
    return equal_weights(accepted) * clip_factors(norms, bound)


def clip_factors(lengths: Numbers, bound: float) -> Numbers:
    """`min(1, bound / length)`; 1 where the length is 0."""
    return np.minimum(1.0, np.divide(bound, lengths, out=np.ones_like(lengths), where=lengths > 0))


def by_weight(weight: Numbers, reject_at: float) -> Mask:
    """Accept where a weight is above `reject_at` times the median weight: a verdict for rules that only weigh.

    Where no weight is above zero there is nothing to tell uploads apart by, and all are accepted.
    """
    if not (weight > 0).any():
        return np.ones(len(weight), dtype=bool)
    accepted: Mask = weight > reject_at * float(np.median(weight))
    return accepted


def below(figure: Numbers, limit: float | None) -> Mask:
    """Accept where a figure is at most `limit`, or everywhere: for rules that have no verdict of their own."""
    return np.ones(len(figure), dtype=bool) if limit is None else figure <= limit


def _words(words: str | Iterable[str], n: int) -> list[str]:
    return [words] * n if isinstance(words, str) else list(words)
