"""What is taken from columns and target, and how far a step goes: two parts of all solvers."""

import numpy as np
import pytest

from thresher.linear import DebiasedLasso, LocallyPrivateRegression, ZeroImputedRegression
from thresher.solve.centring import Centring
from thresher.solve.line_search import falls, search


class TestCentring:
    def test_by_hand(self):
        X, y = np.array([[1.0, 5.0], [3.0, 9.0]]), np.array([10.0, 20.0])
        centring = Centring.of(X, y)
        np.testing.assert_array_equal(centring.columns(X), [[-1, -2], [1, 2]])
        # 15 - 2 w_1 - 7 w_2 predicts the mean of the target at the means of the columns.
        assert centring.intercept(np.array([1.0, 2.0])) == 15 - 2 - 14
        assert centring.constant(np.array([1.0, 2.0]), -1.0) == 0

    @pytest.mark.parametrize("outputs", [(), (3,)])
    @pytest.mark.parametrize("offset", [0.0, 2.5])
    def test_predictions_are_the_same_both_ways(self, outputs, offset):
        rng = np.random.default_rng(0)
        X, coef = rng.standard_normal((6, 4)), rng.standard_normal((4, *outputs))
        constant = rng.standard_normal(outputs)
        centring = Centring(rng.standard_normal(4), offset)
        intercept = centring.intercept(coef, constant)
        given = X @ coef + intercept - offset
        np.testing.assert_allclose(centring.columns(X) @ coef + constant, given)
        np.testing.assert_allclose(centring.constant(coef, intercept), constant)

    @pytest.mark.parametrize("outputs", [(), (3,)])
    def test_the_gradient_is_that_of_centred_columns(self, outputs):
        rng = np.random.default_rng(1)
        X, slope = rng.standard_normal((6, 4)), rng.standard_normal((6, *outputs))
        centring = Centring(X.mean(axis=0))
        found = centring.gradient(X.T @ slope, slope.sum(axis=0))
        np.testing.assert_allclose(found, centring.columns(X).T @ slope)

    def test_nothing_is_taken_without_an_intercept(self):
        X, y = np.arange(6.0).reshape(3, 2), np.ones(3)
        centring = Centring.of(X, y, fit_intercept=False)
        assert centring.columns(X) is X
        assert centring.intercept(np.ones(2)) == 0


class TestLineSearch:
    def test_it_halves_until_the_objective_falls(self):
        # (x - 1)^2 from zero along 5: the ends 5 and 2.5 are higher than zero, 1.25 is lower.
        found = search(lambda step: ((5 * step - 1) ** 2, step), 1.0)
        assert found == (0.0625, 0.25)

    def test_none_where_all_steps_rise_or_keep_the_objective(self):
        lengths = []
        assert search(lambda step: (1.0 + step, lengths.append(step)), 1.0, 8.0, trials=3) is None
        assert lengths == [8.0, 4.0, 2.0]
        # One that is no number, as beyond a loss's domain, is no fall.
        assert search(lambda step: (np.nan if step > 0.1 else 1.0, step), 1.0) is None

    def test_only_a_whole_step_may_keep_the_objective_to_rounding(self):
        risen = 1 + 2e-16 * 2
        assert falls(risen, 1.0, True)
        assert not falls(risen, 1.0, False)
        assert not falls(1 + 1e-14, 1.0, True)
        np.testing.assert_array_equal(
            falls(np.array([1.0, 0.5, 2.0]), np.ones(3), False), [False, True, False]
        )


@pytest.mark.parametrize(
    "model",
    [DebiasedLasso(0.1), LocallyPrivateRegression(random_state=0), ZeroImputedRegression()],
    ids=lambda model: type(model).__name__,
)
def test_coefficients_and_intercept_are_for_the_data_as_given(model):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((60, 3)) + 4
    y = X @ [1.0, 0.0, -1.0] + 3 + 0.1 * rng.standard_normal(60)
    model.fit(X, y)
    np.testing.assert_allclose(model.predict(X), X @ model.coef_ + model.intercept_)


def test_a_gap_is_predicted_as_the_mean_of_its_feature():
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((40, 2)) + 7, rng.standard_normal(40)
    X[3, 0] = np.nan
    model = ZeroImputedRegression().fit(X, y)
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    np.testing.assert_allclose(model.predict(X), model.predict(filled))
