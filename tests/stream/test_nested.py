"""Samples of several lengths in one tensor: padded for torch's fused encoder, or nested."""

import copy

import pytest
import torch
from torch import nn

import thresher as th
from thresher.core.errors import ThresherError


class Encoder(nn.Module):
    def __init__(self, nested):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)

    def forward(self, x, padding):
        return self.encoder(x, src_key_padding_mask=padding)


class Ragged(nn.Module):
    """Hands its blocks nested tensors, or their rows one after another."""

    def __init__(self, nested):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(2)])
        self.nested = nested

    def forward(self, x):
        x = torch.nested.nested_tensor([x[:5], x[5:]], layout=self.nested) if self.nested else x
        for block in self.blocks:
            x = torch.relu(block(x))
        return x


def padded(seed):
    torch.manual_seed(seed)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    return {"x": torch.randn(2, 6, 32), "padding": padding}


def pruned(model, data):
    model = model.eval()
    th.prune(model, "wanda", copy.deepcopy(data), density=0.5, progress=False)
    return model


def assert_same(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("error:.*passes of the whole model")
def test_an_encoder_with_a_padding_mask_is_pruned_as_without_nested_tensors():
    data = [padded(seed) for seed in range(3)]
    model = pruned(Encoder(True), data)
    assert_same(model, pruned(Encoder(False), data))
    assert torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        model(**data[0])


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_blocks_may_be_given_nested_tensors(layout):
    data = [torch.randn(12, 16, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    try:
        found = pruned(Ragged(layout), data)
    except ThresherError as error:
        pytest.fail(str(error))
    assert_same(found, pruned(Ragged(None), data))
