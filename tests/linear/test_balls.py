"""Balls of atoms, and Frank-Wolfe and proximal gradient on them."""

import numpy as np
import pytest

from thresher.core import prox
from thresher.core.errors import OptionError
from thresher.linear import datafits, penalties
from thresher.solve.solvers import FrankWolfe, Problem, ProximalGradient

from . import problems

POLYTOPES = [penalties.L1Ball(1.5), penalties.Simplex(1.5)]
MATRIX_BALLS = [*POLYTOPES, penalties.NuclearBall(1.5)]


def reached(problem, solution):
    prediction = problem.predict(solution.coef, solution.intercept)
    return problem.objective(solution.coef, prediction)


def several_outputs(ball, rows=40, columns=30, outputs=25):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, columns))
    truth = rng.standard_normal((columns, 2)) @ rng.standard_normal((2, outputs)) / 10
    Y = X @ truth + 0.1 * rng.standard_normal((rows, outputs)) + 1
    return Problem.build(X, Y, datafits.MultiTaskSquares(), ball)


class TestBalls:
    @pytest.mark.parametrize("shape", [(7,), (4, 3)])
    @pytest.mark.parametrize("ball", POLYTOPES)
    def test_scores_and_shares_belong_to_the_atoms(self, ball, shape):
        rng = np.random.default_rng(1)
        gradient, inside = rng.standard_normal(shape), ball.prox(rng.standard_normal(shape), 1.0)
        scores, shares = ball.scores(gradient), ball.shares(inside)
        atoms = [ball.combined(row, shape) for row in np.eye(len(scores))]
        np.testing.assert_allclose([np.vdot(gradient, atom) for atom in atoms], scores)
        assert shares.min() >= 0
        assert shares.sum() == pytest.approx(1)
        np.testing.assert_allclose(ball.combined(shares, shape), inside, atol=1e-12)

    @pytest.mark.parametrize("shape", [(5, 4), (60, 40)])
    @pytest.mark.parametrize("ball", MATRIX_BALLS)
    def test_no_point_is_lower_than_the_atom(self, ball, shape):
        rng = np.random.default_rng(2)
        # Rows that sum to zero: a start of ones would be orthogonal to what is sought.
        gradient = rng.standard_normal(shape)
        gradient -= gradient.mean(axis=1, keepdims=True)
        atom = ball.atom(gradient)
        assert ball.value(atom) == 0
        lowest = np.vdot(gradient, atom)
        for _ in range(50):
            assert np.vdot(gradient, ball.prox(rng.standard_normal(shape), 1.0)) >= lowest
        # The projection of a point far along the slope is that atom again.
        np.testing.assert_allclose(ball.prox(-1e6 * gradient, 1.0), atom, atol=1e-6)

    def test_nuclear_projection_of_a_diagonal_is_that_of_its_entries(self):
        found = penalties.NuclearBall(3.0).prox(np.diag([4.0, -2.0, 0.5]), 1.0)
        np.testing.assert_allclose(found, np.diag([2.5, -0.5, 0.0]), atol=1e-12)

    def test_the_nuclear_atom_is_the_same_every_time(self):
        gradient = np.random.default_rng(3).standard_normal((80, 50))
        ball = penalties.NuclearBall()
        np.testing.assert_array_equal(ball.atom(gradient), ball.atom(gradient))
        values = np.linalg.svd(gradient, compute_uv=False)
        assert np.vdot(gradient, ball.atom(gradient)) == pytest.approx(-values[0])
        assert ball.excess(gradient) == pytest.approx(values.sum() - 1)
        assert ball.value(ball.atom(np.zeros((30, 30)))) == 0

    def test_the_nuclear_norm_needs_a_matrix(self):
        X, y = problems.problem("squares", 0)
        problem = Problem.build(X, y, datafits.Squares(), penalties.NuclearBall())
        with pytest.raises(OptionError, match="MultiTaskSquares"):
            FrankWolfe().solve(problem)

    @pytest.mark.parametrize("kind", [penalties.L1Ball, penalties.NuclearBall])
    def test_a_radius_must_be_positive(self, kind):
        with pytest.raises(OptionError, match="radius must be a finite number above 0, got 0"):
            kind(0.0)


class TestFrankWolfe:
    def test_steps_without_a_search_are_the_theorems(self):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((30, 6)), rng.standard_normal(30)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1Ball(0.5), intercept=False)
        point = np.zeros(6)
        for count in range(1, 6):
            gradient = X.T @ (X @ point - y) / 30
            best = np.argmax(np.abs(gradient))
            atom = -0.5 * np.sign(gradient[best]) * np.eye(6)[best]
            point = point + 2 / (count + 1) * (atom - point)  # theorem 3.8 counts from one
            solver = FrankWolfe(tol=0.0, max_iter=count, line_search=False)
            np.testing.assert_allclose(solver.solve(problem).coef, point, atol=1e-12)

    @pytest.mark.parametrize(
        ("ball", "tol"),
        [(penalties.L1Ball(2.0), 1e-6), (penalties.NuclearBall(2.0), 1e-3)],
    )
    def test_takes_several_outputs(self, ball, tol):
        problem = several_outputs(ball)
        found = FrankWolfe(tol=tol).solve(problem)
        other = ProximalGradient(tol=1e-9).solve(problem)
        assert found.converged
        assert found.coef.shape == (30, 25)
        assert ball.value(found.coef) == 0
        best = reached(problem, other)
        null = problem.datafit.value(problem.y, problem.null_prediction, problem.weight)
        assert best - 1e-9 <= reached(problem, found) <= best + tol * null
        assert best < 0.9 * null

    @pytest.mark.parametrize("line_search", [True, False])
    def test_rank_grows_by_one_a_step_at_most(self, line_search):
        problem = several_outputs(penalties.NuclearBall(20.0))
        for steps in (1, 3, 6):
            solver = FrankWolfe(tol=0.0, max_iter=steps, line_search=line_search)
            assert np.linalg.matrix_rank(solver.solve(problem).coef) <= steps

    @pytest.mark.parametrize("line_search", [True, False])
    @pytest.mark.parametrize("ball", POLYTOPES)
    def test_one_coefficient_a_step_at_most(self, ball, line_search):
        X, y = problems.problem("squares", 0, columns=40)
        problem = Problem.build(X, y, datafits.Squares(), ball)
        for steps in (1, 5, 20):
            solver = FrankWolfe(tol=0.0, max_iter=steps, line_search=line_search)
            found = solver.solve(problem)
            assert np.count_nonzero(found.coef) <= steps + 1
            assert ball.value(found.coef) == 0

    @pytest.mark.parametrize("radius", [1.0, 3.0, 5.0, 20.0])
    def test_the_default_tolerance_is_met(self, radius):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((60, 120))
        y = X[:, :5].sum(axis=1) + 0.1 * rng.standard_normal(60)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1Ball(radius))
        found = FrankWolfe().solve(problem)
        assert found.converged
        assert found.n_iter < 2000

    def test_starts_where_told(self):
        problem = several_outputs(penalties.L1Ball(2.0))
        found = FrankWolfe().solve(problem)
        again = FrankWolfe().solve(problem, found.coef, found.intercept)
        assert again.n_iter == 0
        np.testing.assert_array_equal(again.coef, found.coef)


class TestWithoutMomentum:
    def test_every_step_descends_by_the_textbooks_formula(self):
        X, y = problems.problem("squares", 1)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1(0.1), intercept=False)
        runs = [ProximalGradient(0.0, t, momentum=False).solve(problem) for t in range(1, 30)]
        values = [reached(problem, run) for run in runs]
        assert np.all(np.diff(values) <= 1e-15)
        # A step is the soft-thresholded gradient step, for the curvature found by doubling.
        before, after = runs[-2].coef, runs[-1].coef
        gradient = X.T @ (X @ before - y) / len(y)
        curvatures = np.max(np.sum(X**2, axis=0)) / len(y) * 2.0 ** np.arange(6)
        steps = [prox.soft(before - gradient / c, 0.1 / c) for c in curvatures]
        assert min(np.max(np.abs(step - after)) for step in steps) < 1e-14 < np.max(after - before)

    def test_momentum_is_faster_on_a_hard_problem(self):
        X, y = problems.problem("squares", 2, columns=45, mean=2.0)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1(1e-3))
        fast, slow = (ProximalGradient(momentum=m).solve(problem).n_iter for m in (True, False))
        assert 2 * fast < slow
