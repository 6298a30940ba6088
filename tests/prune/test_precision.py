"""Lower precision in the forward pass must not leak into the statistics."""

import torch
from model_folders import tiny_llama
from thresher.stream.blocks import find_blocks
from thresher.stream.hidden import HiddenStates

from thresher.parts.coverage import find_layers
from thresher.parts.moments import Gram
from thresher.prune.layerwise import BlockwisePruner
from thresher.prune.memory import as_recipe


def grams(autocast):
    model = tiny_llama(layers=2).eval()
    samples = [{"input_ids": row[None]} for row in torch.randint(0, 256, (1, 64))]
    chain = find_blocks(model, samples[0])
    recipe = as_recipe("sparsegpt").with_options(0.5)
    pruner = BlockwisePruner(chain, find_layers(model), recipe, autocast=autocast)
    hidden = HiddenStates(chain.enter(samples))
    found = pruner._statistics(0, hidden, recipe.needs)
    return {name: statistics[Gram].value for name, statistics in found.items()}


def test_second_moments_under_autocast_are_summed_in_float32():
    torch.manual_seed(0)
    exact = grams(None)
    torch.manual_seed(0)
    fast = grams(torch.bfloat16)
    for name, gram in fast.items():
        assert gram.dtype == torch.float32
        # One sample of 64 tokens: a product in bfloat16, divided by 64, would stay in bfloat16.
        assert not torch.equal(gram, gram.bfloat16().float()), name
        error = (gram - exact[name]).norm() / exact[name].norm()
        assert error < 0.01, (name, error)
