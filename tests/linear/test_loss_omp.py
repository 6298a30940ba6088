"""Loss-guided OMP: every gain against a numeric search, and planted supports."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.linear import LossOMP, OrthogonalMatchingPursuit, batch_omp
from thresher.linear.greedy.columns import Columns
from thresher.linear.greedy.loss_omp import (
    _GAINS,
    _LOSSES,
    _AbsoluteColumns,
    _counting_gain,
    _removal_gain,
)

EACH = pytest.mark.parametrize("loss", ["lasso", "square-root", "absolute"])


@parametrize_with_checks(
    [LossOMP(), LossOMP(loss="absolute"), LossOMP(loss="square-root", norm="l0", alpha=0.1)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestGains:
    GRID = np.concatenate([np.linspace(-5, 5, 20_001), [0.0]])

    @EACH
    @pytest.mark.parametrize("norm", ["l1", "l0"])
    @pytest.mark.parametrize("seed", range(3))
    def test_entry_is_what_one_coefficient_saves(self, loss, norm, seed):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((20, 5))
        X /= np.linalg.norm(X, axis=0)
        r, cost = rng.standard_normal(20), rng.uniform(0.0, 0.6, 5)
        rule = _GAINS[loss]
        found = rule(Columns(X, r), cost)
        if norm == "l0":
            found = _counting_gain(rule(Columns(X, r), np.zeros(5)), cost)
        assert np.count_nonzero(found) > 0
        for j in range(5):
            values = _LOSSES[loss](r[:, None] - np.outer(X[:, j], self.GRID))
            size = np.abs(self.GRID) if norm == "l1" else self.GRID != 0
            best = _LOSSES[loss](r[:, None])[0] - np.min(values + cost[j] * size)
            assert found[j] == pytest.approx(best, abs=2e-3 if loss == "absolute" else 1e-5)

    @EACH
    @pytest.mark.parametrize("seed", range(3))
    def test_removal_is_what_one_coefficient_saves(self, loss, seed):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((20, 4))
        X /= np.linalg.norm(X, axis=0)
        y = X @ np.array([3.0, 0.1, 0.02, 0.0]) + 0.05 * rng.standard_normal(20)
        columns = (_AbsoluteColumns if loss == "absolute" else Columns)(X, y)
        for j in (2, 0, 1):
            columns.add(j)
        cost = np.full(4, 0.1)
        found = _removal_gain(columns, _LOSSES[loss], cost)
        assert found[1] == 0  # the large coefficient stays
        for i, j in enumerate(columns.chosen):
            coef = columns.coefficients()[i]
            moves = np.concatenate([self.GRID, [-coef]])
            values = _LOSSES[loss](columns.residual[:, None] - np.outer(X[:, j], moves))
            now = _LOSSES[loss](columns.residual[:, None])[0]
            reached = np.min(values + cost[j] * (coef + moves != 0))
            # The fit is the best that the others' coefficients allow, so only leaving gains.
            assert found[i] == pytest.approx(max(now + cost[j] - reached, 0), abs=1e-6)

    def test_square_root_and_counting_by_hand(self):
        # ||r|| = 5, c = 3: the loss falls to 4, less a cost of 0.25.
        X, r = np.array([[1.0], [0.0]]), np.array([3.0, 4.0])
        fall = _GAINS["square-root"](Columns(X, r), np.zeros(1))
        np.testing.assert_allclose(_counting_gain(fall, np.array([0.25])), 0.75)
        np.testing.assert_allclose(_counting_gain(fall, np.array([1.5])), 0.0)
        # Squares: 9 less the cost.
        fall = _GAINS["lasso"](Columns(X, r), np.zeros(1))
        np.testing.assert_allclose(_counting_gain(fall, np.array([0.25])), 8.75)


class TestRemoval:
    def test_removed_columns_leave_the_fit_of_the_others(self):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((30, 5)), rng.standard_normal(30)
        columns = Columns(X, y)
        for j in (4, 1, 3):
            columns.add(j)
        columns.remove(1)
        assert columns.chosen == [4, 3]
        best = np.linalg.lstsq(X[:, [4, 3]], y, rcond=None)[0]
        np.testing.assert_allclose(columns.coefficients(), best)
        np.testing.assert_allclose(columns.residual, y - X[:, [4, 3]] @ best)

    @EACH
    def test_a_column_that_stood_for_two_leaves_again(self, loss):
        rng = np.random.default_rng(1)
        X = np.linalg.qr(rng.standard_normal((40, 6)))[0]
        y = X[:, 0] + X[:, 1]
        if loss == "absolute":
            y[:2] += 20.0
        # Nearer to y than either of its parts, and useless beside both.
        X[:, 5] = (X[:, 0] + X[:, 1] + 0.3 * X[:, 5]) / np.sqrt(2.09)
        options = {"loss": loss, "alpha": 0.001, "fit_intercept": False}
        kept = LossOMP(6, norm="l1", **options).fit(X, y)
        assert kept.support_[0] == 5
        removed = LossOMP(6, norm="l0", **options).fit(X, y)
        assert sorted(removed.support_) == [0, 1]
        np.testing.assert_allclose(removed.coef_, [1, 1, 0, 0, 0, 0], atol=1e-8)

    @EACH
    @pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.1, 10.0])
    def test_the_choice_cannot_be_bettered_by_one_column(self, loss, alpha):
        rng = np.random.default_rng(2)
        X = rng.standard_normal((30, 12))
        y = X[:, :3] @ np.ones(3) + 0.5 * rng.standard_normal(30)
        model = LossOMP(12, loss=loss, norm="l0", alpha=alpha, fit_intercept=False).fit(X, y)
        unit = X / np.linalg.norm(X, axis=0)

        def objective(chosen):
            columns = (_AbsoluteColumns if loss == "absolute" else Columns)(unit, y)
            for j in chosen:
                columns.add(j)
            return _LOSSES[loss](columns.residual[:, None])[0] + alpha * len(chosen)

        reached = objective(model.support_)
        for j in model.support_:
            coef = model.coef_.copy()
            coef[j] = 0
            rest = _LOSSES[loss]((y - X @ coef)[:, None])[0] + alpha * (len(model.support_) - 1)
            assert rest >= reached - 1e-9
        assert reached <= objective([]) + 1e-9


class TestLossOMP:
    def test_gross_errors_do_not_disturb_the_absolute_loss(self, sensing):
        A, x = sensing
        y = A @ x
        y[:4] += 50.0
        robust = LossOMP(8, loss="absolute", fit_intercept=False).fit(A, y)
        plain = LossOMP(8, fit_intercept=False).fit(A, y)
        np.testing.assert_allclose(robust.coef_, x, atol=1e-8)
        assert np.linalg.norm(plain.coef_ - x) > 1

    @EACH
    @pytest.mark.parametrize("norm", ["l1", "l0"])
    def test_a_sparse_matrix_gives_what_a_dense_one_does(self, loss, norm):
        X = sparse.random_array((60, 30), density=0.2, rng=3, format="csc")
        rng = np.random.default_rng(3)
        y = X @ np.where(np.arange(30) < 4, 2.0, 0.0) + 1 + 0.1 * rng.standard_normal(60)
        weight = rng.integers(0, 4, 60)
        model = LossOMP(6, loss=loss, norm=norm, alpha=0.01)
        expected = clone(model).fit(X.toarray(), y, weight)
        found = model.fit(X, y, weight)
        np.testing.assert_array_equal(found.support_, expected.support_)
        np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-10)
        np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-10)

    @EACH
    def test_a_weight_of_two_is_two_samples(self, loss, sensing):
        A, x = sensing
        rng = np.random.default_rng(4)
        y, weight = A @ x + 0.1 * rng.standard_normal(80), rng.integers(0, 3, 80)
        weighted = LossOMP(8, loss=loss).fit(A, y, weight)
        repeated = LossOMP(8, loss=loss).fit(np.repeat(A, weight, axis=0), np.repeat(y, weight))
        np.testing.assert_array_equal(weighted.support_, repeated.support_)
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-8)

    def test_small_weights_lead_the_choice(self, sensing):
        A, x = sensing
        weights = np.where(x != 0, 0.1, 2.0)
        y = A @ x + 0.3 * np.random.default_rng(0).standard_normal(80)
        for options in ({"loss": "lasso", "alpha": 1.0}, {"norm": "l0", "alpha": 0.25}):
            model = LossOMP(8, weights=weights, fit_intercept=False, **options).fit(A, y)
            assert set(model.support_) <= set(np.flatnonzero(x))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": "laso"}, "did you mean 'lasso'"),
            ({"norm": "l2"}, "there is no norm 'l2'"),
            ({"alpha": -1.0}, "alpha must be a finite number of at least 0, got -1.0"),
            ({"alpha": np.nan}, "alpha must be a finite number of at least 0, got nan"),
            ({"weights": np.ones(7)}, r"weights has shape \(7,\), X has 200 features"),
            ({"weights": np.r_[np.ones(199), -2]}, "got -2.0 at 199"),
            ({"weights": np.r_[np.nan, np.ones(199)]}, "got nan at 0"),
            ({"n_nonzero_coefs": 2.5}, "n_nonzero_coefs must be a whole number"),
            ({"n_nonzero_coefs": 0}, "n_nonzero_coefs must be a whole number"),
            ({"n_nonzero_coefs": 201}, "cannot choose 201 of 200 columns; ask for 1 to 200"),
        ],
    )
    def test_bad_options_are_refused(self, options, message, sensing):
        with pytest.raises(OptionError, match=message):
            LossOMP(**options).fit(sensing[0], np.arange(80.0))


def test_pursuits_refuse_numbers_that_are_not_whole(sensing):
    A, x = sensing
    with pytest.raises(OptionError, match="n_nonzero_coefs must be a whole number"):
        OrthogonalMatchingPursuit(2.5).fit(A, A @ x)
    with pytest.raises(OptionError, match="tol must be a finite number of at least 0"):
        OrthogonalMatchingPursuit(2, tol=-1.0).fit(A, A @ x)
    with pytest.raises(OptionError, match="n_nonzero must be a whole number"):
        batch_omp(A.T, A.T[:3], 2.5)
