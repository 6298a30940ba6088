"""CFSP: which neurons stay, and how many in which block, against a transcription."""

import math

import pytest
import torch
from small_models import llama, tokens

import thresher as th
from thresher.core.errors import DataError
from thresher.core.remembered import remembered
from thresher.parts.rankings import ByScore
from thresher.parts.spreads import ByChange
from thresher.prune.unit_recipe import UnitRecipe


def wide_llama():
    model = llama(hidden_size=32, intermediate_size=128)
    with torch.no_grad():  # so that the blocks change the states by different angles
        for factor, layer in zip((1.0, 4.0, 2.0), model.model.layers, strict=True):
            layer.mlp.down_proj.weight.mul_(factor)
    return model


def seen(model):
    """Return angles of blocks, and root mean squares of what their last layers are given."""
    angles, norms, hooks = {}, {}, []
    for index, layer in enumerate(model.model.layers):

        def block(_, args, keywords, output, index=index):
            given = args[0] if args else keywords["hidden_states"]
            made = output[0] if isinstance(output, tuple) else output
            cosine = torch.cosine_similarity(given, made, dim=-1).double()
            angles[index] = float((cosine.acos() / math.pi).mean())

        def neurons(_, args, index=index):
            norms[index] = args[0].flatten(0, -2).square().mean(0).sqrt()

        hooks.append(layer.register_forward_hook(block, with_kwargs=True))
        hooks.append(layer.mlp.down_proj.register_forward_pre_hook(neurons))
    with torch.no_grad():
        model(tokens(), use_cache=False)
    for hook in hooks:
        hook.remove()
    return angles, norms


def test_blocks_lose_by_their_angles_and_neurons_by_their_worth():
    model = wide_llama()
    angles, norms = seen(model)
    small = th.prune(model, "cfsp", tokens(), density=0.6, progress=False)
    widths = [layer.mlp.down_proj.in_features for layer in small.model.layers]
    values = torch.tensor([angles[i] for i in range(3)], dtype=torch.float64)
    standard = (values - values.mean()) / values.std(correction=0)
    shares = 1 / (1 + standard.exp())
    lost = torch.tensor([128.0 - width for width in widths], dtype=torch.float64)
    torch.testing.assert_close(lost / lost.sum(), shares / shares.sum(), rtol=0, atol=0.01)
    assert len(set(widths)) == 3
    for index, (layer, whole) in enumerate(
        zip(small.model.layers, model.model.layers, strict=True)
    ):
        size = whole.mlp.down_proj.weight.detach().abs()
        worth = (size / size.sum(0) + size / size.sum(1, keepdim=True)).sum(0) * norms[index]
        kept = worth.topk(widths[index]).indices.sort().values
        assert torch.equal(layer.mlp.down_proj.weight, whole.mlp.down_proj.weight[:, kept])
        assert torch.equal(layer.mlp.up_proj.weight, whole.mlp.up_proj.weight[kept])


def test_heads_stay_and_the_record_says_why():
    small = th.prune(wide_llama(), "cfsp", tokens(), density=0.6, progress=False)
    assert small.model.layers[0].self_attn.o_proj.weight.shape == (32, 32)
    whole = remembered(small).structure["whole"]
    assert any("several columns" in reason for reason in whole.values())


def test_changes_ask_for_data_though_the_ranking_needs_none():
    recipe = UnitRecipe(ByScore(), ByChange(), density=0.6)
    with pytest.raises(DataError, match="needs calibration data"):
        th.prune(torch.nn.Sequential(torch.nn.Linear(8, 8)), recipe, example=torch.zeros(2, 8))
    model = wide_llama()
    small = th.prune(model, recipe, tokens(), progress=False)
    widths = [layer.mlp.down_proj.in_features for layer in small.model.layers]
    angles, _ = seen(model)
    assert sorted(range(3), key=lambda i: widths[i]) == sorted(range(3), key=lambda i: angles[i])
