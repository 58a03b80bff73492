"""Ridge regression from cosines alone, against scikit-learn's on the uploads themselves."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from encagg_cli.filters.anchored_views.ridge import alike, residual_maker, shared_with, unexplained_shares

N, D = 12, 40


@pytest.fixture
def units() -> np.ndarray:
    rows = np.random.default_rng(3).standard_normal((N, D)) + 0.5
    rows[:4] *= np.linspace(0.3, 1.0, D) ** 4  # some are more alike than others
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def shares_of(rows: np.ndarray) -> np.ndarray:
    """Each upload is regressed on the others; what is left, with the penalty, and the ridge itself."""
    ridge = 0.1 * float(np.median(np.linalg.eigvalsh(rows @ rows.T)))
    shares = []
    for client, row in enumerate(rows):
        others = np.delete(rows, client, axis=0).T
        weights = Ridge(alpha=ridge, fit_intercept=False).fit(others, row).coef_
        shares.append(np.sum((row - others @ weights) ** 2) + ridge * np.sum(weights**2) + ridge)
    return np.array(shares)


def test_the_unexplained_share_is_what_a_regression_on_the_others_leaves(units: np.ndarray):
    assert unexplained_shares(units @ units.T) == pytest.approx(shares_of(units), rel=1e-6)


def test_alike_makes_the_unexplained_part_as_large_for_everybody(units: np.ndarray):
    scaled = units / np.sqrt(shares_of(units))[:, None]
    assert alike(units @ units.T) == pytest.approx(scaled @ scaled.T / np.mean(np.sum(scaled**2, axis=1)), rel=1e-6)


def test_the_residual_maker_leaves_what_a_regression_on_the_uploads_does_not_fit(units: np.ndarray):
    target = np.random.default_rng(4).standard_normal(N)
    ridge = float(np.median(np.linalg.eigvalsh(units @ units.T)))
    fitted = Ridge(alpha=ridge, fit_intercept=False).fit(units, target).predict(units)
    assert residual_maker(units @ units.T) @ target == pytest.approx(target - fitted)


def test_an_intercept_is_fitted_without_a_penalty(units: np.ndarray):
    target = np.random.default_rng(4).standard_normal(N) + 3.0
    centred = units - units.mean(axis=0)
    ridge = float(np.median(np.linalg.eigvalsh(centred @ centred.T)))
    fitted = Ridge(alpha=ridge, fit_intercept=True).fit(units, target).predict(units)
    assert residual_maker(units @ units.T, intercept=True) @ target == pytest.approx(target - fitted)


def test_what_is_shared_with_those_near_is_a_regression_on_them_and_left_out_for_themselves(units: np.ndarray):
    near = np.arange(N) < 8
    rows = units / np.sqrt(shares_of(units))[:, None]
    rows /= np.sqrt(np.mean(np.sum(rows**2, axis=1)))
    ridge = float(np.median(np.linalg.eigvalsh(rows[near] @ rows[near].T)))

    def predicted(client: int) -> float:
        others = [other for other in np.flatnonzero(near) if other != client]
        model = Ridge(alpha=ridge, fit_intercept=False).fit(rows[others], np.ones(len(others)))
        return float(model.predict(rows[[client]])[0])

    cosines = np.full((N + 1, N + 1), np.nan)  # the last client was not there
    cosines[:N, :N] = units @ units.T
    share = shared_with(cosines, np.append(near, True))
    assert share[:N] == pytest.approx([predicted(client) for client in range(N)], rel=1e-5)
    assert np.isnan(share[N])
    assert np.isnan(shared_with(cosines, np.arange(N + 1) < 2)).all()


@pytest.mark.parametrize("cosines", [np.ones((5, 5)), np.zeros((5, 5)), np.eye(5)])
def test_degenerate_rounds_stay_finite(cosines: np.ndarray):
    near = np.ones(5, dtype=bool)
    made = residual_maker(cosines), residual_maker(cosines, intercept=True)
    for result in (unexplained_shares(cosines), alike(cosines), *made, shared_with(cosines, near)):
        assert np.isfinite(result).all()
