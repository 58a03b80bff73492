"""Ways to group a round's clients that several filters share; seeded, and the same for any order of the clients."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

NOISE = -1
_ITERATIONS = 100


def upper_of_two(values: Numbers) -> Mask:
    """2-means on a line, solved exactly: who is in the cluster of larger values; nobody where all are equal."""
    order = np.argsort(values, kind="stable")
    ordered = values[order] - values[order].mean()
    n = len(values)
    if n < 2 or ordered[0] == ordered[-1]:
        return np.zeros(n, dtype=bool)
    low = np.arange(1, n)
    sums = np.cumsum(ordered)[:-1]
    # Splitting off `low` values gains sums²/low + (total - sums)²/(n - low); the total of centred values is 0.
    gain = sums**2 * (1.0 / low + 1.0 / (n - low))
    gain[ordered[1:] == ordered[:-1]] = -1.0
    upper = np.zeros(n, dtype=bool)
    upper[order[int(gain.argmax()) + 1 :]] = True
    return upper


def two_means(deviations: Numbers, *, seed: int = 0, restarts: int = 10) -> Mask:
    """2-means (Lloyd) from a Gram matrix: one of the two clusters, as a mask; empty where all points are equal.

    `deviations` is the (n, n) Gram matrix relative to any origin. The best of `restarts` k-means++ beginnings, and of
    one that begins with the farthest pair.
    """
    n = len(deviations)
    squares = np.diag(deviations)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * deviations, 0.0)
    np.fill_diagonal(distances, 0.0)
    if n < 2 or not distances.max() > 0:
        return np.zeros(n, dtype=bool)
    pairs = [divmod(int(distances.argmax()), n)]
    generator = np.random.default_rng((seed, 6))
    for _ in range(restarts):
        first = int(generator.integers(n))
        share = distances[first] / distances[first].max() if distances[first].max() > 0 else np.ones(n)
        pairs.append((first, int(generator.choice(n, p=share / share.sum()))))
    members = np.array([distances[:, b] < distances[:, a] for a, b in pairs])
    for _ in range(_ITERATIONS):
        to_others, to_members = (_squares_to_means(deviations, chosen) for chosen in (~members, members))
        moved = to_members < to_others
        if np.array_equal(moved, members):
            break
        members = moved
    inertia = np.where(members, to_members, to_others).sum(axis=1)
    best: Mask = members[int(inertia.argmin())]
    return best


def _squares_to_means(deviations: Numbers, members: NDArray[np.bool_]) -> Numbers:
    """(restarts, n) squared distances to each restart's mean of members; infinite where it has none."""
    counts = members.sum(axis=1)
    weights = members / np.maximum(counts, 1)[:, None]
    products = weights @ deviations
    quadratic = np.einsum("ri,ri->r", products, weights)
    squares = np.diag(deviations)[None, :] - 2.0 * products + quadratic[:, None]
    return np.where(counts[:, None] > 0, np.maximum(squares, 0.0), np.inf)


def k_means(points: Numbers, k: int, *, seed: int = 0, restarts: int = 10) -> Labels:
    """Labels of `points` (n, axes) in `k` clusters: Lloyd, the best of `restarts` k-means++ beginnings."""
    labels, inertia = _batched_k_means(np.broadcast_to(points, (restarts, *points.shape)), k, seed)
    best: Labels = labels[int(inertia.argmin())]
    return best


def gap_clusters(points: Numbers, most: int, *, references: int = 10, seed: int = 0) -> int:
    """The number of clusters by the gap statistic (Tibshirani, Walther & Hastie 2001), from 1 to `most`.

    The first `k` with `gap(k) ≥ gap(k + 1) - s(k + 1)`; reference points are uniform over the box around `points`.
    """
    n, axes = points.shape
    spread = np.ptp(points, axis=0)
    if n < 3 or not (spread > 0).any():
        return 1
    unit = (points - points.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    uniform = np.random.default_rng((seed, 7)).random((references, n, axes)) * (spread > 0)
    most = min(most, len(np.unique(unit, axis=0)))
    previous: float | None = None
    for k in range(1, most + 1):
        own = np.log(_least_inertia(unit[None], k, seed)[0])
        drawn = np.log(_least_inertia(uniform, k, seed))
        gap = float(drawn.mean() - own)
        error = float(drawn.std() * np.sqrt(1.0 + 1.0 / references))
        if previous is not None and previous >= gap - error:
            return k - 1
        previous = gap
    return most


def _least_inertia(batches: Numbers, k: int, seed: int, restarts: int = 4) -> Numbers:
    """(batch,) within-cluster sums of squares, at their best over some restarts; never quite zero."""
    repeated = np.repeat(batches, restarts, axis=0)
    _, inertia = _batched_k_means(repeated, k, seed)
    least: Numbers = np.maximum(inertia.reshape(len(batches), restarts).min(axis=1), np.finfo(np.float64).tiny)
    return least


def _batched_k_means(points: Numbers, k: int, seed: int) -> tuple[Labels, Numbers]:
    """Lloyd on every batch of `points` (batch, n, axes) at once: labels (batch, n) and inertia (batch,)."""
    batch, n, _ = points.shape
    generator = np.random.default_rng((seed, 8, k))
    rows = np.arange(batch)
    centres = [points[rows, generator.integers(n, size=batch)]]
    nearest = ((points - centres[0][:, None]) ** 2).sum(axis=2)
    for _ in range(1, k):
        cumulated = np.cumsum(nearest, axis=1)
        drawn = generator.random(batch) * cumulated[:, -1]
        centres.append(points[rows, np.minimum((cumulated <= drawn[:, None]).sum(axis=1), n - 1)])
        nearest = np.minimum(nearest, ((points - centres[-1][:, None]) ** 2).sum(axis=2))
    labels = np.full((batch, n), NOISE, dtype=np.int32)
    for _ in range(_ITERATIONS):
        distances = np.stack([((points - centre[:, None]) ** 2).sum(axis=2) for centre in centres], axis=2)
        moved = distances.argmin(axis=2).astype(np.int32)
        if np.array_equal(moved, labels):
            break
        labels = moved
        for cluster in range(k):
            members = labels == cluster
            counts = members.sum(axis=1)[:, None]
            means = np.einsum("bn,bna->ba", members, points) / np.maximum(counts, 1)
            centres[cluster] = np.where(counts > 0, means, centres[cluster])
    return labels, np.take_along_axis(distances, labels[:, :, None].astype(np.intp), axis=2).sum(axis=(1, 2))


def mean_shift(points: Numbers, quantile: float) -> Labels:
    """MeanShift with a flat kernel (Comaniciu & Meer 2002) from every point; -1 for points beyond the bandwidth.

    As scikit-learn does it: the bandwidth is the mean distance to the `⌊n · quantile⌋`-th nearest point, itself
    counted; modes within the bandwidth of one with more points are dropped. Where that makes no distance, equal points
    are clusters. Label 0 is the largest cluster.
    """
    n = len(points)
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    bandwidth = float(np.sort(between, axis=1)[:, max(1, int(n * quantile)) - 1].mean())
    if not bandwidth > 1e-9 * max(1.0, float(np.abs(points).max())):
        return by_size(np.unique(points, axis=0, return_inverse=True)[1].ravel())
    modes = points.copy()
    for _ in range(_ITERATIONS):
        near = np.linalg.norm(modes[:, None] - points[None], axis=2) <= bandwidth
        moved = near @ points / near.sum(axis=1)[:, None]
        still = bool(np.linalg.norm(moved - modes, axis=1).max() <= 1e-3 * bandwidth)
        modes = moved
        if still:
            break
    crowd = (np.linalg.norm(modes[:, None] - points[None], axis=2) <= bandwidth).sum(axis=1)
    order = sorted(range(n), key=lambda row: (crowd[row], tuple(modes[row])), reverse=True)
    centres: list[Numbers] = []
    for row in order:
        if all(np.linalg.norm(modes[row] - centre) > bandwidth for centre in centres):
            centres.append(modes[row])
    distances = np.linalg.norm(points[:, None] - np.array(centres)[None], axis=2)
    labels = distances.argmin(axis=1)
    return by_size(np.where(distances.min(axis=1) <= bandwidth, labels, NOISE))


def by_size(labels: NDArray[np.integer]) -> Labels:
    """The same clusters, the largest called 0 (of equally large ones, the first); noise stays -1."""
    found, sizes = np.unique(labels[labels >= 0], return_counts=True)
    ranked = {int(label): rank for rank, label in enumerate(found[np.argsort(-sizes, kind="stable")])}
    return np.array([ranked.get(int(label), NOISE) for label in labels], dtype=np.int32)


def silhouette(distances: Numbers, members: Mask) -> float:
    """Mean silhouette (Rousseeuw 1987) of two clusters, members and the rest; 0 where one is empty."""
    if members.all() or not members.any():
        return 0.0
    width = np.zeros(len(members))
    for cluster, other in ((members, ~members), (~members, members)):
        size = int(cluster.sum())
        if size > 1:
            own = distances[np.ix_(cluster, cluster)].sum(axis=1) / (size - 1)
            far = distances[np.ix_(cluster, other)].mean(axis=1)
            larger = np.maximum(own, far)
            width[cluster] = np.divide(far - own, larger, out=np.zeros(size), where=larger > 0)
    return float(width.mean())


def majority_density_cluster(distances: Numbers, min_cluster_size: int | None = None, min_samples: int = 1) -> Labels:
    """HDBSCAN on a distance matrix, one cluster allowed: label 0 for the largest, -1 for noise, 1 and on for others.

    `min_cluster_size` is a majority, `⌊n/2⌋ + 1`, where it is not given. With one or two clients there is nothing to
    cluster: one cluster.
    """
    n = len(distances)
    if n < 3:
        return np.zeros(n, dtype=np.int32)
    from sklearn.cluster import HDBSCAN

    clustering = HDBSCAN(
        min_cluster_size=max(2, n // 2 + 1 if min_cluster_size is None else min(min_cluster_size, n)),
        min_samples=min(min_samples, n),
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    )
    return by_size(np.asarray(clustering.fit(distances).labels_))
