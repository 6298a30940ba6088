"""Sparse Bayesian learning by expectation-maximisation: exact, by messages, Kronecker."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, NumericalError, OptionError
from thresher.linear import GAMPBayes, KroneckerBayes, OrthogonalMatchingPursuit, kronecker_omp
from thresher.linear.bayes.em import GAMPExpectation, exact_expectation, maximise_evidence
from thresher.linear.bayes.kronecker import _best_product, _nearest_product


@parametrize_with_checks([GAMPBayes(max_iter=2000)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def sensing():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((60, 120)) / np.sqrt(60)
    x = np.zeros(120)
    x[rng.choice(120, 8, replace=False)] = rng.choice([-1, 1], 8) * rng.uniform(1, 2, 8)
    return A, x, A @ x + 0.01 * rng.standard_normal(60)


def test_exact_step_is_the_gaussian_posterior(sensing):
    A, _, y = sensing
    prior = np.random.default_rng(1).uniform(0.1, 2, A.shape[1])
    mean, variance = exact_expectation(A, y)(prior, 0.3)
    covariance = np.linalg.inv(A.T @ A / 0.3 + np.diag(1 / prior))
    np.testing.assert_allclose(mean, covariance @ A.T @ y / 0.3, atol=1e-10)
    np.testing.assert_allclose(variance, np.diag(covariance), atol=1e-10)


def test_messages_reach_the_posterior_mean(sensing):
    A, _, y = sensing
    prior = np.random.default_rng(1).uniform(0.1, 2, A.shape[1])
    mean, _ = GAMPExpectation(A, y, 0.5, 3000, 1e-13)(prior, 0.3)
    np.testing.assert_allclose(mean, exact_expectation(A, y)(prior, 0.3)[0], atol=1e-8)


def test_evidence_never_falls(sensing):
    A, _, y = sensing

    def log_evidence(rounds):
        found = maximise_evidence(A, y, exact_expectation(A, y), tol=0, max_iter=rounds)
        covariance = (A * found.prior) @ A.T + found.noise * np.eye(len(y))
        return -np.linalg.slogdet(covariance)[1] - y @ np.linalg.solve(covariance, y)

    values = [log_evidence(rounds) for rounds in (1, 2, 5, 10, 20, 40)]
    assert np.all(np.diff(values) > -1e-6 * np.abs(values[0]))


class TestGAMPBayes:
    def test_recovers_behind_means_and_scales(self, sensing):
        A, x, y = sensing
        model = GAMPBayes().fit(5 * A + 3.0, 5 * y + 2.0)
        np.testing.assert_allclose(model.coef_, x, atol=0.05)
        assert set(np.flatnonzero(x)) <= set(np.flatnonzero(model.variances_))
        assert model.noise_variance_ < 25 * 0.02**2

    def test_divergence_is_a_clear_error(self):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((50, 1)) + 0.05 * rng.standard_normal((50, 100))
        with pytest.raises(NumericalError, match="diverged with damping 1"):
            GAMPBayes(damping=1.0, fit_intercept=False).fit(X, X[:, 0] - X[:, 3])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"damping": 0.0}, "damping must be a number above 0 and at most 1"),
            ({"passes": 0}, "passes must be a whole number of at least 1, got 0"),
            ({"max_iter": 0}, "max_iter must be a whole number of at least 1, got 0"),
            ({"tol": -1.0}, "tol must be a finite number of at least 0, got -1"),
        ],
    )
    def test_options_out_of_range(self, options, message):
        with pytest.raises(OptionError, match=message):
            GAMPBayes(**options).fit(np.eye(3), np.ones(3))


class TestKroneckerBayes:
    @pytest.mark.parametrize("update", ["svd", "alternating"])
    @pytest.mark.parametrize("shapes", [[(7, 10), (7, 10)], [(4, 5), (4, 6), (4, 5)]])
    def test_recovers_kronecker_support(self, update, shapes):
        rng = np.random.default_rng(3)
        factors = [rng.standard_normal(shape) for shape in shapes]
        supports = [rng.permutation(np.arange(columns) < 2) for _, columns in shapes]
        x, dictionary = np.ones(1), np.ones((1, 1))
        for factor, support in zip(factors, supports, strict=True):
            x, dictionary = np.kron(x, support), np.kron(dictionary, factor)
        x = x * rng.uniform(1, 2, x.size)
        model = KroneckerBayes(update, max_iter=1000).fit(factors, dictionary @ x)
        np.testing.assert_allclose(model.coef_, x, atol=1e-2)
        for vector, support in zip(model.factors_, supports, strict=True):
            np.testing.assert_array_equal(vector > 0.05 * vector.max(), support)

    def test_both_updates_return_a_product_as_it_is(self):
        rng = np.random.default_rng(0)
        parts = [rng.uniform(0.5, 2, size) for size in (3, 4, 5)]
        tensor = np.einsum("i,j,k->ijk", *parts)
        for step in (_nearest_product, _best_product):
            found = step(tensor, [np.ones(size) for size in (3, 4, 5)])
            np.testing.assert_allclose(np.einsum("i,j,k->ijk", *found), tensor, rtol=1e-8)

    def test_alternating_lowers_its_objective(self):
        moments = np.random.default_rng(1).uniform(0.1, 2, (6, 7))
        start = [np.ones(6), np.ones(7)]

        def objective(vectors):
            product = np.outer(*vectors)
            return np.sum(np.log(product) + moments / product)

        once = _best_product(moments, start, sweeps=1)
        more = _best_product(moments, start, sweeps=10)
        assert objective(more) <= objective(once) < objective(start)

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(DataError, match="need a y of 4 entries"):
            KroneckerBayes().fit([np.eye(2), np.eye(2)], np.ones(3))

    @pytest.mark.parametrize(
        ("factors", "y", "message"),
        [
            ([], np.ones(3), "factors is empty"),
            ([np.ones(3)], np.ones(3), r"must be matrices with rows and columns, got .*\(3,\)"),
            ([np.eye(2)], [1.0, np.nan], "NaN or infinite"),
            ([np.eye(2)], ["a", "b"], "y numbers"),
            ([np.eye(2)], np.zeros(2), "y is all zero"),
        ],
    )
    def test_data_that_cannot_be_used(self, factors, y, message):
        with pytest.raises(DataError, match=message):
            KroneckerBayes().fit(factors, y)

    def test_rounds_are_a_whole_number(self):
        with pytest.raises(OptionError, match="max_iter must be a whole number"):
            KroneckerBayes(max_iter=0).fit([np.eye(2)], np.ones(2))


class TestKroneckerOMP:
    @pytest.mark.parametrize("shapes", [[(14, 16), (14, 18)], [(7, 8), (7, 8), (7, 8)]])
    def test_recovers_kronecker_support_in_any_scale(self, shapes):
        rng = np.random.default_rng(2)
        factors = [rng.standard_normal(s) * rng.uniform(0.1, 10, s[1]) for s in shapes]
        x, dictionary = np.ones(1), np.ones((1, 1))
        for factor in factors:
            x = np.kron(x, rng.permutation(np.arange(factor.shape[1]) < 2))
            dictionary = np.kron(dictionary, factor)
        scale = np.linalg.norm(dictionary, axis=0)
        x = x * rng.choice([-1, 1], x.size) * rng.uniform(1, 2, x.size) / scale
        found = kronecker_omp(factors, dictionary @ x, [2] * len(shapes))
        np.testing.assert_allclose(found, x, atol=1e-9)

    def test_one_factor_is_orthogonal_matching_pursuit(self):
        rng = np.random.default_rng(0)
        A, y = rng.standard_normal((20, 40)), rng.standard_normal(20)
        plain = OrthogonalMatchingPursuit(6, fit_intercept=False).fit(A, y)
        np.testing.assert_allclose(kronecker_omp([A], y, [6]), plain.coef_, atol=1e-10)

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ([1], "counts must be 2 numbers, one per factor"),
            (2, "counts must be 2 numbers, one per factor, got 2"),
            ([0, 1], r"counts\[0\] must be a whole number of at least 1, got 0"),
            ([2, 1.5], r"counts\[1\] must be a whole number of at least 1, got 1.5"),
            (["a", "b"], r"counts\[0\] must be a whole number"),
            ([3, 1], "cannot choose 3 of 2 columns"),
        ],
    )
    def test_wrong_counts_are_named(self, counts, message):
        with pytest.raises(OptionError, match=message):
            kronecker_omp([np.eye(2), np.eye(2)], np.ones(4), counts)

    def test_sparse_factors_are_taken(self):
        factors = [np.diag([1.0, 2.0]), np.array([[1.0, 0.0], [0.5, 1.0]])]
        found = kronecker_omp([sparse.csr_array(factors[0]), factors[1]], np.arange(4.0), [2, 2])
        np.testing.assert_allclose(np.kron(*factors) @ found, np.arange(4.0), atol=1e-12)
