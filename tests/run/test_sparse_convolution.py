"""Convolutions that train sparse."""

from __future__ import annotations

import pytest
import torch
from convolution_cases import DENSITIES, SHAPES, sparse_case
from layout_contract import one_thread  # noqa: F401
from torch import nn
from training_contract import check_same_gradients_on_any_threads

from thresher.core.errors import LayerError, OptionError
from thresher.run.layouts.convolution import as_matrix
from thresher.run.layouts.support import Support
from thresher.run.packed.sparse_conv import SparseConv2d


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_gradients_equal_float64(shape, density, isa):
    weight, x, bias, geometry = sparse_case(shape, density)
    if 0 in weight.shape[:2]:
        pytest.skip("no gradient")
    top, _, left, _ = geometry.padding
    conv = nn.Conv2d(
        x.shape[1],
        weight.shape[0],
        geometry.kernel,
        geometry.stride,
        (top, left),
        geometry.dilation,
        geometry.groups,
    )
    conv.weight.data, conv.bias.data = weight, bias
    layer = SparseConv2d.from_conv(conv)
    assert torch.equal(layer.to_dense(), weight)
    exact_x = x.double().requires_grad_()
    exact = conv.double()(exact_x)
    grad = torch.randn(exact.shape)
    exact.backward(grad.double())
    x.requires_grad_()
    out = layer(x)
    out.backward(grad)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(out.double(), exact, **close)
    torch.testing.assert_close(x.grad.double(), exact_x.grad, **close)
    torch.testing.assert_close(layer.bias.grad.double(), conv.bias.grad, **close)
    at = (layer.support.rows, layer.support.columns)
    dense_grad = as_matrix(conv.weight.grad)
    torch.testing.assert_close(layer.values.grad.double(), dense_grad[at], **close)


def test_training_is_bit_identical_across_threads():
    torch.manual_seed(0)
    layer = SparseConv2d(16, 24, 3, padding=1)
    x = torch.randn(4, 16, 20, 20)
    check_same_gradients_on_any_threads(layer, x)


def test_convolution_trains_and_moves_like_the_masked_dense_one():
    torch.manual_seed(0)
    sparse = SparseConv2d(6, 8, 3, stride=2, padding=1, density=0.2)
    optimizer = torch.optim.Adam(sparse.parameters(), lr=0.01)
    dense = nn.Conv2d(6, 8, 3, stride=2, padding=1)
    dense.weight.data, dense.bias.data = sparse.to_dense(), sparse.bias.data.clone()
    dense_optimizer = torch.optim.Adam(dense.parameters(), lr=0.01)

    def train(steps):
        mask = (sparse.to_dense() != 0).float()
        for _ in range(steps):
            x = torch.randn(4, 6, 9, 9)
            for model, optim in ((sparse, optimizer), (dense, dense_optimizer)):
                optim.zero_grad()
                model(x).square().mean().backward()
                if model is dense:
                    dense.weight.grad *= mask
                optim.step()

    train(5)
    torch.testing.assert_close(sparse.to_dense(), dense.weight.data, rtol=1e-4, atol=1e-5)
    keep = torch.rand(len(sparse.support)) < 0.7
    free = (as_matrix(sparse.to_dense()) == 0).nonzero()[-5:]
    before = sparse.to_matrix()
    dropped = (sparse.support.rows[~keep], sparse.support.columns[~keep])
    before[dropped] = 0
    sparse.move(keep, free[:, 0], free[:, 1], optimizer)
    assert torch.equal(sparse.to_matrix(), before)
    assert optimizer.state[sparse.values]["exp_avg"].shape == sparse.values.shape
    sparse(torch.randn(4, 6, 9, 9)).square().mean().backward()
    assert sparse.values.grad.shape == sparse.values.shape


def test_gradient_of_candidates_to_grow():
    torch.manual_seed(0)
    layer = SparseConv2d(4, 6, 3, padding=1, density=0.3)
    x, grad = torch.randn(2, 4, 7, 7), torch.randn(2, 6, 7, 7)
    rows, columns = (layer.to_matrix() == 0).nonzero(as_tuple=True)
    candidates = layer.make_products(Support(rows, columns, layer.support.shape))
    exact = nn.grad.conv2d_weight(x, (6, 4, 3, 3), grad, padding=1)
    torch.testing.assert_close(
        candidates.value_gradient(x, grad), as_matrix(exact)[rows, columns], rtol=1e-4, atol=1e-4
    )


def test_bad_sparse_convolutions_are_refused():
    with pytest.raises(OptionError, match="groups=3"):
        SparseConv2d(4, 6, 3, groups=3)
    with pytest.raises(OptionError, match="density=0"):
        SparseConv2d(4, 6, 3, density=0)
    with pytest.raises(LayerError, match="4 float32 channels"):
        SparseConv2d(4, 6, 3)(torch.randn(1, 5, 8, 8))
    with pytest.raises(LayerError, match="65,536"):
        SparseConv2d(1 << 13, 2, 3)
