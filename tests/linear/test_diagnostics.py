"""Sketched least squares, regression on zero-imputed rows, and the conditioning of supports."""

import numpy as np
import pytest
from scipy.linalg import hadamard
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.linear import LassoCV, ProjectedLasso, SketchedRegression, ZeroImputedRegression
from thresher.linear.penalised.random_supports import (
    random_support_conditions,
    support_condition,
    worst_support,
)
from thresher.linear.regimes.sketching import count_sketch, gaussian_sketch, hadamard_sketch
from thresher.linear.regimes.zero_imputation import imputation_bias


@parametrize_with_checks(
    [
        SketchedRegression(random_state=0),
        SketchedRegression(sketch="count", random_state=0),
        ZeroImputedRegression(),
        ProjectedLasso(2, cv=2),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestSketching:
    def test_transform_is_the_hadamard_matrix(self):
        class Plain(np.random.RandomState):
            def choice(self, a, size=None, replace=True, p=None):
                return np.ones(size) if isinstance(a, list) else np.arange(size)

        A = np.random.default_rng(0).standard_normal((16, 3))
        found = hadamard_sketch(A, 16, Plain())
        np.testing.assert_allclose(found, hadamard(16) @ A / 4, atol=1e-12)

    @pytest.mark.parametrize("sketch", [hadamard_sketch, gaussian_sketch, count_sketch])
    def test_products_are_kept_on_average(self, sketch):
        rng = np.random.RandomState(0)
        A = rng.standard_normal((50, 3))
        mean = np.mean([(s := sketch(A, 20, rng)).T @ s for _ in range(3000)], axis=0)
        np.testing.assert_allclose(mean, A.T @ A, atol=0.06 * np.linalg.norm(A) ** 2)

    def test_near_the_full_solution(self):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((5000, 8)) + 1
        y = X @ np.arange(8.0) + 3 + rng.standard_normal(5000)
        full = SketchedRegression(5000).fit(X, y)
        assert full.n_rows_ == 5000
        for sketch in ("hadamard", "gaussian", "count"):
            model = SketchedRegression(800, sketch=sketch, random_state=0).fit(X, y)
            assert model.n_rows_ == 800
            np.testing.assert_allclose(model.coef_, full.coef_, atol=0.15)

    def test_bad_options(self):
        with pytest.raises(OptionError, match="did you mean 'hadamard'"):
            SketchedRegression(sketch="hadamar").fit(np.eye(3), np.ones(3))
        with pytest.raises(OptionError, match="below the number of features"):
            SketchedRegression(2).fit(np.eye(3), np.ones(3))


class TestZeroImputation:
    def test_bias_is_that_of_the_best_predictor_on_imputed_rows(self):
        rng = np.random.default_rng(0)
        root = rng.standard_normal((5, 5))
        coef = rng.standard_normal(5)
        X = rng.standard_normal((400_000, 5)) @ root
        imputed = np.where(rng.random(X.shape) < 0.7, X, 0)
        best = np.linalg.lstsq(imputed, X @ coef, rcond=None)[0]
        measured = np.mean((X @ coef - imputed @ best) ** 2)
        assert imputation_bias(root.T @ root, coef, 0.7) == pytest.approx(measured, rel=0.02)
        assert imputation_bias(root.T @ root, coef, 1.0) == pytest.approx(0, abs=1e-9)

    def test_copies_of_a_feature_make_the_bias_vanish(self):
        biases = [imputation_bias(np.ones((d, d)), np.ones(d) / d, 0.5) for d in (1, 10, 100)]
        assert biases[0] > 5 * biases[1] > 25 * biases[2]

    def test_one_pass_predicts_from_rows_with_gaps(self):
        rng = np.random.default_rng(1)
        latent = rng.standard_normal((3000, 2))
        X = latent @ rng.standard_normal((2, 60)) + 5.0
        y = latent @ np.array([1.0, -1.0]) + 2.0
        X[rng.random(X.shape) < 0.3] = np.nan
        model = ZeroImputedRegression(0.5).fit(X[:2000], y[:2000])
        assert model.score(X[2000:], y[2000:]) > 0.85

    def test_coefficients_are_the_average_of_the_iterates(self):
        rng = np.random.default_rng(2)
        X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
        X[rng.random(X.shape) < 0.3] = np.nan
        rows = np.where(np.isnan(X), 0.0, X)
        step = 0.5 / np.mean(np.sum(rows**2, axis=1))
        iterates = [np.zeros(3)]
        for row, target in zip(rows, y, strict=True):
            iterates.append(iterates[-1] + step * (target - row @ iterates[-1]) * row)
        model = ZeroImputedRegression(0.5, fit_intercept=False).fit(X, y)
        np.testing.assert_allclose(model.coef_, np.mean(iterates[1:], axis=0))

    def test_step_out_of_range(self):
        with pytest.raises(OptionError, match="step must be a number above 0 and at most 1"):
            ZeroImputedRegression(2.0).fit(np.eye(3), np.ones(3))


class TestRandomSupports:
    def test_conditions_by_hand(self):
        X = np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 4.0]])
        assert support_condition(X, np.array([0, 1])) == pytest.approx(1.0)
        # Unit columns with cosine c have singular values sqrt(1 + c) and sqrt(1 - c).
        assert support_condition(X, np.array([0, 2])) == pytest.approx(np.sqrt(1 - 0.6))
        assert support_condition(X, np.array([1, 2])) == pytest.approx(np.sqrt(1 - 0.8))
        assert set(worst_support(X, 2)) == {1, 2}

    def test_random_supports_miss_the_one_bad_pair(self):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((200, 60))
        X[:, 1] = X[:, 0] + 1e-3 * rng.standard_normal(200)
        assert set(worst_support(X, 4)[:2]) == {0, 1}
        assert support_condition(X, worst_support(X, 4)) < 1e-2
        conditions = random_support_conditions(X, 4, random_state=0)
        assert np.quantile(conditions, 0.05) > 0.5
        with pytest.raises(OptionError, match="support of 61 of 60 columns"):
            worst_support(X, 61)

    def test_no_direction_is_the_plain_lasso(self):
        rng = np.random.default_rng(1)
        X = rng.standard_normal((50, 20)) + 3
        X /= X.std(axis=0)
        y = X[:, 0] - X[:, 3] + 0.1 * rng.standard_normal(50)
        plain = LassoCV(tol=1e-4).fit(X, y)
        np.testing.assert_allclose(ProjectedLasso(0).fit(X, y).coef_, plain.coef_, atol=1e-8)

    def test_all_directions_are_least_squares(self):
        rng = np.random.default_rng(2)
        X = rng.standard_normal((50, 8)) + 3
        y = X @ rng.standard_normal(8) + 2 + rng.standard_normal(50)
        model = ProjectedLasso(8).fit(X, y)
        exact = np.linalg.lstsq(np.column_stack([X, np.ones(50)]), y, rcond=None)[0]
        np.testing.assert_allclose(np.append(model.coef_, model.intercept_), exact, atol=1e-8)

    def test_cancelling_coefficients_are_found_behind_a_common_factor(self):
        rng = np.random.default_rng(3)
        X = rng.standard_normal((100, 1)) @ np.ones((1, 150)) + 0.05 * rng.standard_normal(
            (100, 150)
        )
        signal = 20 * (X[:, 3] - X[:, 7])
        model = ProjectedLasso(1).fit(X, signal + 0.1 * rng.standard_normal(100))
        assert np.mean((model.predict(X) - signal) ** 2) < 0.01
        assert set(np.argsort(-np.abs(model.sparse_coef_))[:2]) == {3, 7}
        with pytest.raises(OptionError, match="rank must be a whole number of at least 0"):
            ProjectedLasso(-1).fit(X, signal)
