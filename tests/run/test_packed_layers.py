"""Packed layers in the hands of code that expects dense ones."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from layout_contract import one_thread, random_weight  # noqa: F401
from torch import nn

import thresher
from thresher.core.errors import LayerError
from thresher.run.layouts import Csr
from thresher.run.layouts.base import Layout
from thresher.run.layouts.handles import held
from thresher.run.packed.conv import PackedConv2d
from thresher.run.packed.linear import PackedLinear

BACKENDS = ("eager", "aot_eager")


def sparse_linear(dtype=torch.float32) -> nn.Linear:
    linear = nn.Linear(64, 48)
    linear.weight.data = random_weight((48, 64), 0.3, torch.float32, 0)
    return linear.to(dtype).requires_grad_(False)


def packed_linear(dtype=torch.float32) -> tuple[nn.Linear, PackedLinear]:
    torch.manual_seed(0)
    linear = sparse_linear(dtype)
    return linear, PackedLinear.from_linear(linear, Csr)


def packed_conv() -> tuple[nn.Conv2d, PackedConv2d]:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1).requires_grad_(False)
    conv.weight *= torch.rand_like(conv.weight) < 0.3
    packed = PackedConv2d.from_conv(conv, Csr)
    packed.low = 0.0
    return conv, packed


# --- weight


def test_a_weight_tells_its_shape_without_being_made(monkeypatch):
    linear, packed = packed_linear(torch.bfloat16)
    monkeypatch.setattr(Csr, "to_dense", lambda self: pytest.fail("the weight was unpacked"))
    weight = packed.weight
    assert isinstance(weight, torch.Tensor)
    assert weight.shape == linear.weight.shape
    assert (weight.dtype, weight.device) == (torch.bfloat16, linear.weight.device)
    assert weight.numel() == 48 * 64
    assert not weight.requires_grad
    assert "48, 64" in repr(weight)


def test_a_weight_computes_as_the_dense_one():
    linear, packed = packed_linear()
    x = torch.randn(3, 64, requires_grad=True)
    out = nn.functional.linear(x, packed.weight, packed.bias)
    assert type(out) is torch.Tensor
    torch.testing.assert_close(out, linear(x))
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, linear.weight.sum(0).expand(3, 64))
    assert torch.equal(x @ packed.weight.T, x @ linear.weight.T)
    assert torch.equal(packed.weight, linear.weight)
    assert torch.equal(packed.weight[3:5, ::2], linear.weight[3:5, ::2])
    assert packed.weight.tolist() == linear.weight.tolist()
    assert (packed.weight.numpy() == linear.weight.numpy()).all()
    for twin in (copy.deepcopy(packed.weight), pickle.loads(pickle.dumps(packed.weight))):
        assert type(twin) is torch.Tensor
        assert torch.equal(twin, linear.weight)
    conv, packed_images = packed_conv()
    assert torch.equal(packed_images.weight, conv.weight)
    assert packed_images.weight.shape == conv.weight.shape


@pytest.mark.parametrize(
    "write",
    [
        lambda layer: layer.weight.mul_(2),
        lambda layer: nn.init.normal_(layer.weight),
        lambda layer: layer.weight.copy_(torch.zeros(48, 64)),
        lambda layer: layer.weight.data.zero_(),
        lambda layer: layer.weight.detach().T[0].fill_(1),
        lambda layer: layer.weight.__setitem__(0, 0),
        lambda layer: [row.zero_() for row in layer.weight],
        lambda layer: torch._foreach_mul_([layer.weight], 2.0),
        lambda layer: torch.zeros(48, 64, out=layer.weight),
        lambda layer: setattr(layer.weight, "data", torch.zeros(48, 64)),
        lambda layer: layer.weight.requires_grad_(),
        lambda layer: nn.Parameter(layer.weight),
        lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(48, 64))),
        lambda layer: setattr(layer, "weight", torch.zeros(48, 64)),
    ],
)
def test_writing_to_a_weight_is_refused(write):
    linear, packed = packed_linear()
    with pytest.raises(LayerError, match="is a copy"):
        write(packed)
    assert torch.equal(packed.weight, linear.weight)


def test_optimizers_refuse_a_weight():
    with pytest.raises(ValueError, match="non-leaf"):
        torch.optim.SGD([packed_linear()[1].weight], 0.1)


def test_an_encoder_of_torch_keeps_its_outputs():
    """nn.TransformerEncoder reads the weights of its layers to choose a path."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter *= torch.rand_like(parameter) < 0.4
    x = torch.randn(2, 8, 64)
    expected = model(x)
    packed = thresher.pack(model, batch=(1,), repeats=1, gain=1e-9, show=False)
    assert isinstance(packed.layers[0].linear1, PackedLinear)
    torch.testing.assert_close(packed(x), expected, rtol=1e-4, atol=1e-5)
    compiled = torch.compile(packed, backend="eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)


# --- copies and files


@pytest.mark.parametrize("name", sorted(Layout.known()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts_are_pickled_through_their_tensors(name, dtype):
    layout = Layout.named(name)
    matrix = layout.from_dense(layout.example(random_weight((32, 128), 0.3, dtype, 0)))
    twin = pickle.loads(pickle.dumps(matrix))
    assert type(twin) is type(matrix)
    assert (twin.shape, twin.dtype, twin.settings) == (matrix.shape, matrix.dtype, matrix.settings)
    x = torch.randn(3, 128).to(dtype)
    assert torch.equal(twin.matmul(x), matrix.matmul(x))
    assert twin.handle != matrix.handle


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded])
def test_copies_keep_everything(copied):
    for packed, x in (
        (packed_linear()[1], torch.randn(3, 64)),
        (packed_conv()[1], torch.randn(2, 6, 9, 9)),
    ):
        packed.note = "mine"
        packed.eval()
        twin = copied(packed)
        assert torch.equal(twin(x), packed(x))
        assert (twin.note, twin.training) == ("mine", False)
        twin.layout.tensors()["values"].zero_()
        assert not torch.equal(twin(x), packed(x)), "the copy shares memory"


def test_layers_that_share_a_layout_share_it_in_a_copy():
    _, packed = packed_linear()
    model = copy.deepcopy(nn.ModuleList([packed, PackedLinear(packed.layout)]))
    assert model[0].layout is model[1].layout
    assert model[0].layout is not packed.layout


def test_state_dict_round_trip_takes_the_layers_dtype():
    _, packed = packed_linear(torch.bfloat16)
    _, other = packed_linear()
    other.load_state_dict(packed.state_dict())
    assert other.layout.dtype == torch.float32
    x = torch.randn(3, 64).bfloat16()
    torch.testing.assert_close(other(x.float()), packed(x).float(), rtol=2e-2, atol=2e-2)


# --- graphs


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [packed_linear, packed_conv])
def test_compiled_layers_equal_the_others(make, backend):
    dense, packed = make()
    size = (64,) if make is packed_linear else (6, 9, 9)
    compiled = torch.compile(packed, backend=backend, fullgraph=True)
    for batch in (2, 5):
        x = torch.randn(batch, *size, requires_grad=True)
        expected = dense(x) if make is packed_linear else dense(x).clamp(min=0)
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (compiled(x), expected)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_compiled_layers_follow_their_weights():
    _, packed = packed_linear()
    compiled = torch.compile(packed, backend="eager")
    x = torch.randn(2, 64)
    torch.testing.assert_close(compiled(x), packed(x))
    state = copy.deepcopy(packed).state_dict()
    state["weight_values"] *= 2
    packed.load_state_dict(state)
    torch.testing.assert_close(compiled(x), packed(x))
    packed.bfloat16()
    torch.testing.assert_close(compiled(x.bfloat16()), packed(x.bfloat16()))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [packed_linear, packed_conv])
def test_traced_and_exported_layers_equal_the_others(make):
    _, packed = make()
    x = torch.randn(2, *((64,) if make is packed_linear else (6, 9, 9)))
    traced = torch.jit.trace(packed, x)
    more = torch.cat([x, 2 * x])
    torch.testing.assert_close(traced(more), packed(more))
    exported = torch.export.export(packed, (x,)).module()
    torch.testing.assert_close(exported(2 * x), packed(2 * x))


def test_graphs_without_their_layout_say_so():
    _, packed = packed_linear()
    handle = packed.layout.handle
    assert held(handle) is packed.layout
    del packed
    with pytest.raises(LayerError, match=r"not in this process.* before it is packed"):
        torch.ops.thresher.multiply(torch.randn(2, 64), None, handle, 48)


def test_a_compiled_model_is_packed():
    torch.manual_seed(0)
    model = nn.Sequential(sparse_linear(), nn.ReLU()).eval()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 64)
    expected = compiled(x)
    thresher.pack(compiled, batch=(1,), repeats=1, gain=1e-9, show=False)
    assert isinstance(model[0], PackedLinear)
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
