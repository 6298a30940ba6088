"""Further proximal operators: NumPy and torch agree, and bad options are refused."""

import numpy as np
import pytest
import torch

from thresher.core import prox_nonconvex, prox_norms
from thresher.core.errors import OptionError

OPERATORS = {
    "mcp": lambda x: prox_nonconvex.mcp(x, 0.7, 0.5, 3.0),
    "mcp, long step": lambda x: prox_nonconvex.mcp(x, 4.0, 0.5, 3.0),
    "scad": lambda x: prox_nonconvex.scad(x, 0.7, 0.5, 3.7),
    "scad, long step": lambda x: prox_nonconvex.scad(x, 4.0, 0.5, 3.7),
    "log_sum": lambda x: prox_nonconvex.log_sum(x, 0.7, 0.5, 0.3),
    "lq": lambda x: prox_nonconvex.lq(x, 0.7, 0.5, 0.5),
    "simplex": lambda x: prox_norms.simplex(x, 1.5),
    "l1_ball": lambda x: prox_norms.l1_ball(x, 1.5),
    "l_inf": lambda x: prox_norms.l_inf(x, 1.5),
    "slope": lambda x: prox_norms.slope(x, 0.3 * (x - x) + 0.2),
    "k_support": lambda x: prox_norms.k_support(x, 0.5, 3),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
@pytest.mark.parametrize("seed", range(5))
def test_numpy_and_torch_agree(operator, seed):
    x = 2 * np.random.default_rng(seed).standard_normal(9)
    ours, theirs = operator(x), operator(torch.from_numpy(x))
    assert isinstance(ours, np.ndarray)
    assert isinstance(theirs, torch.Tensor)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_zero_stays_zero_and_precision_is_kept(operator):
    zero = operator(torch.zeros(4, dtype=torch.float32))
    assert zero.dtype == torch.float32
    if float(zero.abs().sum()) > 0:  # only the simplex does not contain zero
        assert float(zero.sum()) == pytest.approx(1.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: prox_nonconvex.mcp(x, 0.0, 1.0, 3.0),
        lambda x: prox_nonconvex.scad(x, 1.0, 1.0, 1.0),
        lambda x: prox_nonconvex.log_sum(x, 1.0, 1.0, 0.0),
        lambda x: prox_nonconvex.lq(x, 1.0, 1.0, 1.0),
        lambda x: prox_norms.simplex(x, 0.0),
        lambda x: prox_norms.l1_ball(x, -1.0),
        lambda x: prox_norms.k_support(x, 1.0, 0),
        lambda x: prox_norms.k_support(x, -1.0, 1),
    ],
)
def test_impossible_options_are_refused(call):
    with pytest.raises(OptionError):
        call(np.ones(3))
