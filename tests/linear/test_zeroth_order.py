"""Zeroth-order Frank-Wolfe: it stays in the ball and finds sparse minima from values alone."""

import numpy as np
import pytest

from thresher.core.errors import DataError, OptionError
from thresher.linear import ZerothOrderFrankWolfe
from thresher.solve.penalties import L1, L1Ball, NuclearBall, Simplex

TRUTH = np.zeros(30)
TRUTH[[3, 11]] = [0.6, -0.4]


def loss(point, rng):
    feature = rng.standard_normal(30)
    return (feature @ (point - TRUTH) + 0.1 * rng.standard_normal()) ** 2


def test_approaches_a_planted_sparse_minimum():
    gaps = []
    for steps in (300, 6000):
        point = ZerothOrderFrankWolfe(L1Ball(1.0), max_iter=steps).minimise(loss, np.zeros(30))
        assert np.abs(point).sum() <= 1 + 1e-9
        gaps.append(float(np.sum((point - TRUTH) ** 2)))
    assert gaps[1] < 0.15 < 0.52  # zero has 0.52
    assert gaps[1] < gaps[0]


def test_same_seed_same_result_and_simplex():
    solver = ZerothOrderFrankWolfe(Simplex(1.0), max_iter=50, seed=3)
    start = np.eye(30)[0]
    point = solver.minimise(loss, start)
    np.testing.assert_array_equal(point, solver.minimise(loss, start))
    assert point.min() >= 0
    assert point.sum() == pytest.approx(1)


def test_a_nuclear_ball_gives_a_matrix_of_low_rank():
    solver = ZerothOrderFrankWolfe(NuclearBall(1.0), max_iter=3000)
    truth = np.outer([0.6, 0.0, 0.8], [0.0, 1.0, 0.0, 0.0])
    found = solver.minimise(lambda point, rng: float(np.sum((point - truth) ** 2)), 0 * truth)
    assert np.linalg.norm(found, "nuc") <= 1 + 1e-9
    assert np.sum((found - truth) ** 2) < 0.05


def test_slope_is_the_gradient_on_average():
    solver = ZerothOrderFrankWolfe(L1Ball(1.0), directions=20_000, difference=1e-3)
    gradient = np.arange(5.0)
    found = solver._slope(
        lambda point, rng: float(gradient @ point), np.zeros(5), 1, np.random.default_rng(0)
    )
    np.testing.assert_allclose(found, gradient, atol=0.2)


def test_bad_input():
    with pytest.raises(OptionError, match="directions must be a whole number of at least 1"):
        ZerothOrderFrankWolfe(L1Ball(1.0), directions=0)
    with pytest.raises(OptionError, match="ball must be a Ball, such as"):
        ZerothOrderFrankWolfe(L1(1.0))
    with pytest.raises(DataError, match="outside the ball"):
        ZerothOrderFrankWolfe(L1Ball(1.0)).minimise(loss, np.ones(30))
    with pytest.raises(DataError, match="must be finite"):
        ZerothOrderFrankWolfe(L1Ball(1.0)).minimise(lambda p, rng: np.nan, np.zeros(30))
