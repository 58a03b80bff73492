"""Clustering filters against dense references and small cases by hand."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import dct
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.metrics.pairwise import cosine_distances, cosine_similarity
from threadpoolctl import threadpool_limits

from encagg_cli.errors import UsageError
from encagg_cli.filters import Decision, get
from encagg_cli.filters.auror import split_columns
from encagg_cli.filters.fedra import estimated_attackers
from encagg_cli.rounds.layout import Parameter
from encagg_cli.sketch.signs import SignCountNeed

Matrix = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """scikit-learn's threads wait for each other longer than such small data take."""
    with threadpool_limits(1):
        yield


LAYERS = (
    Parameter("hidden.weight", (6, 5), 0),
    Parameter("hidden.bias", (6,), 30),
    Parameter("out.weight", (4, 6), 36, role="output"),
    Parameter("out.bias", (4,), 60, role="output"),
)
OUTPUT = slice(36, 64)


def updates_of(seed: int, n: int = 20, bad: int = 6, d: int = 64) -> Matrix:
    """The first `bad` share a direction of their own."""
    generator = np.random.default_rng(seed)
    updates = generator.standard_normal(d) + 0.4 * generator.standard_normal((n, d))
    updates[:bad] += 2 * generator.standard_normal(d)
    return updates.astype(np.float32).astype(np.float64)


def rejected(decision: Decision) -> set[int]:
    return set(np.flatnonzero(~decision.accepted).tolist())


def majority_by_hdbscan(distances: Matrix) -> NDArray[np.bool_]:
    n = len(distances)
    clustering = HDBSCAN(
        min_cluster_size=n // 2 + 1, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True
    )
    kept: NDArray[np.bool_] = clustering.fit(distances).labels_ == 0
    return kept


def ordered(decision: Decision, n: int) -> Decision:
    return decision.in_order([f"{row:02d}" for row in range(n)])


def clients(n: int) -> list[str]:
    return [f"{row:02d}" for row in range(n)]


@pytest.mark.parametrize("seed", range(4))
def test_flame_on_updates(seed: int) -> None:
    updates = updates_of(seed)
    kept = majority_by_hdbscan(cosine_distances(updates))
    decision = get("flame").decide(updates, clients=clients(20))
    np.testing.assert_array_equal(decision.accepted, kept)
    assert not decision.accepted[:6].any()
    norms = np.linalg.norm(updates, axis=1)
    bound = np.median(norms)
    clipped = updates * np.minimum(1, bound / norms)[:, None]
    assert decision.weight is not None
    np.testing.assert_allclose(decision.weight @ updates, clipped[kept].mean(axis=0), rtol=1e-5)
    assert decision.noise == pytest.approx(0.001 * bound)
    assert decision.reason[0] == "noise-updates"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_flame_on_models(seed: int, size: float) -> None:
    """Also where the model is so long that its cosines with the clients' models are all 1 in float32."""
    updates = updates_of(seed)
    model = size * np.random.default_rng(50 + seed).standard_normal(64).astype(np.float32)
    decision = get("flame").decide(updates, clients=clients(20), vectors={"global_model": model})
    np.testing.assert_array_equal(decision.accepted, majority_by_hdbscan(cosine_distances(updates + model)))
    assert decision.reason[0] == "noise-models"
    gradients = get("flame").decide(
        updates, clients=clients(20), vectors={"global_model": model}, update_kind="gradient"
    )
    assert gradients.reason[0] == "noise-updates"


def test_flame_on_models_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="needs the stored global model"):
        get("flame(on=models)").decide(updates_of(0))


@pytest.mark.parametrize("name", ["flame", "freqfed"])
def test_where_density_clustering_finds_no_cluster_all_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDBSCAN that may find a single cluster nearly always does, so none is put in its place here."""
    monkeypatch.setattr(
        f"encagg_cli.filters.{name}.majority_density_cluster", lambda distances, *_: np.full(len(distances), -1)
    )
    decision = get(name).decide(updates_of(0), parameters=LAYERS)
    assert decision.accepted.all()
    assert set(decision.reason) == {"no-cluster-updates"}


def test_where_dbscan_finds_no_cluster_norms_alone_decide() -> None:
    updates = updates_of(0, d=2000)
    updates[4] *= 100
    decision = get("signguard(clustering=dbscan,eps=1e-9,min_samples=15)").decide(updates, clients=clients(20))
    assert rejected(decision) == {4}
    assert decision.reason[4] == "norm"
    assert decision.reason[0] == "no-cluster"


@pytest.mark.parametrize("seed", range(4))
def test_signguard(seed: int) -> None:
    updates = updates_of(seed, d=2000)
    updates[:6] = np.abs(updates[:6])
    updates[10] *= 50
    updates[11] *= 1e-3
    decision = get("signguard").decide(updates, clients=clients(20))
    norms = np.linalg.norm(updates, axis=1)
    ordinary = (norms > 0.1 * np.median(norms)) & (norms < 3 * np.median(norms))
    assert [word == "norm" for word in decision.reason] == (~ordinary).tolist()
    start, stop = SignCountNeed(0.1, 0).window(2000)
    assert stop - start == 200
    signs = np.sign(updates[:, start:stop])
    shares = np.stack([(signs == sign).mean(axis=1) for sign in (1, 0, -1)], axis=1)
    features = shares / np.where(shares.max(axis=0) > 0, shares.max(axis=0), 1)
    assert decision.cluster is not None
    assert decision.statistic is not None
    centre = features[decision.cluster == 0].mean(axis=0)
    np.testing.assert_allclose(
        decision.statistic[ordinary], np.linalg.norm(features - centre, axis=1)[ordinary], atol=1e-12
    )
    assert rejected(decision) >= {0, 1, 2, 3, 4, 5, 10, 11}
    clipped = updates * np.minimum(1, np.median(norms) / norms)[:, None]
    assert decision.weight is not None
    np.testing.assert_allclose(decision.weight @ updates, clipped[decision.accepted].mean(axis=0), rtol=1e-5)


def test_signguard_with_dbscan() -> None:
    updates = updates_of(1, d=2000)
    updates[:6] = np.abs(updates[:6])
    assert rejected(get("signguard(clustering=dbscan)").decide(updates, clients=clients(20))) >= set(range(6))


@pytest.mark.parametrize("seed", range(4))
def test_rflbat(seed: int) -> None:
    """Two groups: identical-looking colluders and the rest; the less alike group stays."""
    generator = np.random.default_rng(seed)
    updates = updates_of(seed, bad=0)
    updates[:8] = 12 * generator.standard_normal(64) + 0.05 * generator.standard_normal((8, 64))
    decision = get("rflbat").decide(updates, clients=clients(20))
    assert rejected(decision) >= set(range(8))
    assert decision.plane is not None
    plane = PCA(2).fit_transform(updates)
    ours = np.linalg.norm(decision.plane[:, None] - decision.plane[None], axis=2)
    np.testing.assert_allclose(ours, np.linalg.norm(plane[:, None] - plane[None], axis=2), rtol=1e-3, atol=1e-3)
    assert decision.cluster is not None
    likeness = []
    for label in range(decision.cluster.max() + 1):
        members = updates[decision.cluster == label]
        alike = cosine_similarity(members).mean(axis=1)
        likeness.append(np.median(alike) if len(members) > 1 else np.inf)
    assert set(decision.cluster[decision.accepted]) == {int(np.argmin(likeness))}


def test_rflbat_cuts_an_outlier_before_it_clusters() -> None:
    updates = updates_of(0, bad=0)
    updates[3] *= 1e4
    decision = get("rflbat").decide(updates, clients=clients(20))
    assert not decision.accepted[3]
    assert decision.reason[3] == "outlier"
    assert decision.cluster is not None
    assert decision.cluster[3] == -1


@pytest.mark.parametrize("seed", range(4))
def test_dpfla(seed: int) -> None:
    updates = updates_of(seed, bad=0)
    row = slice(36 + 6, 36 + 12)
    updates[:6, row] += 15
    decision = get("dpfla").decide(updates, clients=clients(20), parameters=LAYERS)
    assert rejected(decision) == set(range(6))
    best, width = None, -2.0
    for c in range(4):
        rows = updates[:, 36 + 6 * c : 42 + 6 * c]
        left, values, _ = np.linalg.svd(rows, full_matrices=False)
        points = left[:, :2] * values[:2]
        labels = KMeans(2, n_init=20, random_state=0).fit(points).labels_
        if silhouette_score(points, labels) > width:
            best, width = points, silhouette_score(points, labels)
    assert best is not None
    assert decision.statistic is not None
    np.testing.assert_allclose(
        decision.statistic, np.linalg.norm(best - best[6:].mean(axis=0), axis=1), rtol=1e-3, atol=1e-4
    )


def test_dpfla_believes_no_split_that_is_not_clear() -> None:
    decision = get("dpfla").decide(updates_of(0, bad=0), parameters=LAYERS)
    assert decision.accepted.all()


def test_filters_of_the_output_layer_say_where_none_is_marked() -> None:
    for name in ("dpfla", "auror", "freqfed"):
        decision = get(name).decide(updates_of(0))
        assert decision.accepted.all()
        assert set(decision.reason) == {"no-output-layer"}


@pytest.mark.parametrize("seed", range(4))
def test_flguardian(seed: int) -> None:
    """Trust is the weighted share of layers in which a client is in both larger clusters."""
    updates = updates_of(seed)
    trust = np.zeros(20)
    for level, part in enumerate((updates[:, :36], updates[:, 36:])):
        benign = np.ones(20, dtype=bool)
        for distances in (cosine_distances(part), np.linalg.norm(part[:, None] - part[None], axis=2)):
            sums = ((distances - distances.mean(axis=0)) / distances.std(axis=0)).sum(axis=1)
            splits = [sums >= value for value in np.sort(sums)[1:]]
            far = min(splits, key=lambda far: sums[far].var() * far.sum() + sums[~far].var() * (~far).sum())
            benign &= far if 2 * far.sum() > 20 else ~far
        trust += 2.0**level * benign
    trust /= 3
    for keep, count in (("", 10), ("(keep=0.7)", 14)):
        decision = get(f"flguardian{keep}").decide(updates, clients=clients(20), parameters=LAYERS)
        assert decision.statistic is not None
        np.testing.assert_allclose(decision.statistic, 1 - trust, atol=1e-9)
        np.testing.assert_array_equal(decision.accepted, trust >= np.sort(trust)[-count] - 1e-9)
    assert rejected(get("flguardian").decide(updates, clients=clients(20), parameters=LAYERS)) >= set(range(6))


def test_flguardian_counts_a_bare_vector_as_one_layer() -> None:
    updates = updates_of(0)
    decision = get("flguardian").decide(updates, clients=clients(20))
    assert rejected(decision) >= set(range(6))


def test_auror_splits_columns_exactly() -> None:
    columns = np.array([[0.0, 1.0, 3.0], [0.2, 1.0, 3.0], [5.0, 1.0, 3.0], [5.4, 1.0, 4.0]])
    gap, deviation = split_columns(columns)
    np.testing.assert_allclose(gap, [5.2 - 0.1, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(deviation, [np.sqrt((0.02 + 0.08) / 2), 0.0, 0.0], atol=1e-7)


@pytest.mark.parametrize("text", ["auror", "auror(threshold=3.0)"])
def test_auror_rejects_the_minority_on_the_indicative_coordinates(text: str) -> None:
    updates = updates_of(0, bad=0)
    updates[:7, 40:46] += 6
    decision = get(text).decide(updates, clients=clients(20), parameters=LAYERS)
    assert rejected(decision) == set(range(7))
    assert decision.statistic is not None
    indicative = updates[:, 40:46]
    np.testing.assert_allclose(
        decision.statistic, np.linalg.norm(indicative - indicative[7:].mean(axis=0), axis=1), rtol=1e-6
    )
    elsewhere = updates_of(0, bad=0)
    elsewhere[:7, :10] += 60
    assert get(text).decide(elsewhere, clients=clients(20), parameters=LAYERS).accepted.all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stored", [False, True])
def test_freqfed(seed: int, stored: bool) -> None:
    updates = updates_of(seed)
    model = np.random.default_rng(seed).standard_normal(64).astype(np.float32)
    low = dct((updates + stored * model)[:, OUTPUT], type=2, norm="ortho", axis=1)[:, :14]
    kept = majority_by_hdbscan(cosine_distances(low))
    decision = get("freqfed").decide(
        updates, clients=clients(20), parameters=LAYERS, vectors={"global_model": model} if stored else {}
    )
    np.testing.assert_array_equal(decision.accepted, kept if kept.any() else True)
    assert decision.reason[0].endswith("-models" if stored else "-updates")


@pytest.mark.parametrize("seed", range(4))
def test_k_means_accepts_the_cluster_of_the_known_benign(seed: int) -> None:
    updates = updates_of(seed, bad=12)
    labels = KMeans(2, n_init=20, random_state=0).fit(updates).labels_
    decision = get("k-means").decide(updates, clients=clients(20), trusted=["13", "15", "17"])
    np.testing.assert_array_equal(decision.accepted, labels == labels[13])
    assert rejected(decision) == set(range(12))


def test_k_means_without_known_benign_clients_takes_the_larger_cluster(judge_stored: Callable[..., Decision]) -> None:
    assert rejected(judge_stored(get("k-means"), updates_of(0), clients=clients(20))) == set(range(6))


@pytest.mark.parametrize("seed", range(4))
def test_fedra_scores_by_quantity(seed: int) -> None:
    updates = updates_of(seed, bad=4)
    quantity = np.random.default_rng(seed).integers(5, 500, 20)
    squares = ((updates[:, None] - updates[None]) ** 2).sum(axis=2)
    decision = get("fedra").decide(updates, clients=clients(20), num_examples=quantity.tolist())
    assert decision.statistic is not None
    np.testing.assert_allclose(decision.statistic, squares @ quantity / quantity.sum(), rtol=1e-5)
    assert rejected(decision) >= set(range(4))
    assert decision.weight is not None
    kept = decision.accepted
    np.testing.assert_allclose(decision.weight[kept], quantity[kept] / quantity[kept].sum())


def test_fedra_says_where_counts_are_unknown() -> None:
    decision = get("fedra").decide(updates_of(0, bad=0))
    assert all(word.endswith("-no-counts") for word in decision.reason)


@pytest.mark.parametrize("m", [0, 1, 3, 8])
def test_fedra_estimates_how_many_stand_out(m: int) -> None:
    estimates = []
    for seed in range(50):
        scores = np.random.default_rng(seed).normal(10, 1, 20)
        scores[:m] += 12
        estimates.append(estimated_attackers(scores))
    assert np.median(estimates) == m
    assert np.mean(estimates) == pytest.approx(m, abs=0.5)


def test_fedra_never_drops_half() -> None:
    for n in range(1, 9):
        assert estimated_attackers(np.r_[np.zeros(n // 2), np.ones(n - n // 2)]) < n / 2
