"""The prox of every penalty: optimal by search, and the same compiled as in thresher.core."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.core import prox_norms
from thresher.core.errors import OptionError
from thresher.linear import penalties
from thresher.solve import _solve

from . import problems

WEIGHTS = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
SEPARABLE = problems.SEPARABLE | {
    "mcp-3": penalties.MCP(gamma=3.0),
    "scad-3": penalties.SCAD(gamma=3.0),
    "lq-two-thirds": penalties.Lq(q=2 / 3),
    "log-sum-sharp": penalties.LogSum(epsilon=0.01),
    "l1-weighted": penalties.L1(weights=WEIGHTS),
    "mcp-weighted": penalties.MCP(weights=WEIGHTS),
    "scad-weighted": penalties.SCAD(weights=WEIGHTS),
    "lq-weighted": penalties.Lq(weights=WEIGHTS),
    "l0-weighted": penalties.L0(weights=WEIGHTS),
}


@pytest.mark.parametrize("penalty", SEPARABLE.values(), ids=SEPARABLE.keys())
@given(
    x=st.lists(st.floats(-20, 20), min_size=5, max_size=5),
    step=st.floats(0.01, 20),
    alpha=st.floats(0.01, 5),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_separable_prox_beats_every_point_of_a_grid(penalty, x, step, alpha):
    penalty, x = penalty.scaled(alpha), np.array(x)
    z = penalty.prox(x, step)
    reached = 0.5 * (z - x) ** 2 + step * penalty.values(np.abs(z))
    grid = np.concatenate([np.linspace(-25, 25, 301), [0.0]])
    if penalty.positive:
        grid = grid[grid >= 0]
    for candidate in [*grid, x]:
        point = np.full(5, candidate) if np.ndim(candidate) == 0 else candidate
        value = 0.5 * (point - x) ** 2 + step * penalty.values(np.abs(point))
        if penalty.positive:
            value = np.where(point < 0, np.inf, value)
        lower, upper = penalty.bounds_of(5)
        if lower is not None:
            value = np.where((point < lower) | (point > upper), np.inf, value)
        assert np.all(reached <= value + 1e-9 * (1 + np.abs(value)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("penalty", SEPARABLE.values(), ids=SEPARABLE.keys())
def test_compiled_prox_is_that_of_core(penalty, dtype):
    rng = np.random.default_rng(0)
    for step in (0.1, 1.0, 5.0):
        for _ in range(20):
            x = (rng.standard_normal(5) * 4).astype(dtype)
            out = np.empty_like(x)
            _solve.prox(x, np.full(5, step, dtype), penalty.given(np.dtype(dtype), 5), out)
            tolerance = 1e-10 if dtype is np.float64 else 1e-4
            np.testing.assert_allclose(out, penalty.prox(x.astype(float), step), atol=tolerance)


COUPLED = problems.STRUCTURED | problems.grouped(6)


@pytest.mark.parametrize("penalty", COUPLED.values(), ids=COUPLED.keys())
@pytest.mark.parametrize("seed", range(5))
def test_coupled_prox_beats_its_neighbours(penalty, seed):
    rng = np.random.default_rng(seed)
    x = 2 * rng.standard_normal(6)
    step = float(rng.uniform(0.1, 1.5))
    z = penalty.prox(x, step)

    def objective(point):
        return 0.5 * np.sum((point - x) ** 2) + step * penalty.value(point)

    for size in (1e-4, 1e-2, 1.0):
        for _ in range(50):
            assert objective(z) <= objective(z + size * rng.standard_normal(6)) + 1e-10
    assert objective(z) <= min(objective(x), objective(np.zeros(6))) + 1e-10


@given(
    x=st.lists(st.floats(-100, 100), min_size=1, max_size=40),
    threshold=st.floats(0, 50),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_taut_string_satisfies_its_dual_conditions(x, threshold):
    x = np.array(x)
    z = penalties.TotalVariation(threshold).prox(x, 1.0)
    dual, jump = np.cumsum(x - z), np.diff(z)
    tolerance = 1e-9 * (1 + np.abs(x).sum())
    assert abs(dual[-1]) <= tolerance
    assert np.all(np.abs(dual) <= threshold + tolerance)
    at_wall = np.abs(dual[:-1] + threshold * np.sign(jump)) <= tolerance
    assert np.all(at_wall[np.abs(jump) > tolerance])


def test_k_support_interpolates_between_l1_and_l2():
    x = np.array([3.0, -1.0, 0.5, 0.0])
    assert penalties.KSupport(k=1).value(x) == pytest.approx(np.abs(x).sum() ** 2 / 2)
    assert penalties.KSupport(k=4).value(x) == pytest.approx(x @ x / 2)
    np.testing.assert_allclose(penalties.KSupport(k=4).prox(x, 1.0), x / 2)


def test_projections_land_on_their_sets():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(30) * 3
    inside = prox_norms.simplex(x, 2.0)
    assert inside.min() >= 0
    assert inside.sum() == pytest.approx(2.0)
    assert np.abs(prox_norms.l1_ball(x, 2.0)).sum() == pytest.approx(2.0)
    np.testing.assert_array_equal(prox_norms.l1_ball(x, 1e6), x)
    np.testing.assert_array_equal(prox_norms.l1_ball(x, 0.0), 0 * x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: penalties.L1(-1.0),
        lambda: penalties.MCP(gamma=0.0),
        lambda: penalties.SCAD(gamma=1.0),
        lambda: penalties.Lq(q=1.0),
        lambda: penalties.L1(weights=[-1.0]),
        lambda: penalties.Slope(lambdas=[1.0, 2.0]),
        lambda: penalties.Grouped(penalties.L1(), np.array([0, 2])),
        lambda: penalties.sparse_group_lasso(np.array([0, 1]), 1.0, 2.0),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(OptionError):
        make()
