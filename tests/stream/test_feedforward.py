"""Feed-forward networks are found by what layers do, whatever they are called."""

import pytest
import torch
from small_models import bert, cnn, gpt2, images, llama, tokens
from torch import nn
from torch.nn import functional

from thresher.parts.coverage import find_layers
from thresher.stream.feedforward import find_feed_forward
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units


def found(model, samples, exclude=()):
    """Return the networks of every unit, by its name."""
    layers = find_layers(model, exclude=exclude)
    stream = Stream(InMemory(model), find_units(model, layers), samples)
    return {visit.unit.name: find_feed_forward(visit) for visit in stream.visits()}


def names(network):
    return [layer.name.rpartition(".")[2] for layer in network.layers]


def opt():
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=60,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        word_embed_proj_dim=16,
    )
    return OPTForCausalLM(config).eval()


@pytest.mark.parametrize(
    ("make", "layers", "activation"),
    [
        (llama, ["gate_proj", "up_proj", "down_proj"], "silu"),
        (lambda: llama(hidden_act="gelu"), ["gate_proj", "up_proj", "down_proj"], "gelu"),
        (lambda: llama().bfloat16(), ["gate_proj", "up_proj", "down_proj"], "silu"),
        (gpt2, ["c_fc", "c_proj"], "gelu_by_tanh"),
        (opt, ["fc1", "fc2"], "relu"),
    ],
    ids=["llama", "llama with gelu", "bfloat16", "gpt2", "opt"],
)
def test_every_block_has_one(make, layers, activation):
    networks = found(make(), [{"input_ids": row[None]} for row in tokens(2)])
    assert len(networks) >= 2
    for network in networks.values():
        assert [names(each) for each in network] == [layers]
        assert network[0].activation.__name__ == activation


def test_an_encoder_has_them_too():
    rows = tokens(2)
    networks = found(bert(), [{"input_ids": row[None]} for row in rows])
    whole = [each for network in networks.values() for each in network]
    assert [[layer.name.split(".", 3)[-1] for layer in each.layers] for each in whole] == [
        ["intermediate.dense", "output.dense"]
    ] * 3


class Block(nn.Module):
    def __init__(self, activation, twice=False):
        super().__init__()
        self.down, self.up = nn.Linear(24, 8), nn.Linear(8, 24)
        self.activation, self.twice = activation, twice

    def forward(self, x):
        hidden = self.activation(self.up(x))
        return x + self.down(hidden) + (self.down(hidden) if self.twice else 0)


class Chain(nn.Module):
    def __init__(self, activation, **options):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block(activation, **options) for _ in "ab")

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


DATA = [torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_what_changes_its_input_in_place_is_seen_as_it_was():
    networks = found(Chain(nn.ReLU(inplace=True)), DATA)
    assert [names(each) for network in networks.values() for each in network] == [
        ["up", "down"],
        ["up", "down"],
    ]


@pytest.mark.parametrize(
    "activation",
    [functional.hardswish, lambda x: x, lambda x: functional.relu(x).roll(1, -1)],
    ids=["hardswish", "none", "other columns"],
)
def test_an_activation_that_is_not_known_makes_none(activation):
    assert not any(found(Chain(activation), DATA).values())


def test_a_layer_that_is_called_twice_is_in_none():
    assert not any(found(Chain(functional.relu, twice=True), DATA).values())


def test_layers_that_are_not_pruned_and_other_models_have_none():
    assert not any(found(llama(), [tokens(2)], exclude=["*.down_proj"]).values())
    assert not any(found(cnn(), [images()]).values())
