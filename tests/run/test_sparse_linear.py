"""Sparse training: gradients, moves and optimizer state."""

from __future__ import annotations

import pytest
import torch
from layout_contract import one_thread  # noqa: F401
from torch import nn
from training_contract import check_same_gradients_on_any_threads

from thresher.core.errors import LayerError, OptionError
from thresher.run.layouts.support import Support
from thresher.run.packed.sparse_linear import LinearProducts, SparseLinear


@pytest.mark.parametrize("batch", [0, 1, 3, 17, 130])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_all_gradients_equal_float64(isa, batch, density):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(37, 53, generator=generator)
    weight *= torch.rand(37, 53, generator=generator) < density
    layer = SparseLinear.from_dense(weight, torch.randn(37, generator=generator))
    x = torch.randn(batch, 53, generator=generator, requires_grad=True)
    grad = torch.randn(batch, 37, generator=generator)
    out = layer(x)
    out.backward(grad)
    exact = x.detach().double() @ weight.double().T + layer.bias.double()
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        x.grad.double(), grad.double() @ weight.double(), rtol=1e-5, atol=1e-5
    )
    dense_grad = grad.double().T @ x.detach().double()
    at = (layer.support.rows, layer.support.columns)
    torch.testing.assert_close(layer.values.grad.double(), dense_grad[at], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias.grad, grad.sum(0))


def test_trains_like_the_masked_dense_layer():
    torch.manual_seed(0)
    sparse = SparseLinear(40, 30, density=0.2)
    dense = nn.Linear(40, 30)
    dense.weight.data = sparse.to_dense()
    dense.bias.data = sparse.bias.data.clone()
    mask = (dense.weight != 0).float()
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (sparse, dense)]
    for _ in range(10):
        x, target = torch.randn(16, 40), torch.randn(16, 30)
        for model, optimizer in zip((sparse, dense), optimizers, strict=True):
            optimizer.zero_grad()
            (model(x) - target).square().mean().backward()
            if model is dense:
                dense.weight.grad *= mask
            optimizer.step()
    torch.testing.assert_close(sparse.to_dense(), dense.weight.data, rtol=1e-4, atol=1e-5)
    assert optimizers[0].state[sparse.values]["exp_avg"].shape == sparse.values.shape


def test_move_carries_values_and_optimizer_state():
    torch.manual_seed(0)
    layer = SparseLinear(20, 10, density=0.25)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 20)).square().sum().backward()
    optimizer.step()
    before = layer.to_dense()
    moments = torch.zeros(10, 20)
    at = (layer.support.rows, layer.support.columns)
    moments[at] = optimizer.state[layer.values]["exp_avg"]
    keep = torch.rand(len(layer.support)) < 0.6
    free = (before == 0).nonzero()[-7:]
    expected = before.clone()
    dropped = (layer.support.rows[~keep], layer.support.columns[~keep])
    expected[dropped] = 0
    moments[dropped] = 0
    layer.move(keep, free[:, 0].flip(0), free[:, 1].flip(0), optimizer)
    assert torch.equal(layer.to_dense(), expected)
    assert len(layer.support) == int(keep.sum()) + 7
    at = (layer.support.rows, layer.support.columns)
    assert torch.equal(optimizer.state[layer.values]["exp_avg"], moments[at])
    layer(torch.randn(4, 20)).square().sum().backward()
    optimizer.step()


def test_gradient_at_candidates():
    torch.manual_seed(0)
    x, grad = torch.randn(8, 20), torch.randn(8, 10)
    rows, columns = (torch.rand(10, 20) < 0.3).nonzero(as_tuple=True)
    found = LinearProducts(Support(rows, columns, (10, 20))).value_gradient(x, grad)
    torch.testing.assert_close(found, (grad.T @ x)[rows, columns])


def test_bit_identical_across_threads():
    torch.manual_seed(0)
    layer = SparseLinear(200, 300, density=0.1)
    x = torch.randn(50, 200)
    check_same_gradients_on_any_threads(layer, x)


def test_bad_input_is_refused():
    with pytest.raises(OptionError, match="density=0"):
        SparseLinear(4, 4, density=0)
    with pytest.raises(LayerError, match="without repeats"):
        Support(torch.tensor([0, 0]), torch.tensor([1, 1]), (2, 2))
    with pytest.raises(LayerError, match="inside"):
        Support(torch.tensor([0]), torch.tensor([2]), (2, 2))
    with pytest.raises(LayerError, match="4 float32 inputs"):
        SparseLinear(4, 4)(torch.randn(2, 5))
