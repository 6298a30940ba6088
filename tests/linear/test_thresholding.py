"""Recovery by thresholding: planted truth, hand-computed steps, and refusals."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, OptionError
from thresher.linear import ThresholdingWithFeedback, amp, cosamp, hard_thresholding_pursuit, iht
from thresher.linear.recovery.thresholding import _best_threshold


@parametrize_with_checks([ThresholdingWithFeedback(), ThresholdingWithFeedback(adaptive=True)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def approximate(A, y, k):
    return amp(A, y)


def feedback(A, y, k):
    return ThresholdingWithFeedback(k).recover(A, y)


EVERY = pytest.mark.parametrize(
    "method", [iht, hard_thresholding_pursuit, cosamp, feedback, approximate]
)


class TestEveryMethod:
    @EVERY
    def test_exact_recovery(self, method, sensing):
        A, x = sensing
        found = method(A, A @ x, 8)
        np.testing.assert_allclose(found.coef, x, atol=1e-6)
        assert found.residual <= 1e-6

    @EVERY
    def test_lists_are_taken(self, method):
        found = method([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 3, 0], 1)
        np.testing.assert_allclose(found.coef, [0, 3, 0], atol=1e-6)

    @EVERY
    def test_sparse_matrices_are_taken(self, method, sensing):
        A, x = sensing
        found = method(sparse.csr_array(A), A @ x, 8)
        np.testing.assert_allclose(found.coef, x, atol=1e-6)

    @EVERY
    def test_nothing_measured_is_nothing_recovered(self, method, sensing):
        found = method(sensing[0], np.zeros(80), 8)
        assert not np.any(found.coef)
        assert found.n_iter == 1

    @EVERY
    @pytest.mark.parametrize("scale", 2.0 ** np.array([-960, -500, -230, 230, 270, 500, 960]))
    def test_units_do_not_matter(self, method, scale):
        rng = np.random.default_rng(0)
        A, y = rng.standard_normal((10, 20)), rng.standard_normal(10)
        plain = method(A, y, 3)
        for a, b in ((scale, scale), (scale, 1.0), (1.0, scale)):
            found = method(A * a, y * b, 3)
            np.testing.assert_array_equal(found.coef * (a / b), plain.coef)
            assert found.residual == plain.residual * b

    @EVERY
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, method, value, sensing):
        A, x = sensing
        y = A @ x
        y[3] = value
        with pytest.raises(DataError, match="y holds NaN or infinite values"):
            method(A, y, 8)
        with pytest.raises(DataError, match="A holds NaN or infinite values"):
            method(np.where(np.eye(80, 200), value, A), A @ x, 8)

    @EVERY
    def test_shapes_that_differ_are_refused(self, method, sensing):
        for y in (np.ones(79), np.ones((80, 1)), 1.0):
            with pytest.raises(DataError, match="do not match"):
                method(sensing[0], y, 8)

    @pytest.mark.parametrize("method", [iht, hard_thresholding_pursuit, cosamp, feedback])
    @pytest.mark.parametrize(
        ("k", "message"),
        [
            (201, "cannot choose 201 of 200"),
            (0, "k must be a whole number of at least 1, got 0"),
            (2.5, "k must be a whole number of at least 1, got 2.5"),
        ],
    )
    def test_numbers_of_entries_out_of_range_are_refused(self, method, k, message, sensing):
        A, x = sensing
        with pytest.raises(OptionError, match=message):
            method(A, A @ x, k)

    @pytest.mark.parametrize(
        "options", [{"max_iter": 0}, {"max_iter": 1.5}, {"tolerance": -1.0}, {"tolerance": None}]
    )
    def test_other_options_out_of_range_are_refused(self, options, sensing):
        A, x = sensing
        with pytest.raises(OptionError, match=next(iter(options))):
            iht(A, A @ x, 8, **options)


class TestHardThresholdingPursuit:
    @pytest.mark.parametrize("shape", [(40, 100, 4), (40, 100, 6), (60, 400, 6)])
    def test_it_recovers_what_thresholding_alone_recovers(self, shape):
        rows, columns, k = shape
        for seed in range(8):
            rng = np.random.default_rng(seed)
            A, x = rng.standard_normal((rows, columns)), np.zeros(columns)
            x[rng.choice(columns, k, replace=False)] = rng.choice([-1, 1], k) * (1 + rng.random(k))
            if np.allclose(iht(A, A @ x, k).coef, x, atol=1e-5):
                found = hard_thresholding_pursuit(A, A @ x, k)
                np.testing.assert_allclose(found.coef, x, atol=1e-8)

    def test_units_of_columns_do_not_matter(self, sensing):
        A, x = sensing
        scale = np.geomspace(1e-100, 1e100, 200)
        found = hard_thresholding_pursuit(A * scale, A @ x, 8)
        np.testing.assert_allclose(found.coef * scale, x, atol=1e-8)


@EVERY
@pytest.mark.filterwarnings("error")
def test_nothing_is_recovered_by_measurements_of_nothing(method):
    found = method(np.zeros((5, 9)), np.ones(5), 3)
    assert not np.any(found.coef)
    assert found.residual == pytest.approx(np.sqrt(5))


class TestApproximateMessagePassing:
    def test_two_steps_by_hand(self):
        A = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])
        y = np.array([3.0, 1.0])
        # The message is y; its noise sqrt(10 / 2), half of which is 1.118034.
        cut = np.sqrt(10 / 2) / 2
        first = np.array([3 - cut, 0.0, 0.6 * 3 + 0.8 * 1 - cut])
        np.testing.assert_allclose(amp(A, y, 0.5, max_iter=1).coef, first)
        # Two of three entries passed, from two measurements: all of y is added again.
        message = y - A @ first + 2 / 2 * y
        guess = first + A.T @ message
        cut = np.linalg.norm(message) / np.sqrt(2) / 2
        second = np.sign(guess) * np.maximum(np.abs(guess) - cut, 0)
        np.testing.assert_allclose(amp(A, y, 0.5, max_iter=2).coef, second)

    def test_threshold_gives_the_known_phase_transition(self):
        from scipy.stats import norm

        # Donoho and Tanner's transition of L1 minimisation for half as many measurements.
        z = _best_threshold(0.5)
        passed = (1 + z**2) * norm.cdf(-z) - z * norm.pdf(z)
        rho = (1 - 4 * passed) / (1 + z**2 - 2 * passed)
        assert rho == pytest.approx(0.386, abs=1e-3)

    def test_units_of_columns_do_not_matter(self, sensing):
        A, x = sensing
        scale = np.geomspace(1e-3, 1e3, 200)
        plain, scaled = amp(A, A @ x), amp(A * scale, A @ x)
        np.testing.assert_allclose(scaled.coef * scale, plain.coef, atol=1e-12)

    def test_divergence_returns_the_best_vector(self):
        rng = np.random.default_rng(0)
        A = rng.standard_normal((30, 60)) + 5.0  # far from independent with mean zero
        y = A[:, 0]
        found = amp(A, y)
        assert np.all(np.isfinite(found.coef))
        assert found.residual <= np.linalg.norm(y)
        assert found.n_iter < 1000

    @pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan, np.inf, "x"])
    def test_thresholds_out_of_range_are_refused(self, threshold, sensing):
        with pytest.raises(OptionError, match="threshold must be a finite number above 0"):
            amp(sensing[0], np.ones(80), threshold)


class TestFeedback:
    @pytest.mark.parametrize(("k", "adaptive"), [(8, False), (20, True)])
    def test_feedback_recovers_in_few_steps(self, k, adaptive, sensing):
        A, x = sensing
        found = ThresholdingWithFeedback(k, adaptive=adaptive).recover(A, A @ x)
        np.testing.assert_allclose(found.coef, x, atol=1e-8)
        assert found.n_iter <= 10

    def test_step_is_the_papers(self, sensing):
        # u_T = x_T + (A_T' A_T)^-1 A_T' A_rest x_rest, then x = u + A' (A A')^-1 (y - A u).
        A, x = sensing
        y = A @ x
        inverse = np.linalg.inv(A @ A.T)
        point = A.T @ inverse @ y
        for steps in (1, 2, 3):
            kept = np.argsort(-np.abs(point))[:8]
            rest = np.setdiff1d(np.arange(200), kept)
            u = np.zeros(200)
            fed = np.linalg.solve(
                A[:, kept].T @ A[:, kept], A[:, kept].T @ A[:, rest] @ point[rest]
            )
            u[kept] = point[kept] + fed
            point = u + A.T @ inverse @ (y - A @ u)
            found = ThresholdingWithFeedback(8, max_iter=steps).recover(A, y)
            np.testing.assert_allclose(found.coef, u, atol=1e-8)

    def test_estimator_finds_support_behind_means_and_scales(self, sensing):
        A, x = sensing
        X = 5 * A + 3.0
        model = ThresholdingWithFeedback(8).fit(X, X @ x + 2.0)
        np.testing.assert_allclose(model.coef_, x, atol=1e-8)
        assert model.intercept_ == pytest.approx(2.0)
