"""Every loss against its own derivatives and its conjugate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from thresher.linear import datafits
from thresher.solve.datafits import Datafit

from . import problems

ROWS = 15
STEP = 1e-5


def point(name: str, seed: int, size: float):
    """Return a target, predictions where the loss is finite, and weights, one of them zero."""
    rng = np.random.default_rng(seed)
    y = problems.target(name, rng.standard_normal(ROWS), rng)
    prediction = size * rng.standard_normal(y.shape)
    if name == "poisson-identity":
        prediction = np.abs(prediction) + 0.01
    weight = rng.random(ROWS)
    weight[-1] = 0.0
    return y, prediction, weight / weight.sum(), rng


def away_from_kinks(datafit: Datafit, y: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    if datafit.smooth:
        return prediction
    near = np.abs(datafit.inner(prediction) - y) < 1e-2
    return prediction + np.where(near, 0.1, 0.0)


anywhere = given(seed=st.integers(0, 10_000), size=st.sampled_from([0.3, 1.0, 3.0]))


@pytest.mark.parametrize("name", problems.DATAFITS)
@anywhere
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_gradient_is_the_slope_of_the_value(name, seed, size):
    datafit = problems.DATAFITS[name]
    y, prediction, weight, rng = point(name, seed, size)
    prediction = away_from_kinks(datafit, y, prediction)
    direction = rng.standard_normal(prediction.shape)
    above, below = (
        datafit.value(y, prediction + sign * STEP * direction, weight) for sign in (1, -1)
    )
    slope = np.sum(datafit.gradient(y, prediction, weight) * direction)
    # Central differences err by the square of the step, and by rounding over it.
    scale = abs(slope) + abs(above) + 1
    assert (above - below) / (2 * STEP) == pytest.approx(slope, abs=1e-6 * scale)


@pytest.mark.parametrize("name", [n for n, d in problems.DATAFITS.items() if d.smooth])
@anywhere
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_curvature_bounds_the_second_difference_in_any_direction(name, seed, size):
    datafit = problems.DATAFITS[name]
    y, prediction, weight, rng = point(name, seed, size)
    curvature = datafit.curvature(y, prediction, weight)
    assert curvature.shape == (ROWS,)
    shaped = curvature if prediction.ndim == 1 else curvature[:, None]
    # One sample alone, and all together: the loss of times to an event couples samples.
    one = np.zeros_like(prediction)
    one[rng.integers(ROWS)] = 1.0
    for direction in (one, rng.standard_normal(prediction.shape)):
        above, below = (
            datafit.gradient(y, prediction + sign * STEP * direction, weight) for sign in (1, -1)
        )
        bend = np.sum((above - below) * direction) / (2 * STEP)
        assert bend <= np.sum(shaped * direction**2) * (1 + 1e-4) + 1e-8


@pytest.mark.parametrize("name", [n for n, d in problems.DATAFITS.items() if not d.smooth])
def test_no_number_bounds_the_curvature_at_a_kink(name):
    y, prediction, weight, _ = point(name, 0, 1.0)
    assert np.all(np.isinf(problems.DATAFITS[name].curvature(y, prediction, weight)))


with_conjugate = [
    name for name, d in problems.DATAFITS.items() if type(d).conjugate is not Datafit.conjugate
]


@pytest.mark.parametrize("name", with_conjugate)
@anywhere
@settings(max_examples=20, deadline=None, derandomize=True)
def test_fenchels_inequality_is_an_equality_at_the_gradient(name, seed, size):
    datafit = problems.DATAFITS[name]
    y, prediction, weight, rng = point(name, seed, size)
    dual = datafit.gradient(y, prediction, weight)
    conjugate = datafit.conjugate(y, dual, weight)
    value = datafit.value(y, prediction, weight)
    scale = abs(value) + abs(conjugate) + 1
    assert value + conjugate == pytest.approx(np.sum(dual * prediction), abs=1e-9 * scale)
    other = prediction + rng.standard_normal(prediction.shape)
    if name == "poisson-identity":
        other = np.abs(other)
    excess = datafit.value(y, other, weight) + conjugate - np.sum(dual * other)
    assert excess >= -1e-9 * scale


def test_losses_that_can_stop_on_a_gap_do():
    assert {"squares", "huber", "square-root", "logistic", "poisson"} <= set(with_conjugate)


@pytest.mark.parametrize("name", [n for n, d in problems.DATAFITS.items() if d.shift_equivariant])
def test_shift_equivariant_losses_see_residuals_only(name):
    datafit = problems.DATAFITS[name]
    y, prediction, weight, _ = point(name, 3, 1.0)
    for method in ("value", "gradient", "curvature"):
        here = getattr(datafit, method)(y, prediction, weight)
        there = getattr(datafit, method)(y + 4.0, prediction + 4.0, weight)
        np.testing.assert_allclose(there, here, rtol=1e-10)


@pytest.mark.parametrize("name", [n for n, d in problems.DATAFITS.items() if d.bounded_curvature])
def test_bounded_curvature_is_bounded(name):
    """Loss by loss: a thousandfold prediction does not bend it more than ten times its weight."""
    y, prediction, weight, _ = point(name, 4, 1.0)
    width = getattr(problems.DATAFITS[name], "width", 1.0)
    for size in (0.0, 1.0, 1e3):
        bend = problems.DATAFITS[name].curvature(y, size * prediction, weight)
        assert np.all(bend * min(width, 1.0) <= 10 * np.max(weight))


def test_the_logistic_loss_is_exact_far_from_the_boundary():
    margin = np.array([-800.0, -40.0, -1e-12, 0.0, 0.3, 40.0, 800.0])
    y = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    loss = datafits.Logistic()
    for k, (target, prediction) in enumerate(zip(y, y * margin, strict=True)):
        one = (np.array([target]), np.array([prediction]), np.ones(1))
        assert loss.value(*one) == pytest.approx(np.logaddexp(0, -margin[k]), rel=1e-14)
        slope = -target * special.expit(-margin[k])
        assert loss.gradient(*one) == pytest.approx(slope, rel=1e-14)
        share = special.expit(-margin[k])
        assert loss.curvature(*one) == pytest.approx(share * special.expit(margin[k]), rel=1e-14)
        entropy = special.xlogy(share, share) + special.xlog1py(1 - share, -share)
        assert loss.conjugate(one[0], loss.gradient(*one), one[2]) == pytest.approx(
            entropy, rel=1e-12, abs=1e-15
        )
