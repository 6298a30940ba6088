"""The audit of neurons, on a model whose neurons are planted."""

import math

import pytest
import torch
from small_models import llama, tokens, vectors
from torch import nn

from thresher.activate.audit import NeuronAudit
from thresher.core.errors import DataError, LayerError, OptionError

#: Neurons: of token 3, of tokens 5 and 7, of positions from 12 on, of everything, and dead ones.
WIDTH, VOCABULARY, LENGTH = 40, 16, 24


class Planted(nn.Module):
    """States are tokens and positions as they are, so that neurons can be written by hand."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        with torch.no_grad():
            self.embedding.weight.copy_(torch.eye(VOCABULARY, WIDTH))

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        places = torch.arange(input_ids.shape[-1])
        x = x + nn.functional.one_hot(places + VOCABULARY, WIDTH)
        for block in self.blocks:
            x = block(x)
        return x[..., :VOCABULARY]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH)
        with torch.no_grad():
            for each in (self.up, self.down):
                each.weight.zero_()
                each.bias.zero_()
            self.up.weight[0, 3] = 1
            self.up.weight[1, [5, 7]] = 1
            self.up.weight[2, VOCABULARY + 12 :] = 1
            self.up.bias[3] = 1
            self.up.bias[4:] = -1
            self.down.weight[3, 0] = -0.01
            self.down.weight[[5, 7], 1] = -0.01
            self.down.weight[0, 3] = 0.001

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


def rows(count=30):
    return tokens(count, LENGTH) % VOCABULARY


def test_planted_neurons_are_found():
    for found in NeuronAudit(tokens=2).audit(Planted(), rows()):
        assert found.dead.tolist() == [False] * 4 + [True] * 4
        assert found.detectors.tolist() == [True, True] + [False] * 6
        assert found.triggers(0).tolist() == [3]
        assert set(found.triggers(1).tolist()) == {5, 7}
        assert found.positional.tolist() == [False, False, True] + [False] * 5
        # Half of the positions: one bit.
        assert float(found.information[2]) == pytest.approx(math.log(2))
        assert float(found.information[3]) == pytest.approx(0, abs=1e-9)
        assert int(found.by_token[:, 0].sum()) == int((rows() == 3).sum())
        # Both suppress what triggers them.
        suppressed = found.suppression(torch.eye(VOCABULARY, WIDTH))
        assert suppressed.tolist() == pytest.approx([0, 0.5 / (VOCABULARY - 1)])


def test_dead_neurons_can_go_without_a_difference():
    torch.manual_seed(0)
    model, data = llama(hidden_act="relu"), tokens()
    with torch.no_grad():
        for block in model.model.layers:  # gates that are never open
            block.mlp.gate_proj.weight[:5] = 0
        expected = model(input_ids=data).logits
        for found in NeuronAudit().audit(model, data):
            assert found.dead[:5].all()
            found.network.down.weight[:, found.dead] = 0
        assert torch.equal(model(input_ids=data).logits, expected)


def test_models_that_cannot_be_audited_are_named():
    with pytest.raises(LayerError, match=r"fire needs ReLUs.*'silu'.*'prosparse'"):
        NeuronAudit().audit(llama(), tokens())
    block = nn.Module()
    block.blocks = nn.ModuleList([Block()])
    block.forward = lambda x: block.blocks[0](x)
    with pytest.raises(DataError, match="needs rows of token ids"):
        NeuronAudit().audit(block, torch.cat([vectors()] * 3, dim=1)[:, :WIDTH])
    with pytest.raises(OptionError, match="coverage"):
        NeuronAudit(coverage=0)
