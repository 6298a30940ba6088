"""SPIRAL-TAP and the multiscale penalties that it brings."""

from itertools import product

import numpy as np
import pytest

from thresher.core.errors import OptionError
from thresher.linear import datafits, penalties
from thresher.solve.penalties.multiscale import haar_basis
from thresher.solve.solvers import Problem, Spiral


class TestHaar:
    def test_by_hand(self):
        basis, coarsest = haar_basis(4)
        # Sum of all over 2; left less right half over 2; differences of pairs over sqrt 2.
        np.testing.assert_allclose(basis @ [4.0, 2.0, 5.0, 5.0], [8.0, -2.0, np.sqrt(2), 0.0])
        assert coarsest == 1

    @pytest.mark.parametrize(("size", "averages"), [(1, 1), (7, 7), (8, 1), (12, 3), (200, 25)])
    def test_is_orthonormal(self, size, averages):
        basis, coarsest = haar_basis(size)
        np.testing.assert_allclose((basis @ basis.T).toarray(), np.eye(size), atol=1e-12)
        assert coarsest == averages
        assert np.all((basis @ np.ones(size))[coarsest:] < 1e-12)  # details of nothing

    @pytest.mark.parametrize("seed", range(4))
    def test_positive_prox_is_optimal(self, seed):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(16) + 0.3
        strength, basis = 0.7, haar_basis(16)[0]
        z = penalties.HaarL1(strength, positive=True).prox(x, 1.0)
        assert z.min() >= 0
        assert np.any(z == 0)

        def objective(f):
            return 0.5 * np.sum((f - x) ** 2) + strength * np.abs((basis @ f)[1:]).sum()

        reached = objective(z)
        for size in (1e-3, 1e-1, 1.0):
            for _ in range(200):
                assert (
                    reached <= objective(np.maximum(z + size * rng.standard_normal(16), 0)) + 1e-8
                )
        # Clipping the prox without the sign is not the prox with it.
        clipped = np.maximum(penalties.HaarL1(strength).prox(x, 1.0), 0)
        assert reached < objective(clipped) - 1e-6


def partitions(start, stop):
    """Return all recursive dyadic partitions of an interval."""
    found = [[(start, stop)]]
    if stop - start > 1:
        middle = (start + stop + 1) // 2
        halves = product(partitions(start, middle), partitions(middle, stop))
        found += [left + right for left, right in halves]
    return found


class TestDyadicPartition:
    @pytest.mark.parametrize("size", [1, 5, 8, 9])
    @pytest.mark.parametrize("positive", [False, True])
    @pytest.mark.parametrize("step", [0.01, 0.3, 5.0])
    def test_prox_is_the_best_of_all_partitions(self, size, positive, step):
        rng = np.random.default_rng(size)
        penalty = penalties.DyadicPartition(0.5, positive=positive)
        for _ in range(5):
            x = np.round(rng.standard_normal(size), 1)
            best, choice = np.inf, None
            for pieces in partitions(0, size):
                z = np.concatenate([np.full(b - a, x[a:b].mean()) for a, b in pieces])
                z = np.maximum(z, 0) if positive else z
                value = 0.5 * np.sum((z - x) ** 2) + step * 0.5 * len(pieces)
                if value < best - 1e-12:
                    best, choice = value, z
            found = penalty.prox(x, step)
            reached = 0.5 * np.sum((found - x) ** 2) + step * penalty.value(found)
            assert reached == pytest.approx(best, abs=1e-10)
            assert choice is not None

    @pytest.mark.parametrize(
        ("coef", "pieces"),
        [
            ([1.0] * 8, 1),
            ([1.0] * 4 + [2.0] * 4, 2),
            ([1.0] * 2 + [2.0] * 6, 3),  # the jump is at a quarter
            ([1.0] * 3 + [2.0] * 5, 4),
            ([1.0, 2.0, 3.0], 3),
        ],
    )
    def test_value_counts_pieces(self, coef, pieces):
        assert penalties.DyadicPartition(2.0).value(np.array(coef)) == 2.0 * pieces

    def test_negative_entries_are_excluded_where_asked(self):
        for kind in (penalties.DyadicPartition, penalties.HaarL1):
            assert kind(positive=True).value(np.array([1.0, -1.0])) == np.inf
            with pytest.raises(OptionError, match="alpha must be a finite number of at least 0"):
                kind(-1.0)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    A = rng.random((60, 40)) / 60
    intensity = np.zeros(40)
    intensity[[3, 17, 30]] = [400.0, 700.0, 300.0]
    return A, rng.poisson(A @ intensity).astype(float)


def problem_of(counts, penalty):
    return Problem.build(*counts, datafits.PoissonIdentity(0.1), penalty, intercept=False)


class TestSpiral:
    @pytest.mark.parametrize(
        "penalty",
        [
            penalties.L1(0.002, positive=True),
            penalties.TotalVariation(0.002, positive=True),
            penalties.HaarL1(0.002, positive=True),
        ],
    )
    def test_reaches_the_minimum(self, counts, penalty):
        problem = problem_of(counts, penalty)
        found = Spiral(tol=1e-7, max_iter=20_000).solve(problem)
        best = problem.objective(found.coef, problem.predict(found.coef, found.intercept))
        assert found.coef.min() >= 0
        rng = np.random.default_rng(1)
        for size in (0.1, 10.0):
            for _ in range(50):
                moved = np.maximum(found.coef + size * rng.standard_normal(40), 0)
                assert problem.objective(moved, problem.predict(moved, np.zeros(()))) >= best - 1e-6

    def test_lasso_meets_the_optimality_conditions(self, counts):
        A, y = counts
        strength = 0.002
        problem = problem_of(counts, penalties.L1(strength, positive=True))
        found = Spiral(tol=1e-8, max_iter=20_000).solve(problem)
        slope = A.T @ (1 - y / (A @ found.coef + 0.1)) / 60 + strength
        assert np.all(slope >= -1e-6)
        np.testing.assert_allclose(slope[found.coef > 0], 0, atol=1e-6)
        assert np.any(found.coef == 0)

    @pytest.mark.parametrize(
        "penalty",
        [
            penalties.L1(0.002, positive=True),
            penalties.HaarL1(0.002, positive=True),
            penalties.DyadicPartition(0.01, positive=True),
        ],
    )
    def test_memory_of_one_accepts_only_descents(self, counts, penalty):
        problem = problem_of(counts, penalty)
        values = []
        for steps in range(1, 30):
            found = Spiral(tol=0.0, max_iter=steps, memory=1).solve(problem)
            values.append(problem.objective(found.coef, problem.predict(found.coef, np.zeros(()))))
        assert np.all(np.diff(values) <= 1e-12)
        assert values[-1] < values[0]

    def test_few_pieces_are_found(self):
        rng = np.random.default_rng(3)
        A = rng.random((48, 64)) * (rng.random((48, 64)) < 0.2)
        A /= A.sum(axis=0)
        truth = np.repeat([2.0, 90.0, 10.0, 40.0], 16)
        y = rng.poisson(A @ truth).astype(float)
        penalty = penalties.DyadicPartition(0.05, positive=True)
        found = Spiral(tol=1e-6, max_iter=2000).solve(problem_of((A, y), penalty))
        np.testing.assert_array_equal(np.flatnonzero(np.diff(found.coef)), [15, 31, 47])
        assert np.linalg.norm(found.coef - truth) <= 0.1 * np.linalg.norm(truth)

    def test_refuses_what_may_be_negative(self, counts):
        with pytest.raises(OptionError, match="positive=True"):
            Spiral().solve(problem_of(counts, penalties.L1()))

    @pytest.mark.parametrize("memory", [0, -1, 1.5])
    def test_memory_out_of_range_is_named(self, counts, memory):
        with pytest.raises(OptionError, match="memory must be a whole number of at least 1, got"):
            Spiral(memory=memory).solve(problem_of(counts, penalties.L1(positive=True)))
