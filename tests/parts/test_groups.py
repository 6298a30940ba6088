"""Coupled groups: what is found can be removed, and what cannot be removed is not found."""

import copy

import pytest
import torch
from architectures.groups import LISTED, NAMED, cells, documented, groups_of
from coupled_nets import NETS, DenseNet, Excited, FusedAttention, ResNet, UNet, built
from torch import nn

from thresher.assets.efficientnet_lite import EfficientNetLite0
from thresher.core.errors import LayerError
from thresher.parts.groups.shrink import shrink, silence


def outputs(model, run):
    result = run(model)
    if hasattr(result, "to_tuple"):
        result = result.to_tuple()
    return result[0] if isinstance(result, tuple) else result


def check_every_group(model, sample):
    """Remove units of each group by itself, then of all; return the groups."""
    coupled, run = groups_of(model, sample)
    halves = {}
    for group in coupled.groups:
        check_removed(model, coupled, run, {group.name: range(group.step)})
        halves[group.name] = range(max(group.size // 2 // group.step, 1) * group.step)
    if halves:
        assert check_removed(model, coupled, run, halves) > 1e-3, "what was removed did nothing"
    return coupled


def check_removed(model, coupled, run, removed):
    masked, small = copy.deepcopy(model), shrink(model, coupled, removed, run).module
    silence(masked, coupled, removed)
    expected = outputs(masked, run)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(outputs(small, run), expected, rtol=0, atol=1e-5 * scale)
    assert count(small) < count(model)
    return float((expected - outputs(model, run)).abs().max()) / float(expected.std())


def count(model):
    return sum(p.numel() for p in model.parameters())


def coupled_with(coupled, name):
    """Return by what is coupled with a parameter's axis how many slices a unit has of it."""
    group = next(g for g in coupled.groups if g.name == name)
    return {f"{m.parameter}[{m.axis}]": m.indices.shape[1] for m in group.members}


@pytest.mark.parametrize("kind", NETS)
def test_networks_work_without_any_group(kind):
    assert check_every_group(built(kind), kind.inputs).groups


@pytest.mark.parametrize("architecture", LISTED, ids=str)
def test_architectures_work_without_any_group(architecture):
    if architecture.missing:
        pytest.skip(architecture.missing)
    coupled = check_every_group(architecture.build(), architecture.samples(1)[0])
    assert cells(coupled) == documented()[architecture.name]


def test_all_named_architectures_are_there_and_documented():
    assert {each.name for each in LISTED} == NAMED
    assert list(documented()) == [each.name for each in LISTED]


def test_a_real_network_works_without_any_group():
    torch.manual_seed(0)
    model = EfficientNetLite0().eval()
    sample = torch.randn(1, 3, 64, 64)
    coupled, run = groups_of(model, sample)
    removed = {group.name: range(group.size // 2) for group in coupled.groups}
    check_removed(model, coupled, run, removed)
    # Of what can go, all but the first convolution's inputs and the classes.
    small = shrink(model, coupled, removed, run).module
    assert count(small) < 0.45 * count(model)


def test_what_stays_whole_is_in_memory_once_and_the_module_stays_as_it_is():
    net = built(ResNet)
    coupled, run = groups_of(net, ResNet.inputs)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    removed = {"blocks.0.conv1.weight[0]": [1, 3]}
    small = shrink(net, coupled, removed, run).module
    kept = coupled.kept(removed)
    assert 0 < len(kept) < len(before)
    for name, parameter in small.named_parameters():
        assert (parameter is net.get_parameter(name)) == (name not in kept)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_residual_stream_is_one_group():
    found = coupled_with(groups_of(built(ResNet), ResNet.inputs)[0], "stem.0.weight[0]")
    assert {"stem.0.weight[0]", "stem.1.running_var[0]", "blocks.0.conv2.weight[0]"} <= set(found)
    assert {"blocks.0.conv1.weight[1]", "blocks.1.shortcut.weight[1]"} <= set(found)
    assert "blocks.0.conv1.weight[0]" not in found


def test_what_is_concatenated_stays_apart():
    coupled, _ = groups_of(built(DenseNet), DenseNet.inputs)
    assert {group.size for group in coupled.groups} == {8, 4}
    second = next(
        g for g in coupled.groups if "convs.0.weight" in {m.parameter for m in g.producers}
    )
    columns = {m.parameter: m.indices[:, 0].tolist() for m in second.consumers}
    assert columns["convs.1.weight"] == columns["head.weight"] == [8, 9, 10, 11]


def test_groups_of_a_convolution_and_of_a_norm_go_whole():
    net = built(UNet)
    coupled, run = groups_of(net, UNet.inputs)
    found = coupled_with(coupled, "down2.weight[0]")
    assert found["down2.weight[0]"] == found["norm.weight[0]"] == 4
    small = shrink(net, coupled, {"down2.weight[0]": [1]}, run).module
    assert (small.norm.num_groups, small.norm.num_channels) == (3, 12)
    assert (small.middle.groups, small.middle.in_channels, small.middle.out_channels) == (3, 12, 12)


def test_channels_go_through_gates_and_depthwise_convolutions():
    net = built(Excited)
    coupled, run = groups_of(net, Excited.inputs)
    found = coupled_with(coupled, "conv.weight[0]")
    assert found["excite.weight[0]"] == found["squeeze.weight[1]"] == found["slope.weight[0]"] == 1
    assert found["depthwise.weight[0]"] == found["head.weight[1]"] == 2
    small = shrink(net, coupled, {"conv.weight[0]": [0, 5]}, run).module
    assert (small.depthwise.groups, small.depthwise.out_channels) == (22, 44)


def test_heads_of_fused_projections_are_found():
    net = built(FusedAttention)
    coupled, run = groups_of(net, FusedAttention.inputs)
    assert coupled_with(coupled, "qkv.weight[0]") == {
        "qkv.weight[0]": 24,
        "qkv.bias[0]": 24,
        "project.weight[1]": 8,
    }
    assert shrink(net, coupled, {"qkv.weight[0]": [2]}, run).module.heads == 3


def test_key_value_heads_go_with_the_queries_that_share_them():
    llama = next(each for each in LISTED if each.name == "Llama")
    coupled, run = groups_of(model := llama.build(), llama.samples(1)[0])
    assert coupled_with(coupled, "model.layers.0.self_attn.q_proj.weight[0]") == {
        "model.layers.0.self_attn.q_proj.weight[0]": 32,
        "model.layers.0.self_attn.k_proj.weight[0]": 16,
        "model.layers.0.self_attn.v_proj.weight[0]": 16,
        "model.layers.0.self_attn.o_proj.weight[1]": 32,
    }
    small = shrink(
        model, coupled, {"model.layers.0.mlp.gate_proj.weight[0]": range(32)}, run
    ).module
    assert small.model.layers[0].mlp.down_proj.in_features == 96
    assert small.model.layers[1].mlp.down_proj.in_features == 128
    assert "normalises" in coupled.pinned["model.embed_tokens.weight[1]"] or (
        "mean" in coupled.pinned["model.embed_tokens.weight[1]"]
    )


class _Own(nn.Module):
    inputs = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(16, 8)


class _Branching(_Own):
    def forward(self, x):
        hidden = self.a(x)
        if hidden.mean() > 0:
            return self.b(hidden)
        return self.c(hidden)


def test_a_branch_on_values_is_named_with_its_line():
    line = _Branching.forward.__code__.co_firstlineno + 2
    with pytest.raises(LayerError, match=rf"at \S+test_groups\.py:{line}, .* torch\.where"):
        groups_of(_Branching(), _Own.inputs)


class _Choosing(_Own):
    """Of two ways the input's whole numbers choose, as a router's do."""

    def forward(self, x):
        hidden = self.a(x)
        return self.b(hidden) if int(x.argmax()) >= 0 else self.c(hidden)


def test_what_another_way_may_read_stays_whole():
    coupled, _ = groups_of(_Choosing(), _Own.inputs)
    assert coupled.unreached == ("c.weight", "c.bias")
    assert not coupled.groups
    assert "may meet c.weight, which the pass does not read" in coupled.pinned["a.weight[0]"]


class _Sorted(_Own):
    def forward(self, x):
        return self.b(torch.fft.fft(self.a(x)).real)


class _Exponential(_Own):
    """The columns of a matrix that are one where its parameter's are zero."""

    def forward(self, x):
        return torch.sigmoid(self.a(x)) @ self.b.weight.exp().t()


class _Averaged(_Own):
    def forward(self, x):
        hidden = self.a(x)
        return self.b(hidden - hidden.mean(-1, keepdim=True))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (_Sorted, "_fft_r2c in _Sorted is not understood"),
        (_Exponential, "mm in _Exponential sums over it, and what was removed is not zero there"),
        (_Averaged, "mean in _Averaged is taken over it"),
    ],
)
def test_what_is_not_exact_stays_whole_and_says_why(kind, reason):
    coupled, _ = groups_of(kind(), _Own.inputs)
    assert not coupled.groups
    assert coupled.pinned["a.weight[0]"] == reason


class _Fixed(_Own):
    def forward(self, x):
        hidden = self.a(x).view(len(x), 16)
        return self.b(hidden) + self.c(hidden)


def test_what_does_not_run_with_less_stays_whole_and_says_why():
    coupled, _ = groups_of(_Fixed(), _Own.inputs)
    assert not coupled.groups
    assert "it fails (shape '[3, 16]' is invalid" in coupled.pinned["a.weight[0]"]


def test_recurrent_layers_stay_whole():
    net = nn.Sequential(nn.Linear(8, 16), nn.LSTM(16, 12))
    coupled, _ = groups_of(net.eval(), torch.randn(5, 2, 8))
    assert not coupled.groups
    assert "not understood" in coupled.pinned["0.weight[0]"]


def test_shared_layers_become_smaller_once():
    shared = nn.Linear(16, 16)
    net = nn.Sequential(nn.Linear(8, 16), shared, nn.ReLU(), shared, nn.Linear(16, 3)).eval()
    (group,) = check_every_group(net, _Own.inputs).groups
    assert group.size == 16


def test_a_group_that_is_unknown_or_would_go_whole_is_named():
    net = built(ResNet)
    coupled, run = groups_of(net, ResNet.inputs)
    with pytest.raises(LayerError, match=r"no group 'stem\.9'"):
        shrink(net, coupled, {"stem.9": [0]}, run)
    with pytest.raises(LayerError, match="has 16 units, and no unit 16"):
        shrink(net, coupled, {"stem.0.weight[0]": [16]}, run)
    with pytest.raises(LayerError, match=r"all 16 units .* leave one"):
        shrink(net, coupled, {"stem.0.weight[0]": range(16)}, run)


def test_the_module_itself_is_left_as_it_was():
    net = built(ResNet)
    before = copy.deepcopy(net.state_dict())
    check_every_group(net, ResNet.inputs)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
