"""Ridge regression from cosines alone, against scikit-learn's on the uploads themselves."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from encagg_cli.filters.anchored_views.ridge import alike, residual_maker, unexplained_shares

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


@pytest.mark.parametrize("cosines", [np.ones((5, 5)), np.zeros((5, 5)), np.eye(5)])
def test_degenerate_rounds_stay_finite(cosines: np.ndarray):
    for result in (unexplained_shares(cosines), alike(cosines), residual_maker(cosines)):
        assert np.isfinite(result).all()
