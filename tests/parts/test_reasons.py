"""Parameters stay dense for what they are, and are counted once."""

import copy

import pytest
import torch
from small_models import llama
from torch import nn
from transformers import AutoModelForSequenceClassification

import thresher as th
from thresher.parts.coverage import cover
from thresher.parts.statistics import Statistics


def module(kind, leaf, shape=(16, 16)):
    def init(self):
        nn.Module.__init__(self)
        self.register_parameter(leaf, nn.Parameter(torch.randn(shape)))

    return type(kind, (nn.Module,), {"__init__": init})()


def reason(held):
    found = cover(nn.Sequential(held, nn.Linear(16, 16)))
    (name,) = (n for n, _ in held.named_parameters())
    return found.kept.get(f"0.{name}", "not understood" if f"0.{name}" in found.unknown else None)


@pytest.mark.parametrize(
    ("kind", "leaf"),
    [
        ("GatedMLP", "up"),
        ("Propagate", "w"),
        ("Aggregator", "weight"),
        ("NormalisedProjection", "weight"),
        ("NormLinear", "weight"),
        ("Mixer", "token_mixing"),
        ("Mixer", "bias_free_weight"),
        ("LowRank", "embed_out"),
    ],
)
def test_parts_of_names_are_no_reason(kind, leaf):
    assert reason(module(kind, leaf)) == "not understood"


@pytest.mark.parametrize(
    ("kind", "leaf", "why"),
    [
        ("MixtralTopKRouter", "weight", "router"),
        ("MoEGate", "weight", "router"),
        ("ConditionalRMSNorm", "weight", "norms and biases"),
        ("LayerNorm2d", "weight", "norms and biases"),
        ("Experts", "down_proj_bias", "norms and biases"),
        ("Attention", "relative_position_bias_table", "norms and biases"),
        ("Attention", "pos_bias_u", "norms and biases"),
        ("Encoder", "pos_embed", "embedding"),
        ("Encoder", "cls_token", "embedding"),
    ],
)
def test_exact_words_are(kind, leaf, why):
    assert reason(module(kind, leaf)) == why


def test_norms_of_several_axes_are_norms():
    found = cover(nn.Sequential(nn.Linear(16, 16), nn.LayerNorm((4, 16))))
    assert found.kept["1.weight"] == "norms and biases"


def counted(coverage):
    found = coverage.summary()
    parts = found["pruned"], sum(found["kept"].values()), sum(found["not_understood"].values())
    return sum(parts), found["parameters"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("include", [[], ["lm_head"]])
def test_shares_add_up_with_a_tied_head(tied, include):
    model = llama(tied=tied)
    total = sum(p.numel() for p in model.parameters())
    assert counted(cover(model, include=include)) == (total, total)


class OneMemory(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.m, self.b = (nn.Linear(16, 16, bias=False) for _ in range(3))
        self.b.weight.data = self.a.weight.data

    def forward(self, x):
        return self.b(torch.relu(self.m(torch.relu(self.a(x)))))


def test_two_parameters_on_one_memory_are_one():
    torch.manual_seed(0)
    model = OneMemory()
    coverage = cover(model)
    assert [layer.name for layer in coverage.layers] == ["a", "m"]
    assert coverage.layers[0].users == (model.a, model.b)
    assert counted(coverage) == (512, 512)


def test_they_are_pruned_once_with_the_inputs_of_both():
    torch.manual_seed(0)
    model, x = OneMemory(), torch.randn(64, 16)
    object_tied = copy.deepcopy(model)
    object_tied.b.weight = object_tied.a.weight
    for each in (model, object_tied):
        th.prune(each, "wanda", [x], density=0.5, progress=False)
    assert torch.equal(model.a.weight, object_tied.a.weight)
    assert torch.equal(model.b.weight, model.a.weight)


def test_parts_of_one_buffer_are_several():
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    flat = torch.cat([p.data.flatten() for p in model.parameters()])
    for index, parameter in enumerate(model.parameters()):
        parameter.data = flat[256 * index : 256 * (index + 1)].view(16, 16)
    assert len(cover(model).layers) == 2
    th.prune(model, "wanda", [torch.randn(8, 16)], density=0.5, progress=False)
    assert int(torch.count_nonzero(flat)) == 256


def test_random_numbers_do_not_depend_on_the_default_dtype():
    weight, statistics = torch.zeros(8, 8), Statistics("layer")
    usual = th.scores.Random()(weight, statistics)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(th.scores.Random()(weight, statistics), usual)
    finally:
        torch.set_default_dtype(torch.float32)


class Experts(nn.Module):
    """A router beside its experts, as a model of one's own may have it."""

    def __init__(self, outputs, router="router"):
        super().__init__()
        setattr(self, router, nn.Linear(16, outputs))
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))


class Stacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.ModuleDict({"wg": nn.Linear(16, 4)})
        self.up = nn.Parameter(torch.randn(4, 16, 16))
        self.out = nn.Linear(16, 16)


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        (Experts(4), ["router"]),
        (Experts(4, "gate"), ["gate"]),
        (nn.ModuleDict({"block": Experts(4)}), ["block.router"]),
        (Stacked(), ["gate.wg"]),
        # As many outputs as no list or stack has parts, and a name that says nothing.
        (Experts(8), []),
        (Experts(4, "projection"), []),
        (nn.ModuleDict({"gate": nn.Linear(16, 16), "mix": nn.Conv1d(16, 16, 3)}), []),
    ],
    ids=str,
)
def test_routers_are_found_without_a_configuration(model, kept):
    names = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert names - {layer.name for layer in cover(model, strict=False).layers} == set(kept)


def test_a_matrix_laid_flat_is_not_taken_for_a_bias():
    assert reason(module("Flat", "weight", (256,))) == "not understood"
    assert reason(module("Scaled", "scale", (16,))) == "norms and biases"
    assert reason(module("LayerNorm", "weight", (256,))) == "norms and biases"


@pytest.mark.parametrize("labels", [1, 3])
def test_what_tells_labels_apart_stays_dense(labels):
    config = llama(num_hidden_layers=1).config
    config.num_labels, config.pad_token_id = labels, 0
    model = AutoModelForSequenceClassification.from_config(config)
    found = cover(model)
    assert found.kept["score.weight"] == "output head"
    assert all(not layer.parameter.startswith("score") for layer in found.layers)
    # As many outputs inside the base model are no labels.
    config.intermediate_size = labels
    narrow = AutoModelForSequenceClassification.from_config(config)
    assert "model.layers.0.mlp.up_proj.weight" in {x.parameter for x in cover(narrow).layers}
    included = cover(model, include=["score"])
    assert "score.weight" in {layer.parameter for layer in included.layers}
