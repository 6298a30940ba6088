"""Rules and kinds of block of block coordinate descent, against hand-computed and dense cases."""

import numpy as np
import pytest
from scipy import sparse

from thresher.core.errors import DataError, OptionError
from thresher.linear import datafits, penalties
from thresher.solve.solvers import CoordinateDescent, GreedyBlocks, Problem
from thresher.solve.solvers.block_rules import quadratic_gains, separable_gains
from thresher.solve.solvers.forest_blocks import forest_block, forest_partition, forest_solve

from . import problems


def quadratic(hessian, linear, alpha=0.0):
    """Return the problem of x'Hx/2 - linear'x: n squares of weight 1/n with X'X = nH."""
    factor = np.linalg.cholesky(hessian).T
    size = len(linear)
    X = factor * np.sqrt(size)
    y = np.linalg.solve(factor.T, linear) * np.sqrt(size)
    return Problem.build(X, y, datafits.Squares(), penalties.L1(alpha), intercept=False)


def lattice(side, seed=0):
    """Return the graph Laplacian of a square lattice, shifted to be positive definite."""
    rng = np.random.default_rng(seed)
    path = sparse.diags_array([np.ones(side - 1), np.ones(side - 1)], offsets=[-1, 1])
    eye = sparse.eye_array(side)
    weights = (sparse.kron(path, eye) + sparse.kron(eye, path)).tocsr()
    weights.data = rng.uniform(0.5, 2.0, weights.nnz)
    weights = sparse.csr_array(weights + weights.T)
    degree = np.asarray(weights.sum(axis=1)).ravel()
    return sparse.csr_array(sparse.diags_array(degree + 0.1) - weights)


def incidence(edges):
    """Return the matrix that takes a signal on the nodes to its differences along edges."""
    count = len(edges)
    rows, signs = np.repeat(np.arange(count), 2), np.tile([1.0, -1.0], count)
    return sparse.csc_array((signs, (rows, edges.ravel())), shape=(count, edges.max() + 1))


class TestRules:
    # Blocks {0, 1} and {2, 3} as the diagonal falls. Gradients at zero are minus the linear term.
    HESSIAN = np.array(
        [[4.0, 3.9, 0.0, 0.0], [3.9, 4.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )

    @pytest.mark.parametrize(
        ("rule", "linear", "measures", "wanted"),
        [
            # ||g_b||^2
            ("gauss-southwell", [2.0, 2.0, 1.9, 1.9], (8.0, 7.22), [0, 1]),
            # ||g_b||^2 / L_b, with L = 7.9 and 2
            ("lipschitz", [2.0, 2.0, 1.0, 1.0], (8 / 7.9, 1.0), [0, 1]),
            ("lipschitz", [2.0, 2.0, 1.1, 1.0], (8 / 7.9, 2.21 / 2), [2, 3]),
            # sum g_i^2 / H_ii
            ("diagonal", [2.0, 2.0, 1.1, 1.1], (2.0, 1.815), [0, 1]),
            ("diagonal", [2.0, 2.0, 1.2, 1.2], (2.0, 2.16), [2, 3]),
            # g' H^-1 g: (2, -2) lies along the eigenvalue 0.1, (2, 2) along 7.9
            ("quadratic", [2.0, -2.0, 5.0, 5.0], (80.0, 37.5), [0, 1]),
            ("quadratic", [2.0, 2.0, 1.0, 1.0], (8 / 7.9, 1.5), [2, 3]),
        ],
    )
    def test_one_step_by_hand(self, rule, linear, measures, wanted):
        linear = np.array(linear)
        inverse = np.linalg.inv(self.HESSIAN)
        for block, measure in zip(([0, 1], [2, 3]), measures, strict=True):
            g, H = linear[block], self.HESSIAN[np.ix_(block, block)]
            by_hand = {
                "gauss-southwell": g @ g,
                "lipschitz": g @ g / np.linalg.eigvalsh(H)[-1],
                "diagonal": np.sum(g**2 / np.diag(H)),
                "quadratic": g @ inverse[np.ix_(block, block)] @ g,
            }
            assert by_hand[rule] == pytest.approx(measure)
        problem = quadratic(self.HESSIAN, linear)
        steps = GreedyBlocks(rule=rule, blocks="fixed", block=2, newton=False).steps(
            problem, np.zeros(4), np.zeros(())
        )
        next(steps)
        coef = next(steps)[0]
        assert np.flatnonzero(coef).tolist() == wanted
        # The step itself solves the block.
        block = np.ix_(wanted, wanted)
        solved = np.linalg.solve(self.HESSIAN[block], linear[wanted])
        np.testing.assert_allclose(coef[wanted], solved, rtol=0.1)

    def test_gains_under_the_norm_are_those_of_a_search(self):
        rng = np.random.default_rng(0)
        root = rng.standard_normal((3, 2, 4))
        hessians = root @ root.transpose(0, 2, 1)
        coef, gradient = rng.standard_normal((2, 3, 2))
        coef[0] = 0
        strength = np.full((3, 2), 0.4)
        found = quadratic_gains(coef, gradient, strength, hessians)
        grid = np.stack(np.meshgrid(*[np.linspace(-6, 6, 1201)] * 2), axis=-1).reshape(-1, 2)
        for i in range(3):
            step = grid - coef[i]
            value = step @ gradient[i] + np.einsum("ni,ij,nj->n", step, hessians[i], step) / 2
            value += 0.4 * (np.abs(grid).sum(1) - np.abs(coef[i]).sum())
            assert found[i] == pytest.approx(-value.min(), rel=1e-2, abs=1e-3)

    def test_gains_of_single_coordinates(self):
        zeros = np.zeros(3)
        gradient, bound = np.array([2.0, -1.0, 0.5]), np.array([4.0, 2.0, 0.0])
        gains = separable_gains(zeros, gradient, zeros, bound)
        np.testing.assert_allclose(gains, [0.5, 0.25, 0.0])
        kept = separable_gains(zeros, gradient, zeros, bound, positive=True)
        np.testing.assert_allclose(kept, [0.0, 0.25, 0.0])
        shrunk = separable_gains(zeros, gradient, np.ones(3), bound)
        np.testing.assert_allclose(shrunk, [0.125, 0.0, 0.0])


class TestGreedyBlocks:
    @pytest.mark.parametrize(
        ("rule", "blocks"),
        [
            ("diagonal", "variable"),
            ("gauss-southwell", "variable"),
            ("lipschitz", "fixed"),
            ("quadratic", "fixed"),
            ("random", "fixed"),
            ("cyclic", "fixed"),
        ],
    )
    @pytest.mark.parametrize("name", ["squares", "logistic"])
    def test_agrees_with_coordinate_descent(self, name, rule, blocks):
        X, y = problems.problem(name, 0, rows=100, columns=63, mean=1.0)
        problem = Problem.build(X, y, problems.DATAFITS[name], penalties.L1(0.05))
        found = GreedyBlocks(tol=1e-9, rule=rule, blocks=blocks, max_iter=3000).solve(problem)
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

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rule": "cycle"}, "did you mean 'cyclic'"),
            ({"blocks": "forrest"}, "did you mean 'forest'"),
            ({"block": 0}, "block must be a whole number of at least 1, got 0"),
            ({"block": 2.5}, "block must be a whole number of at least 1, got 2.5"),
            ({"max_iter": -1}, "max_iter must be a whole number of at least 1, got -1"),
            ({"rule": "quadratic"}, "set blocks to 'fixed'"),
            ({"blocks": "forest"}, "forest blocks need a sparse design"),
        ],
    )
    def test_bad_options_are_refused(self, options, message):
        X, y = problems.problem("squares", 0)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1())
        with pytest.raises(OptionError, match=message):
            GreedyBlocks(**options).solve(problem)

    def test_other_penalties_are_refused(self):
        X, y = problems.problem("squares", 0)
        problem = Problem.build(X, y, datafits.Squares(), penalties.MCP())
        with pytest.raises(OptionError, match="only the L1 norm"):
            GreedyBlocks().solve(problem)


class TestForests:
    @pytest.mark.parametrize("seed", range(3))
    def test_message_passing_is_the_dense_solve(self, seed):
        matrix = lattice(12, seed)
        rng = np.random.default_rng(seed)
        block = forest_block(rng.permutation(144), matrix)
        forest = sparse.csr_array(matrix[block][:, block])
        target = rng.standard_normal(len(block))
        dense = np.linalg.solve(forest.toarray(), target)
        np.testing.assert_allclose(forest_solve(forest, target), dense, rtol=1e-10)

    def test_a_cycle_is_refused(self):
        with pytest.raises(DataError, match="has a cycle"):
            forest_solve(lattice(2), np.ones(4))

    def test_blocks_are_forests_that_cannot_be_extended(self):
        matrix = lattice(9)
        order = np.random.default_rng(0).permutation(81)
        block = forest_block(order, matrix)

        def cycles(nodes):
            part = matrix[nodes][:, nodes]
            edges = (part.nnz - len(nodes)) // 2
            return edges - len(nodes) + sparse.csgraph.connected_components(part)[0]

        assert order[0] in block
        assert cycles(block) == 0
        for node in np.setdiff1d(np.arange(81), block):
            assert cycles(np.append(block, node)) > 0
        partition = forest_partition(matrix)
        assert np.array_equal(np.sort(np.concatenate(partition)), np.arange(81))
        assert len(partition[0]) > 81 / 2  # more than the half of a red-black colouring
        assert all(cycles(b) == 0 for b in partition)

    @pytest.mark.parametrize("rule", ["diagonal", "gauss-southwell", "random", "cyclic"])
    def test_descent_on_forests_solves_a_lattice(self, rule):
        nodes = np.arange(64).reshape(8, 8)
        edges = np.concatenate(
            [
                np.column_stack([nodes[:, :-1].ravel(), nodes[:, 1:].ravel()]),
                np.column_stack([nodes[:-1].ravel(), nodes[1:].ravel()]),
            ]
        )
        X = sparse.csc_array(sparse.vstack([incidence(edges), 0.3 * sparse.eye_array(64)]))
        y = np.random.default_rng(1).standard_normal(X.shape[0])
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1(0.0), intercept=False)
        found = GreedyBlocks(tol=1e-9, rule=rule, blocks="forest").solve(problem)
        assert found.converged
        exact = np.linalg.solve((X.T @ X).toarray(), X.T @ y)
        np.testing.assert_allclose(found.coef, exact, atol=1e-7)

    def test_a_tree_is_solved_by_newton_steps_on_all_of_it(self):
        edges = np.array([(i, (i - 1) // 2) for i in range(1, 30)])
        eye = sparse.eye_array(30)
        X = sparse.csc_array(sparse.vstack([incidence(edges), eye, eye]))
        y = np.random.default_rng(2).standard_normal(89)
        problem = Problem.build(X, y, datafits.Squares(), penalties.L1(0.0), intercept=False)
        assert GreedyBlocks(tol=1e-9, blocks="forest").solve(problem).n_iter == 1
        signs = np.concatenate([np.where(y[:29] > 0, 1.0, -1.0), np.ones(30), -np.ones(30)])
        logistic = Problem.build(X, signs, datafits.Logistic(), penalties.L1(0.0), intercept=False)
        found = GreedyBlocks(tol=1e-9, blocks="forest").solve(logistic)
        assert found.converged
        assert found.n_iter <= 8
