"""The published methods: each against planted truth or against a solver of the same problem."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, OptionError
from thresher.linear import (
    ElasticNet,
    Lasso,
    Representers,
    ScoringSystem,
    SparseLogistic,
    datafits,
    penalties,
)
from thresher.linear.solvers import (
    AcceleratedConcave,
    CoordinateDescent,
    FrankWolfe,
    Problem,
    ProximalGradient,
)

from . import problems


@parametrize_with_checks([ScoringSystem(node_limit=1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


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


class TestScoringSystem:
    def test_finds_planted_points(self):
        rng = np.random.default_rng(0)
        X = rng.integers(0, 2, (120, 6)).astype(float)
        y = np.where(X @ [2, -1, 0, 0, 1, 0] - 1 > 0, "ill", "well")
        model = ScoringSystem(0.005, max_points=3, max_offset=5).fit(X, y)
        assert model.score(X, y) == 1.0
        assert model.gap_ <= 1e-4
        assert np.flatnonzero(model.points_).tolist() == [0, 1, 4]
        assert "points per unit" in model.card_text()

    def test_constraints_hold(self):
        rng = np.random.default_rng(0)
        X = rng.integers(0, 2, (60, 5)).astype(float)
        y = X[:, 0] + X[:, 1] + rng.random(60) > 1.2
        signs = [-1, 0, 0, 0, 0]
        model = ScoringSystem(max_points=3, max_offset=5, max_features=1, signs=signs).fit(X, y)
        assert np.count_nonzero(model.points_) <= 1
        assert model.points_[0] <= 0

    def test_a_search_that_ends_by_its_nodes_finds_the_same_again(self):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((50, 10))
        y = X[:, 0] + rng.standard_normal(50) > 0
        first, second = (ScoringSystem(node_limit=1).fit(X, y) for _ in range(2))
        assert first.gap_ > 1e-3  # it was cut short
        np.testing.assert_array_equal(first.points_, second.points_)

    def test_a_single_class_is_refused(self):
        with pytest.raises(DataError, match="one class"):
            ScoringSystem().fit(np.eye(4), np.ones(4))


class TestRepresenters:
    @pytest.mark.parametrize("name", ["squares", "logistic"])
    def test_shares_sum_to_the_prediction(self, name):
        X, y = problems.problem(name, 0, rows=80, columns=40, mean=2.0)
        model = Lasso(0.1, tol=1e-12) if name == "squares" else SparseLogistic(0.03, tol=1e-12)
        model.fit(X, y)
        shares = Representers(model, X, y).explain(X[:5])
        linear = X[:5] @ np.ravel(model.coef_)
        np.testing.assert_allclose(shares.sum(axis=1), linear, atol=1e-8)

    def test_other_data_and_other_penalties_are_refused(self):
        X, y = problems.problem("squares", 0, rows=80)
        model = Lasso(0.1).fit(X, y)
        with pytest.raises(DataError, match="not optimal for this data"):
            Representers(model, X, -y)
        with pytest.raises(OptionError, match="L1 penalty"):
            Representers(ElasticNet(0.1).fit(X, y), X, y)
