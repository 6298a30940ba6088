"""The published methods: each against planted truth or against a solver of the same problem."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, OptionError
from thresher.linear import (
    ElasticNet,
    Lasso,
    LassoCV,
    LossOMP,
    Representers,
    SparseLogistic,
    SparseLogisticCV,
    ThresholdingWithFeedback,
    datafits,
    penalties,
)
from thresher.linear.solvers import (
    AcceleratedConcave,
    CoordinateDescent,
    FrankWolfe,
    GreedyBlocks,
    Problem,
    ProximalGradient,
    Spiral,
)
from thresher.linear.thresholding import cosamp, hard_thresholding_pursuit, iht

from . import problems


@parametrize_with_checks([LossOMP(), LossOMP(loss="absolute"), ThresholdingWithFeedback()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def sensing():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((80, 200))
    A /= np.linalg.norm(A, axis=0)
    x = np.zeros(200)
    x[rng.choice(200, 8, replace=False)] = rng.choice([-1, 1], 8) * rng.uniform(1, 2, 8)
    return A, x


class TestThresholding:
    @pytest.mark.parametrize("method", [iht, hard_thresholding_pursuit, cosamp])
    def test_exact_recovery(self, method, sensing):
        A, x = sensing
        found = method(A, A @ x, 8)
        np.testing.assert_allclose(found.coef, x, atol=1e-6)
        assert found.residual <= 1e-6

    @pytest.mark.parametrize(("k", "adaptive"), [(8, False), (20, True)])
    def test_feedback_recovers_in_few_steps(self, k, adaptive, sensing):
        A, x = sensing
        found = ThresholdingWithFeedback(k, adaptive=adaptive).recover(A, A @ x)
        np.testing.assert_allclose(found.coef, x, atol=1e-8)
        assert found.n_iter <= 10

    def test_estimator_finds_support_behind_means_and_scales(self, sensing):
        A, x = sensing
        X = 5 * A + 3.0
        model = ThresholdingWithFeedback(8).fit(X, X @ x + 2.0)
        np.testing.assert_allclose(model.coef_, x, atol=1e-8)
        assert model.intercept_ == pytest.approx(2.0)

    def test_too_many_entries_is_a_clear_error(self, sensing):
        A, x = sensing
        with pytest.raises(OptionError, match="cannot keep 201 of 200"):
            iht(A, A @ x, 201)


class TestLossOMP:
    def test_gross_errors_do_not_disturb_the_absolute_loss(self, sensing):
        A, x = sensing
        y = A @ x
        y[:4] += 50.0
        robust = LossOMP(8, loss="absolute", fit_intercept=False).fit(A, y)
        plain = LossOMP(8, fit_intercept=False).fit(A, y)
        np.testing.assert_allclose(robust.coef_, x, atol=1e-8)
        assert np.linalg.norm(plain.coef_ - x) > 1

    @pytest.mark.parametrize("loss", ["lasso", "square-root"])
    @pytest.mark.parametrize("seed", range(3))
    def test_gain_is_what_one_coefficient_saves(self, loss, seed):
        from thresher.linear.loss_omp import _lasso_gain, _square_root_gain

        rng = np.random.default_rng(seed)
        X = rng.standard_normal((20, 5))
        X /= np.linalg.norm(X, axis=0)
        r, cost = rng.standard_normal(20), np.full(5, 0.3)
        grid = np.linspace(-5, 5, 20_001)
        for j in range(5):
            squares = r @ r - 2 * grid * (X[:, j] @ r) + grid**2
            loss_values = squares if loss == "lasso" else np.sqrt(squares)
            at_zero = r @ r if loss == "lasso" else np.linalg.norm(r)
            best = at_zero - np.min(loss_values + 0.3 * np.abs(grid))
            rule = _lasso_gain if loss == "lasso" else _square_root_gain
            assert rule(X, r, cost)[j] == pytest.approx(best, abs=1e-5)

    def test_absolute_gain_is_what_one_coefficient_saves(self):
        from thresher.linear.loss_omp import _absolute_gain

        rng = np.random.default_rng(0)
        X, r, cost = rng.standard_normal((20, 5)), rng.standard_normal(20), np.full(5, 0.7)
        grid = np.linspace(-5, 5, 20_001)
        for j in range(5):
            values = np.abs(r[:, None] - np.outer(X[:, j], grid)).sum(0) + 0.7 * np.abs(grid)
            best = np.abs(r).sum() - values.min()
            assert _absolute_gain(X, r, cost)[j] == pytest.approx(best, abs=1e-2)

    def test_small_weights_lead_the_choice(self, sensing):
        A, x = sensing
        weights = np.where(x != 0, 0.1, 2.0)
        y = A @ x + 0.3 * np.random.default_rng(0).standard_normal(80)
        for options in ({"loss": "lasso", "alpha": 1.0}, {"norm": "l0", "alpha": 0.5}):
            model = LossOMP(8, weights=weights, fit_intercept=False, **options).fit(A, y)
            assert set(model.support_) <= set(np.flatnonzero(x))

    def test_unknown_loss_is_named(self, sensing):
        with pytest.raises(OptionError, match="did you mean 'lasso'"):
            LossOMP(loss="laso").fit(*sensing[:1], np.arange(80.0))


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
        found = FrankWolfe(tol=1e-3).solve(problem)
        other = ProximalGradient(tol=1e-9).solve(problem)
        assert found.converged
        assert ball.value(found.coef) == 0
        values = [
            problem.objective(s.coef, problem.predict(s.coef, s.intercept)) for s in (found, other)
        ]
        assert values[1] - 1e-9 <= values[0] <= values[1] + 2e-3 * abs(values[1])

    def test_needs_a_ball(self):
        X, y = problems.problem("squares", 0)
        with pytest.raises(OptionError, match="not a ball"):
            FrankWolfe().solve(Problem.build(X, y, datafits.Squares(), penalties.L1()))


class TestSpiral:
    @pytest.fixture
    def counts(self):
        rng = np.random.default_rng(0)
        A = rng.random((60, 40)) / 60
        intensity = np.zeros(40)
        intensity[[3, 17, 30]] = [400.0, 700.0, 300.0]
        return A, rng.poisson(A @ intensity).astype(float), intensity

    @pytest.mark.parametrize(
        "penalty",
        [penalties.L1(0.002, positive=True), penalties.TotalVariation(0.002, positive=True)],
    )
    def test_reaches_the_minimum(self, counts, penalty):
        A, y, _ = counts
        problem = Problem.build(A, y, datafits.PoissonIdentity(0.1), penalty, intercept=False)
        found = Spiral(tol=1e-7, max_iter=20_000).solve(problem)
        best = problem.objective(found.coef, problem.predict(found.coef, found.intercept))
        assert found.coef.min() >= 0
        rng = np.random.default_rng(1)
        for size in (0.1, 10.0):
            for _ in range(50):
                moved = np.maximum(found.coef + size * rng.standard_normal(40), 0)
                assert problem.objective(moved, problem.predict(moved, np.zeros(()))) >= best - 1e-6

    def test_refuses_what_may_be_negative(self, counts):
        A, y, _ = counts
        with pytest.raises(OptionError, match="positive=True"):
            Spiral().solve(
                Problem.build(A, y, datafits.PoissonIdentity(), penalties.L1(), intercept=False)
            )


class TestGreedyBlocks:
    @pytest.mark.parametrize("rule", ["curvature", "gauss-southwell"])
    @pytest.mark.parametrize("name", ["squares", "logistic"])
    def test_agrees_with_coordinate_descent(self, name, rule):
        X, y = problems.problem(name, 0, rows=100, columns=60, mean=1.0)
        problem = Problem.build(X, y, problems.DATAFITS[name], penalties.L1(0.05))
        found = GreedyBlocks(tol=1e-9, rule=rule).solve(problem)
        other = CoordinateDescent(tol=1e-13).solve(problem)
        assert found.converged
        np.testing.assert_allclose(found.coef, other.coef, atol=1e-6)

    def test_newton_ends_what_descent_drags_out(self):
        X, y = problems.problem("squares", 1, rows=60, columns=80)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1(0.02))
        steps = {
            newton: GreedyBlocks(tol=1e-10, newton=newton, max_iter=2000).solve(problem).n_iter
            for newton in (True, False)
        }
        assert 2 * steps[True] < steps[False]

    def test_unknown_rule_and_other_penalties_are_refused(self):
        X, y = problems.problem("squares", 0)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1())
        with pytest.raises(OptionError, match="did you mean 'cyclic'"):
            GreedyBlocks(rule="cycle").solve(problem)
        with pytest.raises(OptionError, match="only the L1 norm"):
            GreedyBlocks().solve(problem.with_penalty(penalties.MCP()))


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
