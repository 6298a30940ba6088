"""Representers: the decomposition is exact, and what cannot be decomposed is refused."""

import numpy as np
import pytest
from scipy import sparse

from thresher.core.errors import OptionError
from thresher.linear import ElasticNet, Lasso, Representers, SparseGLM, SparseLogistic, penalties


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 100)) + 0.5
    return X, X[:, :4] @ np.array([2.0, -1, 1, 3]) + rng.standard_normal(60)


WEIGHTS = np.random.default_rng(1).uniform(0.5, 2, 100)


@pytest.mark.parametrize(
    "model",
    [
        Lasso(0.2, tol=1e-14),
        Lasso(0.2, weights=WEIGHTS, tol=1e-14),
        Lasso(0.2, fit_intercept=False, tol=1e-14),
        SparseGLM(alpha=0.2, tol=1e-14),
    ],
)
@pytest.mark.parametrize("layout", [np.asarray, sparse.csc_array])
def test_shares_sum_to_the_prediction(model, layout, data):
    X, y = data
    explained = Representers(model).fit(layout(X), y)
    total = explained.explain(X).sum(axis=1) + explained.model_.intercept_
    np.testing.assert_allclose(total, explained.model_.predict(X), atol=1e-5)
    assert explained.residual_ < 1e-5


def test_shares_sum_to_the_log_odds(data):
    X, y = data
    explained = Representers(SparseLogistic(0.05, tol=1e-13)).fit(X, y > y.mean())
    total = explained.explain(X).sum(axis=1) + explained.model_.intercept_
    np.testing.assert_allclose(total, explained.model_.decision_function(X), atol=1e-5)
    # A sample pulls towards its own class.
    assert np.all((explained.importance_ > 0) == (y > y.mean()))


@pytest.mark.parametrize(
    "model",
    [
        ElasticNet(0.1, 0.5),
        SparseGLM(penalty=penalties.MCP(0.2)),
        Lasso(0.1, weights=np.r_[0.0, np.ones(99)]),
    ],
)
def test_other_penalties_are_refused(model, data):
    with pytest.raises(OptionError, match=r"penalty alone|not penalised"):
        Representers(model).fit(*data)


def test_several_outputs_are_refused(data):
    X, y = data
    with pytest.raises(OptionError):
        Representers(SparseLogistic(0.05)).fit(X, np.digitize(y, [-1, 2]))
