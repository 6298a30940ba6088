"""Operators, layouts and sparsifiers together: dispatch, conversion and gradients."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from thresher.evidence.run import _sten as sten
from thresher.evidence.run._sten import (
    Format,
    LayoutLinear,
    Operator,
    Trained,
    add,
    linear,
    multiply,
    sparsify,
    to_dense,
    transpose,
)
from torch import Tensor, nn

from thresher.core.errors import LayerError, OptionError
from thresher.parts.patterns import Pattern, Unstructured
from thresher.run.layouts import Bitmask, Csr, NofM
from thresher.run.layouts.base import Layout
from thresher.run.packed.linear import PackedLinear

TRAINABLE = sorted(set(Layout.known()) - {"group-sparse-4bit", "int8-4x1"})


@pytest.fixture
def doubled():
    """An operator with implementations for one layout only."""
    operator = Operator("doubled", lambda matrix: 2 * matrix)
    yield operator
    del sten._OPERATORS["doubled"]


def stored(layout: str, shape=(24, 64), seed=0, dtype=torch.float32):
    kind = Layout.named(layout)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    weight *= torch.rand(shape, generator=generator) < 0.3
    return kind.from_dense(kind.example(weight.to(dtype)))


def test_dispatch_prefers_the_nearest_layout(doubled):
    doubled.implement(Bitmask)(lambda matrix: "bitmask")
    assert doubled(stored("bitmask")) == "bitmask"
    assert torch.equal(doubled(stored("csr")), 2 * stored("csr").to_dense())
    assert doubled.implementation(stored("csr")) is None

    class Special(Bitmask):
        """Inherits the implementation, then has its own."""

    special = Special.from_dense(torch.eye(4))
    assert doubled(special) == "bitmask"
    doubled.implement(Special)(lambda matrix: "special")
    assert doubled(special) == "special"


@pytest.mark.parametrize("first", ["csr", "bitmask", "n:m"])
def test_operators_on_mixed_operands(first):
    a, b, dense = stored(first), stored("csr", seed=1), torch.randn(24, 64)
    assert torch.equal(add(a, b), a.to_dense() + b.to_dense())
    assert torch.equal(multiply(a, dense), a.to_dense() * dense)
    assert torch.equal(transpose(a), a.to_dense().T)
    x = torch.randn(5, 64)
    assert torch.equal(linear(x, a), a.matmul(x))
    assert torch.equal(linear(x, dense), nn.functional.linear(x, dense))


def test_results_can_be_sparsified_again():
    total = add(stored("csr"), stored("csr", seed=1), into=Format("2:4", layout="n:m"))
    assert isinstance(total, NofM)
    exact = stored("csr").to_dense() + stored("csr", seed=1).to_dense()
    assert torch.equal(total.to_dense(), Format("2:4").sparsify(exact))


@pytest.mark.parametrize("layout", TRAINABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gather_reads_every_stored_value(layout, dtype):
    matrix = stored(layout, (37, 65), dtype=dtype)
    values = matrix.tensors()["values"]
    dense = matrix.to_dense()
    assert torch.equal(Trained(matrix).gather(dense), values)


@pytest.mark.parametrize("leading", [(), (6,), (2, 3), (2, 0)])
def test_gradient_of_values_with_any_leading_dimensions(leading):
    matrix = Trained(stored("csr", (9, 14)))
    dense = matrix.to_dense().detach().requires_grad_()
    x, grad = torch.randn(*leading, 14), torch.randn(*leading, 9)
    matrix.matmul(x).backward(grad)
    nn.functional.linear(x, dense).backward(grad)
    torch.testing.assert_close(matrix.values.grad, dense.grad[dense != 0])


@pytest.mark.parametrize("layout", TRAINABLE)
def test_gradients_equal_those_of_the_masked_dense(layout):
    matrix = Trained(stored(layout))
    values = matrix.values
    dense = matrix.layout.to_dense().requires_grad_()
    x = torch.randn(7, matrix.shape[1], requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    grad = torch.randn(7, matrix.shape[0])
    linear(x, matrix).backward(grad)
    nn.functional.linear(twin, dense).backward(grad)
    torch.testing.assert_close(x.grad, twin.grad)
    torch.testing.assert_close(values.grad, matrix.gather(dense.grad))
    values.grad, dense.grad = None, None
    add(matrix, dense.detach()).square().sum().backward()
    torch.testing.assert_close(values.grad, matrix.gather(4 * matrix.layout.to_dense()))


def test_operators_that_are_not_differentiable_are_not_used_in_training(doubled):
    doubled.implement(Csr)(lambda matrix: 2 * matrix.to_dense())
    matrix = Trained(stored("csr"))
    values = matrix.values
    doubled(matrix).sum().backward()
    assert torch.equal(values.grad, torch.full_like(values, 2))
    with torch.no_grad():
        assert not doubled(matrix).requires_grad


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32))


FORMATS = [
    Format("unstructured", 0.3, "csr"),
    Format("unstructured", 0.3, "bitmask"),
    Format("2:4", layout="n:m"),
    Format("2:4/outputs", layout="n:m:g"),
    Format("fan-in", 0.25, "fan-in"),
    Format("16x32", 0.5, "blocks"),
]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.layout)
def test_a_model_trains_as_the_masked_dense_one(form):
    sparse = sparsify(mlp(), {"*": form})
    dense = sparsify(mlp(), {"*": Format(form.pattern, form.density)})
    masks = [dense[i].weight.detach() != 0 for i in (0, 2)]
    assert isinstance(sparse[0], LayoutLinear)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (sparse, dense)]
    for _ in range(4):
        x, target = torch.randn(8, 64), torch.randn(8, 32)
        for model, optimizer in zip((sparse, dense), optimizers, strict=True):
            optimizer.zero_grad()
            (model(x) - target).square().mean().backward()
            if model is dense:
                for index, mask in zip((0, 2), masks, strict=True):
                    model[index].weight.grad *= mask
            optimizer.step()
    for index in (0, 2):
        torch.testing.assert_close(
            sparse[index].layout.to_dense().detach(), dense[index].weight.data, rtol=1e-4, atol=1e-6
        )
    packed = sparse[0].packed()
    assert isinstance(packed, PackedLinear)
    x = torch.randn(3, 64)
    torch.testing.assert_close(packed(x), sparse[0](x))


def test_a_copied_or_cast_layer_uses_its_own_values():
    layer = sparsify(nn.Sequential(nn.Linear(8, 8)), {"0": Format("2:4", layout="n:m")})[0]
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.values.zero_()
    x = torch.randn(2, 8)
    assert torch.equal(twin(x), twin.bias.expand(2, 8))
    assert not torch.equal(layer(x), twin(x))
    wide = layer.bfloat16()
    assert wide(x.bfloat16()).dtype == torch.bfloat16


def test_outputs_are_sparsified_and_gradients_follow():
    model = sparsify(mlp(), {}, {"1": Format("per-row", 0.25)})
    x = torch.randn(6, 64, requires_grad=True)
    hidden = model[:2](x)
    assert torch.equal((hidden != 0).sum(1) <= 24, torch.ones(6, dtype=torch.bool))
    hidden.sum().backward()
    expected = (hidden.detach() != 0).float() @ model[0].weight
    torch.testing.assert_close(x.grad, expected)


def test_a_pattern_of_ones_own_is_a_sparsifier():
    @dataclass(frozen=True)
    class Diagonal(Pattern):
        def quantum(self, shape):
            return min(shape)

        def mask(self, score: Tensor, keep: int) -> Tensor:
            return torch.eye(*score.shape, dtype=torch.bool)

        @property
        def spec(self):
            return "diagonal"

    kept = Format(Diagonal(), 0.25, "csr").sparsify(torch.ones(4, 4))
    assert torch.equal(kept.to_dense(), torch.eye(4))


def test_bad_requests_name_the_remedy():
    with pytest.raises(OptionError, match="add density="):
        Format("unstructured")
    with pytest.raises(OptionError, match="density=2"):
        Format(Unstructured(), 2)
    with pytest.raises(OptionError, match="no linear layer is called 'x'"):
        sparsify(mlp(), {"x": Format("2:4")})
    with pytest.raises(OptionError, match="leave layout="):
        sparsify(mlp(), {}, {"1": Format("2:4", layout="n:m")})
    with pytest.raises(OptionError, match="two operators are named 'add'"):
        Operator("add", torch.add)
    with pytest.raises(LayerError, match="no values that could be trained"):
        Trained(stored("group-sparse-4bit"))
    assert torch.equal(to_dense(torch.ones(2)), torch.ones(2))
