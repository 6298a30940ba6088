"""Unrolled networks: as their plain iterations before training, and better after it."""

import subprocess
import sys

import numpy as np
import pytest

from thresher.core import prox
from thresher.core.errors import DataError, NumericalError, OptionError
from thresher.linear import HyperLISTA
from thresher.linear.recovery.hyper_lista import _shrink, analytic_weight, symmetric_weight
from thresher.linear.recovery.unrolled import CompoundGaussianNetwork, UnfoldedThresholding


def test_the_linear_room_imports_no_torch():
    code = "import sys, thresher.linear; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def sparse_data(seed=0, samples=200, rows=40, columns=80, density=0.08, matrix=0):
    A = np.random.default_rng(matrix).standard_normal((rows, columns))
    A /= np.linalg.norm(A, axis=0)
    rng = np.random.default_rng(seed + 100)
    X = rng.standard_normal((samples, columns)) * (rng.random((samples, columns)) < density)
    return A, X, X @ A.T


def relative(found, truth):
    return np.sum((found - truth) ** 2) / np.sum(truth**2)


class TestAnalyticWeight:
    def test_no_other_companion_correlates_less(self):
        A, _, _ = sparse_data()
        W = analytic_weight(A)
        np.testing.assert_allclose(np.sum(W * A, axis=0), 1)
        best = np.linalg.norm(W.T @ A)
        rng = np.random.default_rng(0)
        for _ in range(20):
            other = W + 0.01 * rng.standard_normal(W.shape)
            other /= np.sum(other * A, axis=0)
            assert np.linalg.norm(other.T @ A) > best


class TestSymmetricWeight:
    def test_it_is_a_positive_map_of_the_columns(self):
        A, _, _ = sparse_data()
        W = symmetric_weight(A)
        P = W @ np.linalg.pinv(A)
        np.testing.assert_allclose(P @ A, W, atol=1e-10)
        np.testing.assert_allclose(P, P.T, atol=1e-10)
        assert np.linalg.eigvalsh(P).min() > 0  # so that it is G^T G
        np.testing.assert_allclose(np.diag(W.T @ A), 1)

    def test_no_other_symmetric_companion_correlates_less(self):
        A, _, _ = sparse_data(rows=5, columns=8)
        best = np.linalg.norm(symmetric_weight(A).T @ A)
        # Directions that keep every diagonal entry: the null space of 8 equations in 15.
        i, j = np.triu_indices(5)
        equations = np.where(i == j, 1.0, 2.0) * (A[i] * A[j]).T
        free = np.linalg.svd(equations)[2][8:]
        assert len(free) == 7
        for direction in np.vstack([free, -free]):
            change = np.zeros((5, 5))
            change[i, j] = change[j, i] = 0.01 * direction
            other = symmetric_weight(A) + change @ A
            np.testing.assert_allclose(np.sum(other * A, axis=0), 1)
            assert np.linalg.norm(other.T @ A) > best

    def test_norms_of_columns_are_divided_out(self):
        A, _, _ = sparse_data()
        norms = np.linspace(0.5, 2, A.shape[1])
        np.testing.assert_allclose(symmetric_weight(A * norms), symmetric_weight(A) / norms)

    def test_equal_columns_have_one(self):
        A, _, _ = sparse_data()
        A = np.hstack([A, A[:, :1]])
        np.testing.assert_allclose(np.sum(symmetric_weight(A) * A, axis=0), 1)


class TestHyperLISTA:
    def test_the_weight_is_the_symmetric_one(self):
        A, X, _ = sparse_data(samples=3)
        model = HyperLISTA(1, max_evaluations=1).fit(A, X)
        gram = model.weight_.T @ A
        np.testing.assert_allclose(gram, gram.T, atol=1e-10)

    def test_largest_entries_are_not_shrunk(self):
        x = np.array([[3.0, -2.0, 0.5, 1.5], [3.0, -2.0, 0.5, 1.5]])
        found = _shrink(x, np.array([[1.0], [2.5]]), np.array([[2.0], [2.0]]))
        np.testing.assert_allclose(found, [[3, -2, 0, 0.5], [3, 0, 0, 0]])

    def test_first_layer_by_hand(self):
        A, X, B = sparse_data(samples=3)
        model = HyperLISTA(1, max_evaluations=5).fit(A, X)
        # From zero there is no momentum, nothing is gained yet, and all entries are shrunk.
        inverse = np.linalg.pinv(A)
        theta = model.factors_[0] * model.coherence_ * np.abs(B @ inverse.T).sum(1, keepdims=True)
        np.testing.assert_allclose(model.predict(B), prox.soft(B @ model.weight_, theta))

    def test_momentum_follows_the_non_zeros(self):
        # beta = c2 mu ||x||_0, on the last change; nothing is left unshrunk.
        A, X, B = sparse_data(samples=3)
        model = HyperLISTA(6, max_evaluations=5).fit(A, X)
        model.factors_ = np.array([0.02, 0.05, 0.0])
        inverse = np.linalg.pinv(A)
        x = before = np.zeros((3, 80))
        for found in model.layers(B):
            residual = B - x @ A.T
            theta = 0.02 * model.coherence_ * np.abs(residual @ inverse.T).sum(1, keepdims=True)
            beta = 0.05 * model.coherence_ * np.sum(x != 0, axis=1, keepdims=True)
            moved = x + residual @ model.weight_ + beta * (x - before)
            before, x = x, np.sign(moved) * np.maximum(np.abs(moved) - theta, 0)
            np.testing.assert_allclose(found, x, atol=1e-12)
        assert 0 < np.count_nonzero(x) < x.size

    def test_recovers_better_than_as_many_steps_of_ista(self):
        A, X, _ = sparse_data()
        model = HyperLISTA(12).fit(A, X)
        _, test, measured = sparse_data(seed=1)
        found = model.predict(measured)
        x, step = np.zeros_like(test), 1 / np.linalg.norm(A, 2) ** 2
        for _ in range(12):
            x = prox.soft(x + step * (measured - x @ A.T) @ A, 0.05 * step)
        assert relative(found, test) < 0.01 < relative(x, test)
        assert model.loss_ == pytest.approx(relative(model.predict(X @ A.T), X))
        # Parameters follow the size of the measurement.
        np.testing.assert_allclose(model.predict(100 * measured), 100 * found, rtol=1e-6)

    def test_bad_shapes_and_options_are_named(self):
        A, X, B = sparse_data(samples=5)
        with pytest.raises(DataError, match="do not match"):
            HyperLISTA().fit(A, X, B[:4])
        with pytest.raises(
            OptionError, match="n_layers must be a whole number of at least 1, got 0"
        ):
            HyperLISTA(0).fit(A, X)
        with pytest.raises(DataError, match="B has 39 columns, the matrix 40 rows"):
            HyperLISTA(1, max_evaluations=1).fit(A, X).predict(B[:, 1:])
        with pytest.raises(OptionError, match=r"max_evaluations must be a whole number.*2\.5"):
            HyperLISTA(1, max_evaluations=2.5).fit(A, X)

    def test_matrices_without_full_row_rank_are_refused(self):
        with pytest.raises(DataError, match="column 0 of A is zero"):
            HyperLISTA().fit(np.zeros((4, 6)), np.ones((3, 6)))
        A, X, _ = sparse_data(samples=5)
        with pytest.raises(DataError, match="A has 41 rows but rank 40"):
            HyperLISTA().fit(np.vstack([A, A[0] + A[1]]), X)
        with pytest.raises(DataError, match="only zeros"):
            HyperLISTA().fit(A, 0 * X)


@pytest.mark.parametrize("network", [UnfoldedThresholding, CompoundGaussianNetwork])
class TestTraining:
    def test_divergence_is_an_error(self, network):
        A, X, B = sparse_data(samples=20)
        with pytest.raises(NumericalError, match=r"diverged.*learning_rate, which is 1000\.0"):
            network(learning_rate=1000.0).fit(A, B, X)

    @pytest.mark.parametrize(
        ("option", "value"), [("updates", -1), ("batch_size", 0), ("batch_size", 2.5)]
    )
    def test_counts_are_whole_numbers(self, network, option, value):
        A, X, B = sparse_data(samples=5)
        with pytest.raises(OptionError, match=f"{option} must be a whole number of.*{value}"):
            network(**{option: value}).fit(A, B, X)

    @pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
    def test_rates_are_positive(self, network, rate):
        A, X, B = sparse_data(samples=5)
        with pytest.raises(OptionError, match="learning_rate must be a finite number above 0"):
            network(learning_rate=rate).fit(A, B, X)


class TestUnfoldedThresholding:
    def test_divergence_of_the_objective_is_an_error(self):
        A, _, B = sparse_data(samples=20)
        with pytest.raises(NumericalError, match="training diverged"):
            UnfoldedThresholding(loss="unsupervised", learning_rate=100.0).fit(A, B)

    @pytest.mark.parametrize(("penalty", "operator"), [("l1", prox.soft), ("l0", prox.hard)])
    def test_untrained_it_is_the_plain_iteration(self, penalty, operator):
        A, _, B = sparse_data(samples=20)
        model = UnfoldedThresholding(5, penalty=penalty, loss="unsupervised", updates=0).fit(A, B)
        step = 1 / np.linalg.norm(A, 2) ** 2
        level = 0.1 * step if penalty == "l1" else np.sqrt(0.2 * step)
        x = np.zeros((20, 80))
        for found in model.layers(B):
            x = operator(x + step * (B - x @ A.T) @ A, level)
            np.testing.assert_allclose(found, x, atol=1e-4)
        size = np.abs(x).sum(1) if penalty == "l1" else np.count_nonzero(x, axis=1)
        expected = np.sum((B - x @ A.T) ** 2, axis=1) / 2 + 0.1 * size
        np.testing.assert_allclose(model.objective(B, x), expected, rtol=1e-4)

    def test_selection_leaves_the_largest_entries_of_each_layer_unshrunk(self):
        A, _, B = sparse_data(samples=20)
        # Of 80 entries 2, 4 and 4 in three layers.
        model = UnfoldedThresholding(
            3, loss="unsupervised", selection=(0.025, 0.05), updates=0, alpha=0.5
        ).fit(A, B)
        step = 1 / np.linalg.norm(A, 2) ** 2
        x = np.zeros((20, 80))
        for found, count in zip(model.layers(B), (2, 4, 4), strict=True):
            x = _shrink(x + step * (B - x @ A.T) @ A, np.full((20, 1), 0.5 * step), count)
            np.testing.assert_allclose(found, x, atol=1e-4)

    def test_entries_below_the_threshold_are_not_selected(self):
        A, _, B = sparse_data(samples=20)
        model = UnfoldedThresholding(
            1, loss="unsupervised", selection=(1.0, 1.0), updates=0, alpha=0.5
        ).fit(A, B)
        step = 1 / np.linalg.norm(A, 2) ** 2
        np.testing.assert_allclose(model.predict(B), prox.hard(step * B @ A, 0.5 * step), atol=1e-4)

    @pytest.mark.parametrize("selection", [(0.2, 0.1), (-0.1, 0.1), (0.1, 1.5), 0.1])
    def test_selections_out_of_range_are_refused(self, selection):
        A, X, B = sparse_data(samples=5)
        with pytest.raises(OptionError, match="selection must be two shares"):
            UnfoldedThresholding(selection=selection).fit(A, B, X)

    def test_selection_needs_a_soft_threshold(self):
        A, X, B = sparse_data(samples=5)
        with pytest.raises(OptionError, match="selection is for the 'l1' penalty"):
            UnfoldedThresholding(penalty="l0", selection=(0.1, 0.1)).fit(A, B, X)

    @pytest.mark.parametrize("penalty", ["l1", "l0"])
    def test_each_loss_lowers_what_it_is_made_of(self, penalty):
        A, X, B = sparse_data()
        options = {"n_layers": 4, "penalty": penalty, "updates": 40, "learning_rate": 0.05}
        plain, supervised, unsupervised = (
            UnfoldedThresholding(**options | extra).fit(A, B, X)
            for extra in ({"updates": 0}, {}, {"loss": "unsupervised"})
        )
        _, test, measured = sparse_data(seed=1)
        assert relative(supervised.predict(measured), test) < 0.9 * relative(
            plain.predict(measured), test
        )
        reached = [m.objective(measured, m.predict(measured)).mean() for m in (plain, unsupervised)]
        assert reached[1] < 0.98 * reached[0]

    def test_same_seed_same_network(self):
        A, X, B = sparse_data(samples=50)
        one, two = (UnfoldedThresholding(2, updates=5).fit(A, B, X) for _ in range(2))
        np.testing.assert_array_equal(one.steps_, two.steps_)
        other = UnfoldedThresholding(2, updates=5, random_state=1).fit(A, B, X)
        assert not np.array_equal(one.steps_, other.steps_)

    def test_bad_options_and_data_are_named(self):
        A, X, B = sparse_data(samples=5)
        with pytest.raises(OptionError, match="did you mean 'unsupervised'"):
            UnfoldedThresholding(loss="unsuperviced").fit(A, B)
        with pytest.raises(DataError, match="needs the true vectors"):
            UnfoldedThresholding().fit(A, B)
        with pytest.raises(DataError, match=r"X has shape \(5, 79\)"):
            UnfoldedThresholding().fit(A, B, X[:, 1:])
        with pytest.raises(OptionError, match="alpha must be a finite number above 0"):
            UnfoldedThresholding(alpha=0).fit(A, B, X)
        with pytest.raises(DataError, match="B has 39 columns, the matrix 40 rows"):
            UnfoldedThresholding(1, updates=0).fit(A, B, X).predict(B[:, 1:])


def bumps(seed=0, samples=60, rows=24, columns=48):
    """Return a matrix, non-negative bumps times Gaussian signs and sizes, and measurements."""
    A = np.random.default_rng(1).standard_normal((rows, columns)) / np.sqrt(rows)
    rng = np.random.default_rng(seed + 100)
    places = np.arange(columns) - rng.uniform(5, columns - 5, (samples, 1))
    X = np.exp(-((places / 2) ** 2)) * rng.standard_normal((samples, columns))
    return A, X, X @ A.T


class TestCompoundGaussianNetwork:
    def test_untrained_it_is_the_alternation_without_a_penalty_on_the_scale(self):
        A, X, B = bumps(samples=5)
        model = CompoundGaussianNetwork(2, steps=3, alpha=0.05, updates=0).fit(A, B, X)
        np.testing.assert_allclose(model.variances_, 20, rtol=1e-5)
        layers = model.layers(B)
        for row, b in enumerate(B):
            norm = np.linalg.norm(b)
            z = np.abs(A.T @ b / norm) ** (2 / 3)
            u = ridge(A * z, b / norm, 0.05)
            for layer in layers:
                for _ in range(3):
                    step = 1 / np.linalg.norm(A, 2) ** 2 / np.max(u**2)
                    z = np.maximum(z - step * u * (A.T @ (A @ (z * u) - b / norm)), 0)
                u = ridge(A * z, b / norm, 0.05)
                np.testing.assert_allclose(layer[row], norm * z * u, atol=2e-3 * norm)

    def test_training_on_few_examples_helps_on_others(self):
        A, X, B = bumps()
        plain, trained = (
            CompoundGaussianNetwork(2, updates=updates).fit(A, B, X) for updates in (0, 150)
        )
        _, test, measured = bumps(seed=1)
        errors = [relative(model.predict(measured), test) for model in (plain, trained)]
        assert errors[1] < 0.7 * errors[0]

    def test_the_scale_of_a_measurement_passes_through(self):
        A, X, B = bumps(samples=10)
        model = CompoundGaussianNetwork(1, updates=5).fit(A, B, X)
        np.testing.assert_allclose(model.predict(100 * B), 100 * model.predict(B), rtol=1e-3)
        np.testing.assert_array_equal(model.predict(0 * B), 0)

    def test_entries_on_a_grid_are_convolved_in_two_dimensions(self):
        A, X, B = bumps(samples=10)
        model = CompoundGaussianNetwork(1, shape=(6, 8), channels=2, updates=2).fit(A, B, X)
        assert model.predict(B).shape == X.shape
        other = CompoundGaussianNetwork(1, channels=2, updates=2).fit(A, B, X)
        assert not np.array_equal(model.predict(B), other.predict(B))

    def test_same_seed_same_network(self):
        A, X, B = bumps(samples=10)
        one, two, other = (
            CompoundGaussianNetwork(1, updates=3, random_state=s).fit(A, B, X).predict(B)
            for s in (0, 0, 1)
        )
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)

    def test_bad_options_and_data_are_named(self):
        A, X, B = bumps(samples=5)
        with pytest.raises(OptionError, match=r"shape \(5, 9\) must .* hold 48 entries"):
            CompoundGaussianNetwork(shape=(5, 9)).fit(A, B, X)
        with pytest.raises(OptionError, match="steps must be a whole number of at least 1, got 0"):
            CompoundGaussianNetwork(steps=0).fit(A, B, X)
        with pytest.raises(OptionError, match="alpha must be a finite number above 0"):
            CompoundGaussianNetwork(alpha=0).fit(A, B, X)
        with pytest.raises(DataError, match="measurement 2 is all zero"):
            CompoundGaussianNetwork().fit(A, B * (np.arange(5) != 2)[:, None], X)
        with pytest.raises(DataError, match=r"X has shape \(5, 47\)"):
            CompoundGaussianNetwork().fit(A, B, X[:, 1:])


def ridge(A, b, alpha):
    """Return the minimiser of ``||b - A u||^2 / 2 + alpha ||u||^2 / 2``."""
    return np.linalg.solve(A.T @ A + alpha * np.eye(A.shape[1]), A.T @ b)
