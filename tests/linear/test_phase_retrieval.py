"""Sparse phase retrieval: exact recovery up to sign, at a quadratic rate."""

import itertools

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from thresher.core.errors import DataError, OptionError
from thresher.linear import SparsePhaseRetrieval


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((300, 200))
    x = np.zeros(200)
    x[rng.choice(200, 6, replace=False)] = rng.choice([-1, 1], 6) * rng.uniform(1, 2, 6)
    return A, x, np.abs(A @ x)


def distance(found, x):
    return min(np.linalg.norm(found - x), np.linalg.norm(found + x)) / np.linalg.norm(x)


@pytest.mark.parametrize("newton", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_exact_recovery_up_to_sign(newton, scale, measured):
    A, x, y = measured
    model = SparsePhaseRetrieval(6, newton=newton, max_iter=500).fit(scale * A, scale * y)
    assert distance(model.coef_, x) < 1e-8


def test_steps_are_the_papers(measured):
    # S holds the largest of x - step f_A'(x), J the other non-zeros of x; then
    # x_S <- x_S + d with H_SS d = H_SJ x_J - g_S, for the Hessian and gradient of f_I.
    A, _, y = measured
    A = A / np.sqrt(np.mean(A**2))
    path = SparsePhaseRetrieval(6).fit(A, y).path_
    left = 0
    for x, following in itertools.pairwise(path):
        product = A @ x
        moved = x - 0.75 * A.T @ (product - y * np.sign(product)) / 300
        S = np.argsort(-np.abs(moved))[:6]
        J = np.setdiff1d(np.flatnonzero(x), S)
        hessian = A.T @ np.diag(3 * product**2 - y**2) @ A / 300
        gradient = A.T @ ((product**2 - y**2) * product) / 300
        expected = np.zeros(200)
        expected[S] = x[S] + np.linalg.solve(
            hessian[np.ix_(S, S)], hessian[np.ix_(S, J)] @ x[J] - gradient[S]
        )
        np.testing.assert_allclose(following, expected, atol=1e-8)
        left += len(J)
    assert left > 0


def test_quadratic_rate_at_the_end(measured):
    A, x, y = measured
    errors = [distance(point, x) for point in SparsePhaseRetrieval(6).fit(A, y).path_]
    late = [(a, b) for a, b in itertools.pairwise(errors) if 1e-6 < a < 0.1]
    assert late
    assert all(after < 10 * before**2 for before, after in late)


def test_noise_leaves_an_error_of_its_size(measured):
    A, x, y = measured
    noisy = np.abs(y + 0.02 * np.random.default_rng(1).standard_normal(300))
    assert distance(SparsePhaseRetrieval(6).fit(A, noisy).coef_, x) < 0.01


def test_unrecoverable_warns_or_stays_sparse():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((20, 100))
    with pytest.warns(ConvergenceWarning, match="may not have been recovered"):
        model = SparsePhaseRetrieval(10, newton=False, max_iter=5).fit(A, np.abs(A[:, 0]))
    assert np.count_nonzero(model.coef_) <= 10


def test_bad_input(measured):
    A, _, y = measured
    with pytest.raises(OptionError, match="cannot choose 201 of 200"):
        SparsePhaseRetrieval(201).fit(A, y)
    with pytest.raises(DataError, match="must not be negative"):
        SparsePhaseRetrieval(6).fit(A, -y)
