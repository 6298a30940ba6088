import pytest
import torch
from small_models import bert, cnn, encoder_inputs, gpt2, images, llama, mlp, tokens, vectors
from torch import nn

from thresher.core.errors import DataError
from thresher.stream.blocks import call, find_blocks


def causal_sample():
    return {"input_ids": tokens(1)}


CHAINS = [
    (mlp, vectors, ["0", "1", "2", "3", "4"]),
    (cnn, images, ["blocks.0", "blocks.1", "blocks.2"]),
    (llama, causal_sample, ["model.layers.0", "model.layers.1", "model.layers.2"]),
    (gpt2, causal_sample, ["transformer.h.0", "transformer.h.1", "transformer.h.2"]),
    (
        bert,
        lambda: encoder_inputs(1)[0],
        ["encoder.layer.0", "encoder.layer.1", "encoder.layer.2"],
    ),
]


@pytest.mark.parametrize(
    ("make", "sample", "names"), CHAINS, ids=lambda v: getattr(v, "__name__", None)
)
def test_chains_are_found(make, sample, names):
    assert find_blocks(make(), sample()).names == names


@pytest.mark.parametrize(
    ("make", "sample", "names"), CHAINS, ids=lambda v: getattr(v, "__name__", None)
)
@torch.no_grad()
def test_running_the_blocks_gives_the_models_hidden_state(make, sample, names):
    model, given = make(), sample()
    chain = find_blocks(model, given)
    seen = []
    last = model.get_submodule(names[-1])
    handle = last.register_forward_hook(lambda module, args, output: seen.append(output))
    call(model, given)
    handle.remove()
    expected = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    (state,) = chain.enter([given])
    for index in range(len(names)):
        state = chain.run(index, state)
    torch.testing.assert_close(state, expected)


def test_entering_leaves_no_hook_behind():
    model = llama()
    find_blocks(model, causal_sample()).enter([causal_sample()])
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
        assert "forward" not in module.__dict__


class Branched(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])

    def forward(self, x):
        return self.branches[0](x) + self.branches[1](x)


class Scaled(nn.Module):
    """Between its blocks happens what no block does."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])

    def forward(self, x):
        return self.blocks[1](2 * self.blocks[0](x))


class Repeated(Scaled):
    def forward(self, x):
        for _ in range(2):
            for block in self.blocks:
                x = block(x)
        return x


@pytest.mark.parametrize("make", [Branched, Scaled, Repeated, lambda: nn.Linear(16, 4)])
def test_what_is_no_chain_is_one_block(make):
    model = make()
    chain = find_blocks(model, vectors())
    assert chain.names == [""]
    (state,) = chain.enter([vectors()])
    torch.testing.assert_close(chain.run(0, state), model(vectors()))


def test_samples_of_another_kind_are_named():
    with pytest.raises(DataError, match="not str"):
        call(mlp(), "text")


def test_samples_with_other_masks_are_named():
    model = bert()
    padded = encoder_inputs(3)
    padded[2]["attention_mask"][0, 10:] = 0
    chain = find_blocks(model, padded[0])
    with pytest.raises(DataError, match=r"sample 2 .* BertModel other arguments"):
        chain.enter(padded)


def test_samples_of_other_lengths_are_named():
    model = llama()
    samples = [{"input_ids": tokens(1, 24)}, {"input_ids": tokens(1, 16)}]
    with pytest.raises(DataError, match=r"sample 1 .* of one length"):
        find_blocks(model, samples[0]).enter(samples)


def test_samples_may_have_several_rows():
    samples = [images(3, seed=s) for s in range(2)]
    assert len(find_blocks(cnn(), samples[0]).enter(samples)) == 2
