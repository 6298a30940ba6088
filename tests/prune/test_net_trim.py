"""Net-Trim: its programme against a generic solver, and what it makes of a network."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from small_models import cnn, mlp, vectors
from torch import nn

from thresher.core.errors import DataError, LayerError, NumericalError, OptionError
from thresher.prune.net_trim import NetTrim, sparsest_response


def problem(seed, samples=12, columns=5, rows=2):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, columns, generator=generator, dtype=torch.float64)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    bias = 0.3 * torch.randn(rows, generator=generator, dtype=torch.float64)
    outputs = inputs @ weight.mT
    return weight, inputs, outputs, outputs + bias <= 0, -bias.expand_as(outputs)


def by_generic_solver(weight, inputs, outputs, free, limit, tolerance):
    """Return the weights of least l1 norm by sequential quadratic programming."""
    x, y, zero, top = (t.numpy() for t in (inputs, outputs, free, limit))
    radius = tolerance * np.linalg.norm(y[~zero])

    def made(parts):
        positive, negative = parts.reshape(2, *weight.shape)
        return x @ (positive - negative).T

    constraints = [
        {"type": "ineq", "fun": lambda p: radius**2 - np.sum((made(p) - y)[~zero] ** 2)},
        {"type": "ineq", "fun": lambda p: (top - made(p))[zero]},
    ]
    dense = weight.numpy()
    start = np.stack([np.maximum(dense, 0), np.maximum(-dense, 0)]).ravel()
    found = minimize(
        np.sum,
        start,
        jac=np.ones_like,
        bounds=[(0, None)] * len(start),
        constraints=constraints,
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert found.success, found.message
    positive, negative = found.x.reshape(2, *weight.shape)
    return positive - negative


@pytest.mark.parametrize("tolerance", [0.05, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_a_generic_solver(seed, tolerance):
    weight, inputs, outputs, free, limit = problem(seed)
    found = sparsest_response(inputs, outputs, free, limit, tolerance, weight, 5000)
    expected = by_generic_solver(weight, inputs, outputs, free, limit, tolerance)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)
    assert float(found.abs().sum()) == pytest.approx(np.abs(expected).sum(), rel=1e-3)


def test_a_planted_sparse_layer_is_found_from_fewer_samples_than_inputs():
    generator = torch.Generator().manual_seed(0)
    planted = torch.zeros(1, 100)
    planted[0, torch.randperm(100, generator=generator)[:4]] = 1.0
    inputs = torch.randn(60, 100, generator=generator)
    outputs = inputs @ planted.mT
    found = sparsest_response(
        inputs,
        outputs,
        outputs <= 0,
        torch.zeros_like(outputs),
        1e-3,
        torch.full((1, 100), 0.1),
        2000,
    )
    torch.testing.assert_close(found, planted, rtol=0, atol=0.02)


def test_responses_stay_within_the_tolerance_and_weights_go():
    model, data = mlp(), vectors(200)
    with torch.no_grad():
        hidden = torch.relu(model[0](data))
        after = torch.relu(model[2](hidden))
    trimmed = copy.deepcopy(model)
    densities = NetTrim(tolerance=0.2, iterations=1000).prune(trimmed, data)
    assert list(densities) == ["0", "2", "4"]
    for name, density in densities.items():
        weight = trimmed[int(name)].weight
        assert density == float((weight != 0).float().mean()) < 1
        assert torch.equal(trimmed[int(name)].bias, model[int(name)].bias)
    with torch.no_grad():
        # Each by itself is given the dense network's inputs.
        for inputs, layer, expected in ((data, 0, hidden), (hidden, 2, after)):
            found = torch.relu(trimmed[layer](inputs))
            assert float((found - expected).norm()) < 0.25 * float(expected.norm())


def test_what_a_relu_sets_to_zero_gives_freedom():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(16, 8))
    rectified = nn.Sequential(copy.deepcopy(plain[0]), nn.ReLU())
    norms = []
    for model in (rectified, plain):
        NetTrim(tolerance=0.2, iterations=1000).prune(model, vectors(100))
        norms.append(float(model[0].weight.detach().abs().sum()))
    assert norms[0] < 0.97 * norms[1]


def test_bad_input_is_named():
    for tolerance in (0, -0.1, float("nan")):
        with pytest.raises(OptionError, match=rf"tolerance {tolerance} is out of range"):
            NetTrim(tolerance)
    with pytest.raises(LayerError, match=r"_ConvolutionalNetwork is no nn\.Sequential"):
        NetTrim().prune(cnn(), vectors())
    with pytest.raises(LayerError, match=r"no nn\.Linear"):
        NetTrim().prune(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(1, 3, 8, 8))
    with pytest.raises(DataError, match="empty"):
        NetTrim().prune(mlp(), vectors(0))
    model = mlp()
    model[2].weight.data[0, 0] = torch.nan
    before = model[0].weight.clone()
    with pytest.raises(NumericalError, match="'2' has 1 NaN"):
        NetTrim().prune(model, vectors())
    assert torch.equal(model[0].weight, before)
