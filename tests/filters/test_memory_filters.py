"""Filters that look back over rounds, against dense references that keep every update whole."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput
from encagg_cli.filters import Filter, get
from encagg_cli.filters.foolsgold import foolsgold_weights
from encagg_cli.filters.memory import ClientMemory
from encagg_cli.filters.passes import aggregate_pieces
from encagg_cli.filters.quasi_newton import hessian_products
from encagg_cli.sketch import ArraySource

Matrix = NDArray[np.float64]
Round = tuple[Matrix, list[str]]

D = 60


def rounds(count: int, n: int = 10, d: int = D, *, everybody: bool = True, seed: int = 0) -> Iterator[Round]:
    """Updates and the clients that are there; a third is away in each round unless `everybody` is."""
    generator = np.random.default_rng(seed)
    drift = generator.standard_normal(d)
    own = generator.standard_normal((n, d))
    for number in range(count):
        drift = 0.9 * drift + 0.3 * generator.standard_normal(d)
        updates = drift + own + 0.3 * generator.standard_normal((n, d))
        present = [row for row in range(n) if everybody or (row + number) % 3]
        yield updates[present].astype(np.float32).astype(np.float64), [f"c{row:02d}" for row in present]


def aggregate(chosen: Filter, updates: Matrix, clients: list[str], prior: Matrix) -> Matrix:
    decision = chosen.decide(updates, clients=clients)
    source = ArraySource(updates, clients, np.zeros(len(clients), dtype=bool))
    return np.concatenate(list(aggregate_pieces(chosen, decision, source, prior=prior)))


@pytest.mark.parametrize("everybody", [True, False])
def test_centred_clipping_around_its_own_last_aggregate(everybody: bool) -> None:
    chosen = get("centred-clipping(tau=4.0)")
    v = np.zeros(D)
    for number, (updates, clients) in enumerate(rounds(6, everybody=everybody)):
        distances = np.linalg.norm(updates - v, axis=1)
        moved = v + np.mean([(g - v) * min(1, 4 / np.linalg.norm(g - v)) for g in updates], axis=0)
        state = chosen.state_dict()
        np.testing.assert_allclose(aggregate(chosen, updates, clients, v), moved, rtol=1e-5, atol=1e-6)
        chosen.load_state_dict(state)
        decision = chosen.decide(updates, clients=clients)
        assert decision.statistic is not None
        np.testing.assert_allclose(decision.statistic, distances / 4, rtol=1e-5)
        assert decision.reason[0].endswith("-own-step" if number else "-first")
        assert decision.prior == ("own" if number else "")
        v = moved


def test_centred_clipping_around_the_stored_step() -> None:
    chosen = get("centred-clipping(tau=4.0)")
    (updates, clients), *_ = rounds(1)
    step = updates.mean(axis=0) + 0.5
    decision = chosen.decide(updates, clients=clients, vectors={"last_step": step})
    assert decision.weight is not None
    expected = step + np.mean([(g - step) * min(1, 4 / np.linalg.norm(g - step)) for g in updates], axis=0)
    np.testing.assert_allclose(decision.weight @ updates + decision.prior_weight * step, expected, rtol=1e-5)
    assert decision.prior == "last_step"
    assert decision.reason[0].endswith("-stored-step")
    of_gradients = chosen.decide(updates, clients=clients, vectors={"last_step": step}, update_kind="gradient")
    assert of_gradients.reason[0].endswith("-own-step")


@pytest.mark.parametrize("everybody", [True, False])
def test_shieldfl_around_its_own_last_aggregate(everybody: bool) -> None:
    chosen = get("shieldfl")
    last = None
    for updates, clients in rounds(6, everybody=everybody):
        norms = np.linalg.norm(updates, axis=1)
        units = updates / norms[:, None]
        if last is None:
            confidence = np.ones(len(units))
        else:
            least = units[(units @ last).argmin()]
            confidence = 1 - units @ least
            confidence[(units @ last).argmin()] = 0
        expected = confidence @ units / confidence.sum() * np.median(norms)
        decision = chosen.decide(updates, clients=clients)
        assert decision.weight is not None
        np.testing.assert_allclose(decision.weight @ updates, expected, rtol=1e-4, atol=1e-5)
        if last is not None:
            assert not decision.accepted[(units @ last).argmin()]
            assert decision.score[(units @ last).argmin()] == decision.score.max()
        last = expected


@pytest.mark.parametrize(("kind", "sign"), [("delta", 1.0), ("gradient", -1.0)])
def test_shieldfl_looks_at_the_stored_step_along_the_updates(kind: str, sign: float) -> None:
    (updates, clients), *_ = rounds(1)
    step = np.random.default_rng(5).standard_normal(D)
    decision = get("shieldfl").decide(
        updates,
        clients=clients,
        vectors={"last_step": sign * 0.01 * step},
        update_kind=kind,  # type: ignore[arg-type]
    )
    units = updates / np.linalg.norm(updates, axis=1)[:, None]
    least = int((units @ step).argmin())
    assert decision.statistic is not None
    np.testing.assert_allclose(decision.statistic, units @ units[least], atol=1e-5)
    assert decision.reason[0].endswith("-stored-step")


def dense_foolsgold(histories: Matrix) -> Matrix:
    """The authors' loop, with the term that keeps the logarithm finite."""
    n = len(histories)
    units = histories / np.linalg.norm(histories, axis=1)[:, None]
    likeness = units @ units.T - np.eye(n)
    largest = likeness.max(axis=1) + 1e-5
    for i in range(n):
        for j in range(n):
            if i != j and largest[i] < largest[j]:
                likeness[i, j] *= largest[i] / largest[j]
    weight = np.clip(1 - likeness.max(axis=1), 0, 1)
    weight /= weight.max()
    weight[weight == 1] = 0.99
    result: Matrix = np.clip(np.log(weight / (1 - weight) + 1e-5) + 0.5, 0, 1)
    return result


@pytest.mark.parametrize("everybody", [True, False])
def test_foolsgold(everybody: bool) -> None:
    chosen, total = get("foolsgold"), get("foolsgold(total=true)")
    histories: dict[str, Matrix] = {}
    for updates, clients in rounds(6, everybody=everybody):
        for client, update in zip(clients, updates, strict=True):
            histories[client] = histories.get(client, np.zeros(D)) + update
        expected = dense_foolsgold(np.stack([histories[client] for client in clients]))
        decision = chosen.decide(updates, clients=clients)
        np.testing.assert_array_equal(decision.accepted, expected > 0)
        assert decision.weight is not None
        np.testing.assert_allclose(decision.weight, expected / expected.sum(), rtol=1e-4, atol=1e-6)
        summed = total.decide(updates, clients=clients).weight
        assert summed is not None
        np.testing.assert_allclose(summed, expected, rtol=1e-4, atol=1e-6)


def test_foolsgold_by_hand() -> None:
    """Two sybils and two clients at right angles: the sybils resemble each other wholly and lose all weight."""
    _, weight = foolsgold_weights(np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    np.testing.assert_allclose(weight, [0, 0, 1, 1])


def test_foolsgold_catches_sybils_among_clients_that_differ() -> None:
    chosen = get("foolsgold")
    for updates, clients in rounds(5, d=400):
        updates[:3] = updates[0] + 0.01 * np.random.default_rng(1).standard_normal((3, 400))
        decision = chosen.decide(updates, clients=clients)
    np.testing.assert_array_equal(~decision.accepted, np.arange(10) < 3)


def dense_flair(updates: Matrix, step: Matrix, c: int) -> NDArray[np.bool_]:
    flips = np.where(np.sign(updates) != np.sign(step), updates**2, 0).sum(axis=1)
    order = np.argsort(flips)
    punished = np.zeros(len(updates), dtype=bool)
    punished[[*order[:c], *order[len(order) - c :]]] = True
    return punished


@pytest.mark.parametrize("everybody", [True, False])
def test_flair_against_its_own_last_aggregate(everybody: bool) -> None:
    chosen = get("flair(f=2)")
    reputation: dict[str, float] = {}
    last = None
    for updates, clients in rounds(6, everybody=everybody):
        n = len(clients)
        punished = np.zeros(n, dtype=bool)
        if last is not None:
            punished = dense_flair(updates, last, 2)
            for client, bad in zip(clients, punished, strict=True):
                reputation[client] = 0.9 * reputation.get(client, 0.0) + (-(1 - 4 / n) if bad else 4 / n)
        weight = np.exp([reputation.get(client, 0.0) for client in clients])
        weight /= weight.sum()
        decision = chosen.decide(updates, clients=clients)
        np.testing.assert_array_equal(~decision.accepted, punished)
        assert decision.weight is not None
        np.testing.assert_allclose(decision.weight, weight, rtol=1e-9)
        last = weight @ updates


@pytest.mark.parametrize(("kind", "sign"), [("delta", 1.0), ("gradient", -1.0)])
def test_flair_against_the_stored_step(kind: str, sign: float) -> None:
    (updates, clients), *_ = rounds(1)
    step = np.random.default_rng(5).standard_normal(D)
    step[:10] = 0
    chosen = get("flair(f=2)")
    decision = chosen.decide(
        updates,
        clients=clients,
        vectors={"last_step": sign * step},
        update_kind=kind,  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(~decision.accepted, dense_flair(updates, step, 2))
    assert decision.statistic is not None
    expected = np.where(np.sign(updates) != np.sign(step), updates**2, 0).sum(axis=1)
    np.testing.assert_allclose(decision.statistic, expected, rtol=1e-5)
    assert not chosen.wants_aggregate()
    assert set(decision.reason) <= {"kept-stored-step", "opposing-stored-step", "conforming-stored-step"}


def bfgs_matrix(steps: list[Matrix], changes: list[Matrix]) -> Matrix:
    """The BFGS approximation built up pair by pair, from the scaled identity."""
    sigma = changes[-1] @ steps[-1] / (steps[-1] @ steps[-1])
    hessian = sigma * np.eye(len(steps[0]))
    for s, y in zip(steps, changes, strict=True):
        bent = hessian @ s
        hessian = hessian - np.outer(bent, bent) / (s @ bent) + np.outer(y, y) / (y @ s)
    return hessian


@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_quasi_newton_products_are_those_of_bfgs(pairs: int) -> None:
    generator = np.random.default_rng(pairs)
    curvature = np.diag(np.linspace(1, 4, 20))
    steps = [generator.standard_normal(20) for _ in range(pairs)]
    changes = [curvature @ step for step in steps]
    vectors = generator.standard_normal((3, 20))
    np.testing.assert_allclose(
        hessian_products(steps, changes, vectors), vectors @ bfgs_matrix(steps, changes), rtol=1e-6, atol=1e-8
    )


def test_quasi_newton_products_without_curvature_are_zero_and_repeated_pairs_do_no_harm() -> None:
    vectors = np.ones((2, 4))
    np.testing.assert_array_equal(hessian_products([], [], vectors), 0)
    np.testing.assert_array_equal(hessian_products([np.zeros(4)], [np.ones(4)], vectors), 0)
    step, change = np.array([1.0, 0, 0, 0]), np.array([2.0, 0, 0, 0])
    once = hessian_products([step], [change], vectors)
    np.testing.assert_allclose(hessian_products([step, step], [change, change], vectors), once, atol=1e-9)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("everybody", [True, False])
def test_fldetector_scores(stored: bool, everybody: bool) -> None:
    """Distances between predicted and actual uploads, kept whole, with a BFGS matrix of all pairs."""
    chosen = get("fldetector(window=4,start=100)")
    generator = np.random.default_rng(3)
    last: dict[str, tuple[Matrix, Matrix]] = {}
    history: dict[str, list[float]] = {}
    steps: list[Matrix] = []
    changes: list[Matrix] = []
    position, aggregate, previous = np.zeros(D), None, None
    for number, (updates, clients) in enumerate(rounds(8, everybody=everybody)):
        step = (0.1 * generator.standard_normal(D)).astype(np.float32) if stored and number else previous
        if step is not None:
            position = position + step
        gaps = {}
        for client, update in zip(clients, updates, strict=True):
            if client in last:
                upload, then = last[client]
                moved = position - then
                bent = bfgs_matrix(steps, changes) @ moved if steps else np.zeros(D)
                gaps[client] = float(np.linalg.norm(upload + bent - update))
            last[client] = (update, position)
        total = sum(gaps.values())
        for client in clients:
            history.setdefault(client, []).append(gaps[client] / total if client in gaps else np.nan)
        score = [np.nanmean([0.0, *history[c][-4:]][1:]) if np.isfinite(history[c][-4:]).any() else 0 for c in clients]
        vectors = {"last_step": step} if stored and number else {}
        decision = chosen.decide(updates, clients=clients, vectors=vectors)
        assert decision.statistic is not None
        np.testing.assert_allclose(decision.statistic, score, rtol=1e-3, atol=1e-6)
        new = updates.mean(axis=0)
        if step is not None and aggregate is not None:
            steps, changes = [*steps, step][-4:], [*changes, new - aggregate][-4:]
        previous = aggregate = new


def test_fldetector_finds_clients_that_do_not_follow_from_themselves() -> None:
    """Every honest gradient is that of a quadratic; three clients upload what nobody could predict."""
    generator = np.random.default_rng(0)
    curvature, own = np.linspace(0.5, 1.5, D), 0.2 * generator.standard_normal((12, D))
    model = np.full(D, 5.0)
    chosen = get("fldetector(window=5,start=6)")
    for number in range(14):
        updates = curvature * model + own + 0.01 * generator.standard_normal((12, D))
        updates[:3] = 4 * generator.standard_normal((3, D))
        decision = chosen.decide(updates, update_kind="gradient")
        words = {word.split("-")[0] for word in decision.reason}
        if number < 6:
            assert decision.accepted.all()
            assert words == {"warming"}
        model = model - 0.1 * updates[decision.accepted].mean(axis=0)
    rows = [int(client) for client in decision.clients]
    assert {row for row, accepted in zip(rows, decision.accepted, strict=True) if not accepted} == {0, 1, 2}
    assert decision.reason[0] == "inconsistent-own-step"


def test_shieldfl_finds_the_least_alike_within_the_error_of_a_projection() -> None:
    chosen = get("shieldfl(buckets=1024)")
    last = None
    for updates, clients in rounds(5, d=8000):
        decision = chosen.decide(updates, clients=clients)
        if last is not None:
            cosines = updates @ last / np.linalg.norm(updates, axis=1) / np.linalg.norm(last)
            assert cosines[decision.score.argmax()] <= cosines.min() + 4 * np.sqrt(2 / 1024)
        assert decision.weight is not None
        last = decision.weight @ updates


@pytest.mark.parametrize("text", ["centred-clipping", "foolsgold", "fldetector"])
def test_a_projection_answers_nearly_as_whole_updates_do(text: str) -> None:
    exact, projected = get(text, buckets=8192), get(text, buckets=1024)
    for updates, clients in rounds(5, d=8000):
        whole = exact.decide(updates, clients=clients)
        part = projected.decide(updates, clients=clients)
        np.testing.assert_allclose(part.score, whole.score, atol=0.15)
        assert (part.accepted == whole.accepted).mean() >= 0.8


@pytest.mark.parametrize("text", ["centred-clipping", "shieldfl", "foolsgold", "fldetector"])
def test_a_state_of_other_settings_is_refused(text: str) -> None:
    small = get(text, buckets=64)
    for updates, clients in rounds(2):
        small.decide(updates, clients=clients)
    with pytest.raises(UnusableInput, match=f"state of {text} was made with other settings"):
        get(text, buckets=128).load_state_dict(small.state_dict())


def test_client_memory_forgets_whom_it_saw_longest_ago() -> None:
    memory = ClientMemory(2, most=3)
    memory.keep(["a", "b", "c"], np.arange(6.0).reshape(3, 2))
    memory.keep(["a"], np.full((1, 2), 9.0))
    memory.keep(["d"], np.full((1, 2), 7.0))
    rows, known = memory.recall(["a", "b", "c", "d"])
    np.testing.assert_array_equal(known, [True, False, True, True])
    np.testing.assert_array_equal(rows, [[9, 9], [0, 0], [4, 5], [7, 7]])
    restored = ClientMemory(2, most=3)
    restored.restore(memory.state(), "test")
    np.testing.assert_array_equal(restored.recall(["a", "b", "c", "d"])[0], rows)
