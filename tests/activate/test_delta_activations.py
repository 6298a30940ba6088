"""Changes from frame to frame: rounded by hand, trained, and computed alone in a stream."""

import copy
import math

import pytest
import torch
from small_models import bert, images, llama, tokens
from torch import nn

from thresher.activate.delta_activations import DeltaActivations
from thresher.activate.delta_layers import DeltaConv2d, DeltaLinear
from thresher.core.errors import DataError, LayerError, OptionError
from thresher.parts.activations.attached import attached, counting
from thresher.parts.activations.rounded import Rounded

CONVOLUTIONS = [
    {},
    {"stride": 2, "dilation": (1, 2), "bias": False},
    {"padding": "same", "groups": 2},
    {"padding": (2, 0), "groups": 4},
]


def network(**options):
    torch.manual_seed(0)
    conv = {"padding": 1} | options
    body = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 8, 3, **conv)
    head = nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU()
    return nn.Sequential(*body, *head, nn.Linear(16, 5)).eval()


def clip(frames=6, seed=0):
    """Return a patch that moves over an image, whose other pixels flicker below a step."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.rand(3, 12, 12, generator=generator)
    moving = still.repeat(frames, 1, 1, 1)
    for t in range(frames):
        moving[t, :, t : t + 3, 4:7] = 1.5
    return moving + 1e-3 * torch.rand(moving.shape, generator=generator)


def test_rounding_and_its_gradients_by_hand():
    rounding = Rounded(torch.tensor(math.log(0.5)))
    x = torch.tensor([0.2, 0.3, -0.9, 2.0], requires_grad=True)
    found = rounding(x)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, -1.0, 2.0]))
    found.sum().backward()
    assert torch.equal(x.grad, torch.ones(4))
    # The step's derivative is whole number less ratio; the logarithm's is that times the step.
    expected = 0.5 * torch.tensor([0 - 0.4, 1 - 0.6, -2 + 1.8, 4 - 4.0]).sum()
    torch.testing.assert_close(rounding.log_step.grad, expected)
    assert rounding.dropped(x).tolist() == [True, False, False, False]
    short = copy.deepcopy(rounding).to(torch.bfloat16)
    assert short.log_step.dtype == torch.float32
    assert short(x.bfloat16()).dtype == torch.bfloat16
    again = Rounded.of(rounding.tensors(), rounding.settings)
    assert torch.equal(again.log_step, rounding.log_step)


def test_steps_are_shares_of_what_layers_are_given():
    model, data = network(), clip()
    deltas = DeltaActivations(step=0.25).attach(model, data)
    assert list(deltas.roundings) == ["0", "2", "6", "8"]
    expected = 0.25 * data.square().mean().sqrt()
    torch.testing.assert_close(deltas.roundings["0"].log_step.exp(), expected)
    with counting() as tallies, torch.no_grad():
        model(data)
    level = (data / expected).round()
    assert tallies["0.sparse_inputs"].zeros == int((level == 0).sum())


def test_the_penalty_by_hand():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    frames = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0], [3.0, 3.0]])
    deltas = DeltaActivations(weight=2.0).attach(model, frames)
    with torch.no_grad():
        deltas.roundings["0"].log_step.zero_()
    frames.requires_grad_()
    with deltas.penalised(frames=2) as penalty:
        model(frames)
        value = penalty()
        # Of the first clip 1 + 0, then 0 + 2; of the second 0 + 2, then 3 + 1.
        assert value.item() == 2.0 * (1 + 2 + 2 + 4) / 8
        assert penalty.density == (1 + 1 + 1 + 2) / 8
        value.backward()
        # A smaller change, and longer steps, cost less.
        assert float(deltas.roundings["0"].log_step.grad) == -value.item()
        assert frames.grad[3].tolist() == [0.25, 0.25]
        with pytest.raises(DataError, match="call the model first"):
            penalty()
        with pytest.raises(DataError, match=r"no whole number of clips of 2 frames"):
            model(frames[:3])


def test_training_with_it_makes_changes_fewer():
    densities = []
    for weight in (0.0, 0.3):
        model, data = network().train(), clip(8)
        deltas = DeltaActivations(weight=weight).attach(model, data)
        target = model(data).detach() + 1
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        with deltas.penalised(frames=8) as penalty:
            for _ in range(40):
                loss = (model(data) - target).square().mean() + penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        densities.append(penalty.density)
    assert densities[1] < 0.7 * densities[0]


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_a_stream_gives_what_the_whole_clip_does(options):
    model = network(**options)
    deltas = DeltaActivations(step=0.2).attach(model, clip())
    clips = [clip(40), clip(3, seed=1)]
    with torch.no_grad():
        expected = [model(each) for each in clips]
    stream = deltas.stream()
    assert not attached(model)
    for frames, outputs in zip(clips, expected, strict=True):
        stream.reset()
        for frame, output in zip(frames, outputs, strict=True):
            torch.testing.assert_close(model(frame[None])[0], output)
    assert 0.5 < stream.operands.sparsity < 1
    assert 0.1 < stream.products.sparsity < 1


def test_a_still_clip_multiplies_nothing_after_its_first_frame():
    model, frame = network(), clip(1)
    stream = DeltaActivations().attach(model, frame).stream()
    first = model(frame)
    done = stream.products.entries - stream.products.zeros
    assert done > 0
    for _ in range(3):
        assert torch.equal(model(frame), first)
    assert stream.products.entries - stream.products.zeros == done
    stream.reset()
    model(frame)
    assert stream.products.entries - stream.products.zeros == 2 * done


def test_products_are_those_of_what_changed():
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(6, 4)
    still = torch.ones(1, 1, 5, 5)
    stream = DeltaActivations().attach(nn.Sequential(conv).eval(), still).stream()
    moved = still.clone()
    moved[..., 0, 0] = 2
    for frame in (still, moved):
        stream.model(frame)
    # All 25 positions at first, then the four that see the corner.
    assert stream.products.zeros == (25 - 4) * conv.weight.numel()
    assert stream.operands.zeros == 24
    rows = torch.ones(1, 3, 6)
    stream = DeltaActivations().attach(nn.Sequential(linear).eval(), rows).stream()
    other = rows.clone()
    other[0, 1, 2], other[0, 1, 4] = 2, 2
    for frame in (rows, other):
        stream.model(frame)
    assert stream.products.zeros == (18 - 2) * 4


def test_a_module_in_two_places_is_streamed_in_both():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model, data = nn.Sequential(shared, nn.ReLU(), shared).eval(), torch.randn(5, 4)
    deltas = DeltaActivations().attach(model, data)
    with torch.no_grad():
        expected = model(data)
    deltas.stream()
    assert type(model[0]) is DeltaLinear
    assert model[0] is model[2]
    found = torch.cat([model(frame[None]) for frame in data])
    torch.testing.assert_close(found, expected)


def test_what_is_held_is_neither_saved_nor_copied():
    model, data = network(), clip(2)
    deltas = DeltaActivations().attach(model, data)
    before = {name.replace("sparse_inputs", "rounding") for name in model.state_dict()}
    deltas.stream()
    model(data[:1])
    assert set(model.state_dict()) == before
    assert copy.deepcopy(model)[0]._last is None
    # Converted, it begins anew; in its own precision it holds nothing of the other.
    assert model.double()(data[1:].double()).dtype == torch.float64


def test_a_transformer_is_streamed_by_the_patches_that_changed():
    model = bert()
    data = [{"input_ids": row[None]} for row in tokens(2)]
    deltas = DeltaActivations().attach(model, data)
    with torch.no_grad():
        expected = [model(**each).last_hidden_state for each in data]
    stream = deltas.stream()
    for frame, output in zip(data, expected, strict=True):
        torch.testing.assert_close(model(**frame).last_hidden_state, output)
    assert stream.products.entries


def test_rounded_inputs_are_saved_with_a_model(tmp_path):
    model, rows = llama(), tokens(2)
    deltas = DeltaActivations(step=0.3).attach(model, rows)
    with torch.no_grad():
        deltas.roundings["model.layers.0.mlp.up_proj"].log_step.add_(1)
        expected = model(input_ids=rows).logits
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        found = type(model).from_pretrained(tmp_path)(input_ids=rows).logits
    assert torch.equal(found, expected)


def test_mistakes_are_named():
    with pytest.raises(OptionError, match="step"):
        DeltaActivations(step=0)
    with pytest.raises(OptionError, match="weight"):
        DeltaActivations(weight=-1)
    model, data = network(), clip(4)
    with pytest.raises(DataError, match="'0' is given inputs of size 0"):
        DeltaActivations().attach(model, torch.zeros_like(data))
    assert not attached(model)
    with pytest.raises(LayerError, match="calls no linear layer or convolution of images"):
        DeltaActivations().attach(nn.Sequential(nn.Conv1d(3, 4, 3)), data[0, :, 0][None])
    deltas = DeltaActivations().attach(model, data)
    with pytest.raises(LayerError, match="take the dense model"):
        DeltaActivations().attach(model, data)
    with pytest.raises(OptionError, match="frames"), deltas.penalised(frames=0):
        pass
    handle = model[2].register_forward_hook(lambda *_: None)
    with pytest.raises(LayerError, match="layer '2' has hooks"):
        deltas.stream()
    handle.remove()
    odd = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"))
    with pytest.raises(LayerError, match=r"layer '0'.*exclude="):
        DeltaActivations().attach(odd, data).stream()
    assert attached(odd)
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(LayerError, match="holds no layer that rounds its inputs"):
        DeltaActivations().attach(nn.Linear(12, 2), data).stream()
    deltas.stream()
    with pytest.raises(LayerError, match="stream it once"):
        deltas.stream()


def test_a_stream_refuses_what_is_not_the_next_frame():
    model, data = network(), clip(4)
    stream = DeltaActivations().attach(model, data).stream()
    assert type(model[0]) is DeltaConv2d
    with pytest.raises(DataError, match=r"one frame at a time, a batch of 1, and is given \(4,"):
        model(data)
    for wrong in (images()[:1, :2], data[0]):
        with pytest.raises(DataError, match="one frame at a time"):
            model(wrong)
    model(data[:1])
    with pytest.raises(DataError, match=r"call reset\(\) before another clip"):
        model(data[:1, :, :8])
    with torch.no_grad():
        model[2].weight.mul_(2)
    with pytest.raises(LayerError, match=r"the weights of '2' changed.*reset\(\)"):
        model(data[1:2])
    stream.reset()
    model(data[1:2, :, :8])
    model.train()
    with pytest.raises(LayerError, match=r"cannot train; call model\.eval\(\)"):
        model(data[:1])
    layer = DeltaActivations().attach(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2)).stream()
    layer.model.eval()
    with pytest.raises(DataError, match="not finite"):
        layer.model(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(DataError, match="one frame at a time"):
        layer.model(torch.ones(1, 3))
