"""The published methods: each against planted truth or against a solver of the same problem."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

from thresher.core.errors import DataError, OptionError
from thresher.linear import (
    ElasticNet,
    Lasso,
    LassoCV,
    Representers,
    SparseLogistic,
    SparseLogisticCV,
    datafits,
    penalties,
)
from thresher.solve.solvers import (
    AcceleratedConcave,
    CoordinateDescent,
    FrankWolfe,
    Problem,
    ProximalGradient,
)

from . import problems


class TestAcceleratedConcave:
    @pytest.mark.parametrize("penalty", [penalties.MCP(0.1), penalties.SCAD(0.1)])
    @pytest.mark.parametrize("name", ["squares", "logistic"])
    def test_stationary_and_as_good_as_coordinate_descent(self, name, penalty):
        X, y = problems.problem(name, 0, rows=100, columns=30, mean=1.0)
        problem = Problem.build(X, y, problems.DATAFITS[name], penalty)
        found = AcceleratedConcave().solve(problem)
        assert found.converged
        prediction = problem.predict(found.coef, found.intercept)
        scale = float(np.max(np.abs(problem.null_gradient)))
        assert problem.violation(found.coef, prediction) <= 1e-6 * scale
        other = CoordinateDescent().solve(problem)
        reached = problem.objective(found.coef, prediction)
        rival = problem.objective(other.coef, problem.predict(other.coef, other.intercept))
        assert reached <= rival * 1.05

    @pytest.mark.parametrize("penalty", [penalties.MCP(0.1), penalties.SCAD(0.1)])
    def test_steps_are_the_accelerated_ones(self, penalty):
        # With the concave part of the penalty in the loss f and its constant L = 0.99 / b:
        # middle = (1 - a) z + a x, x <- S(x - c f'(middle), c), z <- S(middle - b f'(middle), b)
        # for a = 2 / (k + 1) and c = k b / 2, where S soft-thresholds by its step times 0.1.
        X, y = problems.problem("squares", 0, columns=6)
        problem = Problem.build(X, y, datafits.Squares(), penalty, intercept=False)

        def gradient(w):
            size = np.abs(w)
            if isinstance(penalty, penalties.MCP):  # slope 0.1 - |w| / 3 until zero, less 0.1
                concave = -np.minimum(size / 3.0, 0.1)
            else:  # slope 0.1 until 0.1, then (0.37 - |w|) / 2.7 until zero, less 0.1
                concave = -np.clip((size - 0.1) / 2.7, 0, 0.1)
            return X.T @ (X @ w - y) / 50 + np.sign(w) * concave

        def shrink(w, by):
            return np.sign(w) * np.maximum(np.abs(w) - by, 0)

        concavity = 1 / 3.0 if isinstance(penalty, penalties.MCP) else 1 / 2.7
        b = 0.99 / (np.linalg.eigvalsh(X.T @ X / 50)[-1] + concavity)
        x = z = np.zeros(6)
        for k in (1, 2, 3, 4, 5):
            a, c = 2 / (k + 1), k * b / 2
            middle = (1 - a) * z + a * x
            slope = gradient(middle)
            x, z = shrink(x - c * slope, 0.1 * c), shrink(middle - b * slope, 0.1 * b)
            found = AcceleratedConcave(tol=0.0, max_iter=k).solve(problem)
            np.testing.assert_allclose(found.coef, z, atol=1e-12)

    def test_other_penalties_are_refused(self):
        X, y = problems.problem("squares", 0)
        with pytest.raises(OptionError, match="not SCAD or MCP"):
            AcceleratedConcave().solve(Problem.build(X, y, datafits.Squares(), penalties.L1()))


class TestFrankWolfe:
    @pytest.mark.parametrize("ball", [penalties.L1Ball(1.5), penalties.Simplex(1.5)])
    @pytest.mark.parametrize("name", ["squares", "logistic"])
    def test_agrees_with_projected_gradient(self, ball, name):
        X, y = problems.problem(name, 0, mean=1.0)
        problem = Problem.build(X, y, problems.DATAFITS[name], ball)
        found = FrankWolfe().solve(problem)
        other = ProximalGradient(tol=1e-9).solve(problem)
        assert found.converged
        assert ball.value(found.coef) == 0
        values = [
            problem.objective(s.coef, problem.predict(s.coef, s.intercept)) for s in (found, other)
        ]
        assert values[1] - 1e-9 <= values[0] <= values[1] + 2e-6 * abs(values[1])

    def test_needs_a_ball(self):
        X, y = problems.problem("squares", 0)
        with pytest.raises(OptionError, match="not a ball"):
            FrankWolfe().solve(Problem.build(X, y, datafits.Squares(), penalties.L1()))


class TestRepresenters:
    @pytest.mark.parametrize("name", ["squares", "logistic"])
    def test_shares_sum_to_the_prediction(self, name):
        X, y = problems.problem(name, 0, rows=80, columns=40, mean=2.0)
        model = Lasso(0.1, tol=1e-12) if name == "squares" else SparseLogistic(0.03, tol=1e-12)
        model.fit(X, y)
        shares = Representers(model, X, y).explain(X[:5])
        linear = X[:5] @ np.ravel(model.coef_)
        np.testing.assert_allclose(shares.sum(axis=1), linear, atol=1e-8)

    @pytest.fixture
    def fitted(self):
        X, y = problems.problem("squares", 0, rows=80, columns=40, mean=2.0)
        return X, y, Lasso(0.1, tol=1e-12).fit(X, y)

    def test_one_sample_is_a_row(self, fitted):
        X, y, model = fitted
        explained = Representers(model, X, y)
        shares = explained.explain(X[3])
        assert shares.shape == (80,)
        np.testing.assert_allclose(shares, explained.explain(X[:4])[3], rtol=1e-12)
        assert explained.explain(list(X[3])).sum() == pytest.approx(X[3] @ model.coef_)
        with pytest.raises(DataError, match="the model has 40 features, what to explain has 39"):
            explained.explain(X[3, :39])

    @pytest.mark.parametrize("kind", [sparse.csc_array, sparse.csr_matrix])
    def test_sparse_designs_give_the_same(self, kind, fitted):
        X, y, _ = fitted
        X = np.where(np.abs(X) > 1.5, X, 0)
        model = Lasso(0.1, tol=1e-12).fit(kind(X), y)
        found = Representers(model, kind(X), y).explain(kind(X[:3]))
        np.testing.assert_allclose(found, Representers(model, X, y).explain(X[:3]), atol=1e-12)
        np.testing.assert_allclose(found.sum(axis=1), X[:3] @ model.coef_, atol=1e-7)

    def test_strengths_chosen_by_cross_validation(self, fitted):
        X, y, _ = fitted
        for model in (LassoCV(tol=1e-10), SparseLogisticCV(tol=1e-10)):
            target = y if isinstance(model, LassoCV) else y > np.median(y)
            model.fit(X, target)
            shares = Representers(model, X, target).explain(X[0])
            assert shares.sum() == pytest.approx(float(X[0] @ np.ravel(model.coef_)), abs=1e-4)

    def test_weighted_fits_need_their_weights(self, fitted):
        X, y, _ = fitted
        weight = np.random.default_rng(0).uniform(0, 5, 80)
        model = Lasso(0.1, tol=1e-12).fit(X, y, sample_weight=weight)
        shares = Representers(model, X, y, sample_weight=weight).explain(X[0])
        assert shares.sum() == pytest.approx(float(X[0] @ model.coef_))
        with pytest.raises(DataError, match="its sample_weight included"):
            Representers(model, X, y)

    def test_the_model_is_left_as_it_was(self, fitted):
        X, y, _ = fitted
        model = SparseLogistic(0.03).fit(X, np.where(y > 0, "a", "b"))
        with pytest.raises(DataError):
            Representers(model, -X, np.where(y > 0, "c", "d"))
        assert model.classes_.tolist() == ["a", "b"]

    def test_other_models_are_named(self, fitted):
        X, y, _ = fitted
        with pytest.raises(OptionError, match="got Ridge; fit a Lasso"):
            Representers(Ridge().fit(X, y), X, y)
        with pytest.raises(OptionError, match="without a ridge"):
            Representers(SparseLogistic(0.03, l1_ratio=0.5).fit(X, y > 0), X, y > 0)

    def test_other_data_and_other_penalties_are_refused(self):
        X, y = problems.problem("squares", 0, rows=80)
        model = Lasso(0.1).fit(X, y)
        with pytest.raises(DataError, match="not optimal for this data"):
            Representers(model, X, -y)
        with pytest.raises(OptionError, match="L1 penalty"):
            Representers(ElasticNet(0.1).fit(X, y), X, y)
