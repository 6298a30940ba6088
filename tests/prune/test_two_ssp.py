"""2SSP: how many attentions go, which ones, and that nothing but they and neurons does."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_models import bert, encoder_inputs, gpt2, llama, tokens
from torch import nn

import thresher as th
from thresher.core.errors import OptionError
from thresher.core.remembered import remembered
from thresher.parts.groups.find import find_groups
from thresher.parts.spreads import PerKind
from thresher.prune.two_ssp import TwoSSP
from thresher.prune.unit_search import find_attentions

RECIPE = TwoSSP(alpha=4.0)


def wide_llama(**changes):
    return llama(hidden_size=32, intermediate_size=128, **changes)


def silent(model):
    return remembered(model).structure.get("silent", [])


def smaller(model, density=0.4, data=None, **changes):
    recipe = replace(RECIPE, density=density, **changes)
    return th.prune(model, recipe, tokens() if data is None else data, progress=False)


def test_so_many_attentions_go_as_the_formula_says():
    model = wide_llama()
    block = model.model.layers[0]
    feed_forward = sum(p.numel() for p in block.mlp.parameters())
    attention = sum(p.numel() for p in block.self_attn.parameters())
    for density, alpha in ((0.4, 4.0), (0.7, 4.0), (0.6, 8.0)):
        expected = round(3 * (1 - density) ** (feed_forward / (alpha * attention)))
        small = smaller(model, density, alpha=alpha, spread=PerKind(multiple=8))
        assert len(silent(small)) == expected
        assert remembered(small).density == pytest.approx(density, abs=0.02)


def test_attentions_that_go_give_nothing_and_neurons_keep_one_width():
    small = smaller(wide_llama())
    gone = silent(small)
    assert len(gone) == 2
    for layer in small.model.layers:
        zero = [not p.any() for p in layer.self_attn.parameters()]
        assert zero == [f"model.layers.{layer.self_attn.layer_idx}.self_attn.o_proj" in gone] * 4
    assert small.config.num_key_value_heads == 2
    assert small.config.intermediate_size < 128
    kept = {r.name: r.kept for r in remembered(small).layers}
    assert kept[gone[0]] == 0


def test_training_leaves_what_went_as_it_is():
    small = smaller(wide_llama())
    small(input_ids=tokens(), labels=tokens()).loss.backward()
    for layer in small.model.layers:
        gone = f"model.layers.{layer.self_attn.layer_idx}.self_attn.o_proj" in silent(small)
        assert all(bool(p.grad.any()) != gone for p in layer.self_attn.parameters())


def test_the_attention_that_the_loss_misses_least_goes_first():
    model = wide_llama()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.mul_(1e-4)
    with torch.no_grad():
        dense = {tuple(row.tolist()): model(row[None]).logits for row in tokens()}

    def loss(tried, sample):
        known = dense[tuple(sample["input_ids"][0].tolist())]
        return (tried(**sample).logits - known).square().mean()

    recipe = replace(RECIPE, density=0.6, alpha=3.0)
    small = th.prune(model, recipe, tokens(), loss=loss, progress=False)
    assert silent(small) == ["model.layers.1.self_attn.o_proj"]


class _Tabled:
    """Three attentions of 10 weights beside 60 others, whose losses are known."""

    def __init__(self):
        self.groups = ()
        self.attentions = [SimpleNamespace(name=name, weights=10) for name in "abc"]
        self.losses = {"a": 2.0, "b": 1.0, "c": 3.0, "ba": 6.0, "bc": 5.0}

    def weights(self, removed):
        return 90

    def loss(self, removed, gone, most):
        return self.losses["".join(each.name for each in gone)]


def test_the_search_is_greedy():
    """The pair that is best by itself, of a and c, is not tried once b is gone."""
    seen = []

    def spread(groups, weights, target):
        seen.extend([weights({}), weights({"some": [0]}), target])
        return {"some": [0]}

    removed, gone = TwoSSP(alpha=2.0, spread=spread).choose(_Tabled(), 30)
    assert [each.name for each in gone] == ["b", "c"]
    # Units need not make up for what the attentions take.
    assert seen == [90, 70, 30]
    assert removed == {"some": [0]}


def test_the_neurons_that_are_active_most_stay():
    model = wide_llama()
    seen = {}
    hook = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda _, args: seen.setdefault("z", []).append(args[0].flatten(0, -2))
    )
    with torch.no_grad():
        model(tokens())
    hook.remove()
    small = smaller(model)
    width = small.config.intermediate_size
    active = torch.cat(seen["z"]).norm(dim=0).topk(width).indices.sort().values
    kept = small.model.layers[0].mlp.down_proj.weight
    assert torch.equal(kept, model.model.layers[0].mlp.down_proj.weight[:, active])


def test_the_folder_is_stock(tmp_path):
    from transformers import LlamaForCausalLM

    small = smaller(wide_llama())
    th.save(small, tmp_path / "small")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "small").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(tokens(1)).logits, small(tokens(1)).logits)


def test_a_loss_of_the_users_own_decides():
    losses = []

    def loss(model, sample):
        losses.append(sample)
        return model(**sample)[0].square().mean()

    small = th.prune(
        bert(), replace(RECIPE, density=0.4), encoder_inputs(), loss=loss, progress=False
    )
    assert silent(small)
    assert losses
    with pytest.raises(OptionError, match="has no loss"):
        th.prune(bert(), "flap", encoder_inputs(), density=0.5, loss=loss)
    with pytest.raises(OptionError, match="pass loss="):
        smaller(bert(), data=encoder_inputs())


@pytest.mark.parametrize("make", [wide_llama, gpt2, bert])
def test_attentions_are_found_by_what_they_do(make):
    model = make()
    # A mask that older versions keep and do not read leaves their GPT-2's attention whole.
    count = 0 if "transformer.h.0.attn.bias" in dict(model.named_buffers()) else 3
    example = {"input_ids": tokens(1)}
    with torch.no_grad():
        coupled = find_groups(model, lambda m: m(**example), example)
    layers = {name: [_Named(name)] for name in coupled.trace.axes}
    assert len(find_attentions(coupled, coupled.groups, layers)) == count


class _Named:
    def __init__(self, name):
        self.name = name


def test_a_channel_that_is_flattened_is_no_head():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)).eval()
    images = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        coupled = find_groups(net, lambda m: m(images), images)
    layers = {name: [_Named(name)] for name in coupled.trace.axes}
    assert coupled.groups
    assert not find_attentions(coupled, coupled.groups, layers)


@pytest.mark.parametrize("bad", [{"alpha": 0}, {"alpha": float("nan")}, {"most": 0}])
def test_options_out_of_range_are_named(bad):
    with pytest.raises(OptionError, match=next(iter(bad))):
        TwoSSP(**bad)
