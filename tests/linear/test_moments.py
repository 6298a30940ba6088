"""Models of which only the products of the columns are known."""

import numpy as np
import pytest

from thresher.core.errors import DataError
from thresher.linear import ElasticNet, GroupLasso, Lasso, MultiTaskLasso, design_of_moments

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 12)) @ RNG.standard_normal((12, 12))
X -= X.mean(axis=0)
Y = X[:, :2] @ [[1.0, 0.5], [-2.0, 1.0]] + RNG.standard_normal((200, 2))
Y -= Y.mean(axis=0)


def moments(X, y):
    return X.T @ X / len(X), X.T @ y / len(X)


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (Lasso(0.1), Y[:, 0]),
        (Lasso(0.1, positive=True), Y[:, 0]),
        (ElasticNet(0.1, 0.5), Y[:, 0]),
        (GroupLasso(np.arange(12) // 3, alpha=0.1), Y[:, 0]),
        (MultiTaskLasso(0.1), Y),
    ],
)
@pytest.mark.parametrize("rows", [200, 8])
def test_models_are_those_of_the_samples(model, y, rows):
    model.set_params(tol=1e-12, fit_intercept=False)
    one = model.fit(*design_of_moments(*moments(X[:rows], y[:rows]))).coef_.copy()
    other = model.fit(X[:rows], y[:rows])
    reached = [X[:rows] @ coef.T for coef in (one, other.coef_)]
    np.testing.assert_allclose(reached[0], reached[1], atol=1e-4 * np.abs(y).max())
    if rows == 200:
        np.testing.assert_allclose(one, other.coef_, atol=1e-5)


def test_no_variation_at_all():
    X, y = design_of_moments(np.zeros((3, 3)), np.zeros(3))
    np.testing.assert_array_equal(Lasso(0.1).fit(X, y).coef_, 0)


@pytest.mark.parametrize(
    ("gram", "correlations", "said"),
    [
        (np.ones((2, 3)), np.ones(2), "square matrix"),
        (np.eye(3), np.ones(2), "one row for each"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), "not symmetric"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2), "negative eigenvalue -1"),
        (np.diag([1.0, 0.0]), np.ones(2), "outside the span"),
        (np.diag([1.0, np.nan]), np.ones(2), "NaN"),
    ],
)
def test_what_no_samples_have_is_refused(gram, correlations, said):
    with pytest.raises(DataError, match=said):
        design_of_moments(gram, correlations)
