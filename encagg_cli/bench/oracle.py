"""What any filter could reach at most: scores that are told which uploads are honest.

The cosine and the distance of every upload to the mean of the *other* honest uploads. Where even these cannot tell the
attackers apart, a weak figure is a limit of the data, and not a fault of a method.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch import Gram

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class OracleScores:
    """Suspicion by score name, each aligned with the round's clients."""

    scores: dict[str, Vector]


def oracle_scores(gram: Gram, poisoned: NDArray[np.bool_]) -> OracleScores:
    """Cosine, distance and norm against the honest uploads; an honest upload is compared with the others alone."""
    honest = (~poisoned).astype(np.float64)
    n_honest = honest.sum()
    cosine, distance = np.empty(len(honest)), np.empty(len(honest))
    for client in range(len(honest)):
        weights = honest.copy()
        weights[client] = 0.0
        weights /= max(n_honest - honest[client], 1.0)
        cosine[client] = gram.cosines_to(weights)[client]
        distance[client] = np.sqrt(gram.squared_distances_to(weights)[client])
    norms = gram.norms
    median = np.median(norms[~poisoned]) if n_honest else 1.0
    with np.errstate(divide="ignore"):
        size = np.abs(np.log(np.where(norms > 0, norms, np.finfo(float).tiny) / max(median, np.finfo(float).tiny)))
    return OracleScores({"cosine": 1.0 - cosine, "distance": distance, "near": -distance, "norm": size})


def ordered_pairs(score: Vector, poisoned: NDArray[np.bool_]) -> tuple[float, int]:
    """Pairs of a poisoned and an honest upload that the score orders rightly (ties half), and all pairs."""
    bad, good = score[poisoned], score[~poisoned]
    wins = (bad[:, None] > good[None, :]).sum() + 0.5 * (bad[:, None] == good[None, :]).sum()
    return float(wins), len(bad) * len(good)


def best_counts(score: Vector, poisoned: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """`(tp, fp, tn, fn)` at the threshold of best F1; nothing is rejected where nothing is poisoned."""
    total = int(poisoned.sum())
    if total == 0:
        return 0, 0, len(poisoned), 0
    order = np.argsort(-score, kind="stable")
    tp = np.cumsum(poisoned[order])
    rejected = np.arange(1, len(order) + 1)
    last_of_tie = np.append(score[order][1:] != score[order][:-1], True)
    f1 = np.where(last_of_tie, 2 * tp / (rejected + total), -1.0)
    best = int(f1.argmax())
    caught = int(tp[best])
    fp = int(rejected[best]) - caught
    return caught, fp, len(poisoned) - total - fp, total - caught


def harm(gram: Gram, weight: Vector, poisoned: NDArray[np.bool_]) -> tuple[float, float]:
    """How far a linear aggregate is from the honest mean: `‖a - h‖ / ‖h‖`, and the angle between them in degrees.

    NaN where the aggregate is nothing (no weight at all).
    """
    if not np.any(weight):
        return float("nan"), float("nan")
    mean = (~poisoned) / max(int((~poisoned).sum()), 1)
    difference = weight - mean
    inner = gram.inner
    mean_norm = np.sqrt(max(float(mean @ inner @ mean), 0.0))
    aggregate_norm = np.sqrt(max(float(weight @ inner @ weight), 0.0))
    # Where the weights sum to one the difference is taken between deviations, which loses no digits.
    matrix = gram.deviations if abs(float(difference.sum())) < 1e-9 else inner
    distance = np.sqrt(max(float(difference @ matrix @ difference), 0.0))
    if not mean_norm > 0 or not aggregate_norm > 0:
        return (distance / mean_norm if mean_norm > 0 else float("nan")), float("nan")
    cosine = float(weight @ inner @ mean) / (mean_norm * aggregate_norm)
    return distance / mean_norm, float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
