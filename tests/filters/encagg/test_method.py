"""EnCAgg's rounds as a whole: verdicts, reasons and scores, against a dense oracle and by hand."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.decomposition import PCA

from encagg_cli import filters
from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.filters import Decision

# Known-benign 0-3 and honest 4-7 about the origin, ε = 1 (the 2nd of 6 distances, both sides of a unit square being 1).
SQUARE = [(0, 0), (1, 0), (0, 1), (1, 1)]
HONEST = [(0.4, 0.5), (0.6, 0.5), (0.5, 0.3), (0.5, 0.8)]
KNOWN = range(4)


def decide(points: list[tuple[float, float]], text: str = "encagg(generator=off)") -> Decision:
    """Updates in R² are their own principal plane, turned and shifted."""
    return filters.get(text).decide(np.array(points, dtype=float), trusted=list(KNOWN))


def oracle(updates: np.ndarray, known: np.ndarray, pseudo: np.ndarray | None = None) -> np.ndarray:
    """Steps 1-6 from the updates themselves: PCA and DBSCAN of scikit-learn, Algorithm 1 in loops. (n,) accepted.

    `pseudo` are pseudo-gradients on the second plane, relative to the mean of the uploads there.
    """

    def rule(points: np.ndarray, labels: np.ndarray, trusted: list[int], roots: list[int], n: int, lone: bool):
        found = {labels[i] for i in roots if labels[i] != -1}
        if not found:
            found = {label for label in labels[:n] if label != -1}
            if not found or (len(found) == 1 and not lone):
                return -1, [i for i in range(n) if labels[i] == -1]
        best = min(
            found, key=lambda c: sum(np.linalg.norm(points[i] - points[labels == c].mean(axis=0)) for i in roots)
        )
        near = [i for i in range(n) if min(np.linalg.norm(points[i] - points[t]) for t in trusted) <= 3 * epsilon]
        return best, [i for i in near if labels[i] == best]

    plane = PCA(2, svd_solver="full").fit_transform(updates)
    trusted = np.flatnonzero(known).tolist()
    pairs = sorted((np.linalg.norm(plane[i] - plane[j]), i, j) for i in trusted for j in trusted if i < j)
    epsilon, *roots = pairs[int(np.ceil(0.2 * len(pairs))) - 1]
    epsilon *= 1 + 1e-6
    labels = DBSCAN(eps=epsilon, min_samples=5).fit_predict(plane)
    _, members = rule(plane, labels, trusted, roots, len(plane), True)
    rows = sorted({*members, *np.flatnonzero(labels == -1).tolist()})
    second = PCA(2, svd_solver="full").fit_transform(updates[rows])
    for axis in range(2):
        second[:, axis] *= np.sign(second[np.abs(second[:, axis]).argmax(), axis])
    points = second
    if pseudo is not None:
        points = np.vstack([second, pseudo])
    labels = DBSCAN(eps=epsilon, min_samples=5).fit_predict(points)
    here = [rows.index(i) for i in trusted if i in rows]
    label, kept = rule(points, labels, here, [rows.index(i) for i in roots if i in rows], len(rows), False)
    accepted = np.zeros(len(updates), dtype=bool)
    accepted[trusted if label == -1 or not kept else [rows[i] for i in kept]] = True
    return accepted


def honest_and_poisoned(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Thirty updates with heavy tails, up to half of them moved away together; five of the others known-benign."""
    random = np.random.default_rng(seed)
    updates = random.standard_t(4, size=(30, 40)) * np.linspace(2.0, 0.3, 40)
    poisoned = int(random.integers(0, 16))
    if poisoned:
        updates[:poisoned] = updates[:poisoned] * random.uniform(0.0, 1.0) + random.normal(size=40) * 2
    order = random.permutation(30)
    known = np.zeros(30, dtype=bool)
    known[np.flatnonzero(order >= poisoned)[:5]] = True
    return updates[order].astype(np.float32).astype(np.float64), known


def names(seed_count: int = 30) -> list[str]:
    return [f"{row:02d}" for row in range(seed_count)]


@pytest.mark.parametrize("seed", range(40))
def test_verdicts_without_pseudo_gradients_are_those_of_a_dense_computation(seed: int) -> None:
    updates, known = honest_and_poisoned(seed)
    decision = filters.get("encagg(generator=off)").decide(updates, trusted=known, clients=names())
    np.testing.assert_array_equal(decision.accepted, oracle(updates, known))


@pytest.mark.parametrize("seed", range(40))
def test_verdicts_with_pseudo_gradients_are_those_of_a_dense_computation(seed: int) -> None:
    updates, known = honest_and_poisoned(seed)
    decision = filters.get("encagg").decide(updates, trusted=known, clients=names())
    pseudo = decision.trace["pseudo"] - decision.trace["second_plane"].mean(axis=0)
    np.testing.assert_array_equal(decision.accepted, oracle(updates, known, pseudo))


def test_pseudo_gradients_lie_about_the_benign_cluster_and_up_to_one_radius_beyond_it() -> None:
    updates = np.array([*SQUARE, *HONEST, *[(9, 9)] * 6, (30, 0)], dtype=float)
    method = filters.get("encagg")
    for _ in range(20):
        trace = method.decide(updates, trusted=list(KNOWN)).trace
        benign = trace["second_plane"][trace["second_cluster"] == 0]
        assert len(benign) == 8
        centre = benign.mean(axis=0)
        extent = np.abs(benign - centre).max(axis=0) + trace["radius"]
        offsets = np.abs(trace["pseudo"] - centre)
        assert (offsets < extent).all()
        assert (offsets.max(axis=0) > 0.1 * extent).all()
    twice = filters.get("encagg(placement=2)").decide(updates, trusted=list(KNOWN)).trace["pseudo"] - centre
    once = filters.get("encagg").decide(updates, trusted=list(KNOWN)).trace["pseudo"] - centre
    np.testing.assert_allclose(twice, 2 * once)


def test_the_seeds_of_the_dense_comparison_reach_every_reason() -> None:
    seen = set()
    for seed in range(40):
        updates, known = honest_and_poisoned(seed)
        for text in ("encagg", "encagg(generator=off)"):
            seen |= set(filters.get(text).decide(updates, trusted=known, clients=names()).reason)
    assert seen == {"kept", "recovered", "trusted", "other-cluster", "out-of-reach", "noise"}


def test_a_cluster_around_the_known_benign_is_kept_and_another_rejected() -> None:
    decision = decide(SQUARE + HONEST + [(9, 9)] * 6 + [(30, 0)])
    assert decision.reason == ("kept",) * 8 + ("other-cluster",) * 6 + ("noise",)
    assert decision.cluster.tolist() == [0] * 8 + [1] * 6 + [-1]
    assert decision.trace["radius"] == pytest.approx(1.0)
    assert set(decision.trace["roots"]) <= {"0", "1", "2", "3"}
    assert set(decision.trace["second_clients"]) == {*map(str, range(8)), "14"}
    np.testing.assert_allclose(decision.weight, [1 / 8] * 8 + [0] * 7)
    assert decision.plane.shape == (15, 2)


def test_a_chain_out_of_the_cluster_is_cut_at_the_reach() -> None:
    chain = [(1 + 0.25 * step, 0.5) for step in range(1, 17)]  # out to 5; the reach is 3 from (1, 0) and (1, 1)
    decision = decide(SQUARE + HONEST + chain)
    expected = ["kept" if np.hypot(x - 1, 0.5) <= 3 else "out-of-reach" for x, _ in chain]
    assert "out-of-reach" in expected
    assert list(decision.reason[8:]) == expected
    assert set(decision.cluster) == {0}


def test_pseudo_gradients_recover_an_honest_outlier() -> None:
    outlier = (2.4, 0.5)  # farther than ε from everyone, within what pseudo-gradients can bridge
    updates = SQUARE + HONEST + [outlier] + [(9, 9)] * 6
    assert decide(updates).reason[8] == "noise"
    method = filters.get("encagg(seed=1)")
    reasons = [method.decide(np.array(updates, dtype=float), trusted=list(KNOWN)).reason[8] for _ in range(200)]
    assert reasons[-50:].count("recovered") > 25


def test_a_round_without_a_benign_cluster_falls_back_to_the_known_benign() -> None:
    scattered = [(0, 0), (10, 0), (0, 17), (31, 40), (-50, 7), (80, -3)]
    decision = decide(scattered)
    assert decision.reason == ("trusted",) * 4 + ("noise",) * 2
    np.testing.assert_allclose(decision.weight, [0.25] * 4 + [0, 0])


def test_where_the_roots_are_noise_an_only_cluster_is_benign_at_first_and_not_in_the_end() -> None:
    scattered = [(0, 0), (10, 0), (0, 17), (31, 40)]
    colluders = [(45.0, 5.0)] * 6  # beyond ε = 17, within 3ε of the known-benign
    for lone in ("benign", "other"):
        decision = decide(scattered + colluders, f"encagg(generator=off,lone_cluster={lone})")
        assert decision.cluster.tolist() == [-1] * 4 + [0] * 6
        assert decision.accepted.tolist() == [True] * 4 + [False] * 6
        assert decision.reason == ("trusted",) * 4 + ("other-cluster",) * 6
        retained = {str(row) for row in range(10 if lone == "benign" else 4)}
        assert set(decision.trace["second_clients"]) == retained


def test_known_benign_clients_may_be_rejected_and_it_is_reported() -> None:
    decision = filters.get("encagg(generator=off)").decide(
        np.array([*SQUARE, *HONEST, (40, 40)], dtype=float), trusted=[0, 1, 2, 3, 8]
    )
    assert decision.reason[8] == "noise"
    assert not decision.accepted[8]
    assert decision.weight[8] == 0


def test_scores_respect_the_verdict_and_then_the_distance() -> None:
    decision = decide(SQUARE + HONEST + [(9, 9)] * 6 + [(30, 0), (60, 0)])
    assert (decision.accepted == (decision.score <= decision.threshold)).all()
    assert decision.threshold == pytest.approx(0.5)
    assert decision.score[8] < decision.score[14] < decision.score[15]
    far = filters.get("encagg(generator=off)").decide(
        1000 * np.array(SQUARE + HONEST + [(9, 9)] * 6 + [(30, 0), (60, 0)], dtype=float), trusted=list(KNOWN)
    )
    np.testing.assert_allclose(far.score, decision.score, rtol=1e-5)
    # In units of ε, to the nearest accepted upload: (9, 9) is √128 from (1, 1).
    assert decision.statistic[8] == pytest.approx(128**0.5, rel=1e-5)


@pytest.mark.parametrize("text", ["encagg", "encagg(generator=off)", "encagg(projection=none)"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_equal_updates_are_all_kept(text: str, value: float) -> None:
    decision = filters.get(text).decide(np.full((8, 50), value), trusted=[0, 1])
    assert decision.reason == ("kept",) * 8
    assert decision.trace["radius"] == 0.0
    assert (decision.score == 0).all()


def test_where_the_known_benign_agree_exactly_only_equal_updates_are_kept() -> None:
    random = np.random.default_rng(0)
    updates = np.vstack([np.zeros((8, 30)), random.normal(size=(6, 30))])
    decision = filters.get("encagg(generator=off)").decide(updates, trusted=[0, 1, 2])
    assert decision.accepted.tolist() == [True] * 8 + [False] * 6
    assert (decision.score[8:] > 0.9).all()


def test_fewer_clients_than_min_samples_are_all_noise_at_first() -> None:
    off = decide(SQUARE)
    assert off.cluster.tolist() == [-1] * 4
    assert off.reason == ("trusted",) * 4
    on = filters.get("encagg(seed=1)").decide(np.array(SQUARE, dtype=float), trusted=[0, 1])
    assert set(on.reason) <= {"recovered", "trusted", "noise"}
    assert on.accepted[:2].all()


@pytest.mark.parametrize(("trusted", "accepted"), [([], []), ([2], [2])])
@pytest.mark.parametrize("n", [1, 3, 9])
def test_fewer_than_two_known_benign_uploads_leave_nothing_to_go_by(
    n: int, trusted: list[int], accepted: list[int], judge_stored: Callable[..., Decision]
) -> None:
    trusted, accepted = ([t % n for t in trusted], [a % n for a in accepted])
    decision = judge_stored(filters.get("encagg"), np.random.default_rng(0).normal(size=(n, 5)), trusted)
    assert np.flatnonzero(decision.accepted).tolist() == accepted
    assert decision.weight.sum() == len(accepted)
    assert {r for r, ok in zip(decision.reason, decision.accepted, strict=True) if not ok} <= {"no-radius"}
    assert (decision.accepted == (decision.score <= decision.threshold)).all()


def test_a_known_benign_upload_that_is_not_finite_does_not_count() -> None:
    updates = np.array([*SQUARE, *HONEST, (9, 9)], dtype=float)
    updates[3] = np.nan
    decision = filters.get("encagg(generator=off)").decide(updates, trusted=list(KNOWN))
    assert decision.reason[3] == "non-finite"
    assert decision.accepted[:3].all()
    updates[1:4] = np.inf
    decision = filters.get("encagg(generator=off)").decide(updates, trusted=list(KNOWN))
    assert decision.reason == ("trusted", *["non-finite"] * 3, *["no-radius"] * 5)


def test_one_absurd_upload_changes_nothing_for_the_others() -> None:
    updates, known = honest_and_poisoned(5)
    absurd = np.vstack([updates, np.full((1, 40), 1e30)])
    decision = filters.get("encagg(generator=off)").decide(
        absurd, trusted=np.append(known, False), clients=[*names(), "zz"]
    )
    assert not decision.accepted[30]
    assert decision.accepted[:30][known].any()
    assert decision.trace["radius"] < 100


@pytest.mark.parametrize("generator", ["on", "off"])
@pytest.mark.parametrize("projection", ["pca", "none"])
@pytest.mark.parametrize("radius", ["reuse", "recompute"])
def test_ablations_decide_on_every_upload(projection: str, generator: str, radius: str) -> None:
    text = f"encagg(projection={projection},generator={generator},second_radius={radius})"
    method = filters.get(text)
    for seed in range(6):
        updates, known = honest_and_poisoned(seed)
        decision = method.decide(updates, trusted=known, clients=names())
        assert decision.weight.sum() == pytest.approx(1.0)
        assert len(decision.trace["pseudo"]) == (100 if generator == "on" else 0)
        recomputed = decision.trace["second_radius"] != decision.trace["radius"]
        if radius == "reuse":
            assert not recomputed
        assert set(decision.reason) <= {"kept", "recovered", "trusted", "other-cluster", "out-of-reach", "noise"}


def test_without_projection_clusters_are_those_of_the_whole_space() -> None:
    updates, known = honest_and_poisoned(3)
    decision = filters.get("encagg(projection=none,r=0.9)").decide(updates, trusted=known, clients=names())
    pairs = np.sort([np.linalg.norm(a - b) for i, a in enumerate(updates[known]) for b in updates[known][:i]])
    epsilon = pairs[int(np.ceil(0.9 * len(pairs))) - 1]
    assert decision.trace["radius"] == pytest.approx(epsilon, rel=1e-5)
    expected = DBSCAN(eps=epsilon * (1 + 1e-6), min_samples=5).fit_predict(updates)
    assert (expected >= 0).any()
    assert decision.cluster.tolist() == expected.tolist()


def test_a_recomputed_radius_is_that_of_the_second_plane() -> None:
    updates = [*SQUARE, *HONEST, *[(9, 9)] * 6, (30, 0)]
    decision = decide(updates, "encagg(generator=off,second_radius=recompute)")
    clients = decision.trace["second_clients"].tolist()
    known = decision.trace["second_plane"][[clients.index(str(row)) for row in KNOWN]]
    pairs = np.sort([np.linalg.norm(a - b) for i, a in enumerate(known) for b in known[:i]])
    assert decision.trace["second_radius"] == pytest.approx(pairs[1])


def test_state_goes_on_bit_for_bit_through_another_instance() -> None:
    rounds = [honest_and_poisoned(seed) for seed in range(8)]
    one = filters.get("encagg(seed=7)")
    uninterrupted = [one.decide(updates, trusted=known, clients=names()) for updates, known in rounds]
    first, second = filters.get("encagg(seed=7)"), filters.get("encagg(seed=7)")
    assert first.state_dict() == {}
    for updates, known in rounds[:5]:
        first.decide(updates, trusted=known, clients=names())
    second.load_state_dict(first.state_dict())
    for (updates, known), expected in zip(rounds[5:], uninterrupted[5:], strict=True):
        again = second.decide(updates, trusted=known, clients=names())
        assert again.reason == expected.reason
        assert np.array_equal(again.trace["pseudo"], expected.trace["pseudo"])
        assert np.array_equal(again.trace["losses"], expected.trace["losses"])
    for name, value in one.state_dict().items():
        assert np.array_equal(value, second.state_dict()[name])


def test_an_empty_state_starts_afresh() -> None:
    updates, known = honest_and_poisoned(1)
    method = filters.get("encagg")
    first = method.decide(updates, trusted=known, clients=names())
    method.load_state_dict({})
    again = method.decide(updates, trusted=known, clients=names())
    assert np.array_equal(first.trace["pseudo"], again.trace["pseudo"])


def test_rounds_that_cannot_be_judged_leave_the_generator_as_it_was(judge_stored: Callable[..., Decision]) -> None:
    updates, known = honest_and_poisoned(1)
    method = filters.get("encagg")
    method.decide(updates, trusted=known, clients=names())
    before = method.state_dict()
    judge_stored(method, updates, clients=names())
    assert all(np.array_equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_state_is_refused_where_there_is_no_generator_or_it_is_not_one() -> None:
    updates, known = honest_and_poisoned(1)
    method = filters.get("encagg")
    method.decide(updates, trusted=known, clients=names())
    with pytest.raises(UsageError, match="keeps no state"):
        filters.get("encagg(generator=off)").load_state_dict(method.state_dict())
    with pytest.raises(UnusableInput, match="not a state"):
        method.load_state_dict({"weights": np.zeros(3)})
    assert method.state_dict()["rounds"] == 1


@pytest.mark.parametrize(
    "settings",
    ["min_samples=0", "r=0", "r=1.2", "gamma=-1", "n_gen=0", "w1=1", "width=0", "projection=3d", "generator=maybe"],
)
def test_unusable_settings_are_refused(settings: str) -> None:
    with pytest.raises(UsageError, match="encagg"):
        filters.get(f"encagg({settings})")


def test_the_defaults_are_the_papers() -> None:
    method = filters.get("encagg")
    assert (method.min_samples, method.r, method.gamma, method.n_gen) == (5, 0.2, 3.0, 100)
    assert filters.canonical(method) == "encagg"


def test_torch_is_loaded_for_the_generator_alone() -> None:
    code = (
        "import sys, numpy as np; from encagg_cli import filters; "
        "f = filters.get('encagg(generator=off)'); assert 'sklearn' not in sys.modules; "
        "f.decide(np.random.default_rng(0).normal(size=(9, 4)), trusted=[0, 1, 2]); f.load_state_dict({}); "
        "assert 'torch' not in sys.modules and 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
