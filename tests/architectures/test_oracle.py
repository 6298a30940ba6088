"""The oracle itself: right on cases worked out by hand, and quick to see what is wrong."""

import copy
import inspect

import pytest
import torch
from torch import nn

from . import oracle
from .models import ARCHITECTURES

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


def kept(mask):
    return [row.nonzero().flatten().tolist() for row in mask]


def test_two_layers_worked_out_by_hand():
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[0].weight.data = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]])
    model[1].weight.data = torch.tensor([[5.0, 3], [5, 4.5]])
    # Columns have norms 1, 3, 1 and 1/2; scores are 1 6 3 2 and 4 9 2 1/2.
    samples = [{"input": torch.diag(torch.tensor([1.0, 3, 1, 0.5]))}]
    found = oracle.wanda(model, samples)
    assert kept(found.masks["0.weight"]) == [[1, 2], [0, 1]]
    # The pruned first layer gives 0 6 3 0 and 4 9 0 0: norms 6.71 and 9.85, scores 33.5 29.5
    # and 33.5 44.3.
    assert kept(found.masks["1.weight"]) == [[0], [1]]
    assert found.units == [["0.weight"], ["1.weight"]]
    assert model[0].weight.ne(0).all(), "the model itself is left as it is"


def test_a_layer_sees_the_outputs_of_pruned_ones():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[3.0, 2.9], [4, 0.1]])
    model[1].weight.data = torch.tensor([[1.0, 1]])
    # Dense, the first output is 5.9 against 4.1; with 2.9 removed it is 3 against 4.
    found = oracle.wanda(model, [{"input": torch.ones(1, 2)}])
    assert kept(found.masks["1.weight"]) == [[1]]


def test_samples_add_up():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, 1.0]])
    samples = [{"input": torch.tensor([[3.0, 4]])}, {"input": torch.tensor([[4.0, 2]])}]
    assert kept(oracle.wanda(model, samples).masks["0.weight"]) == [[0]]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_a_matrix_of_its_patches(groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=groups, bias=False)
    x = torch.randn(2, 4, 9, 9)
    patches = nn.functional.unfold(x, 3, dilation=2, padding=1, stride=2)
    norms = patches.double().square().sum((0, 2)).reshape(groups, 1, -1)
    seen = oracle.watch(layer, [{"input": x}])
    (use,) = seen.uses["weight"].values()
    squares = use.squares.movedim(-1, 0).reshape(groups, 6 // groups, -1)
    torch.testing.assert_close(squares, norms.expand_as(squares))


class _Routed(nn.Module):
    """Three experts in one parameter: tokens go by their sign to one of two."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(torch.tensor([[[1.0, 2]], [[1.0, 2]], [[1.0, 2]]]))

    def forward(self, x):
        out = torch.zeros(len(x), 1)
        for expert, chosen in enumerate((x[:, 0] > 0, x[:, 0] < 0)):
            out[chosen] = nn.functional.linear(x[chosen], self.experts[expert])
        return out


def test_an_expert_is_given_its_own_tokens_and_one_without_is_not_covered():
    x = torch.tensor([[5.0, 1], [-1, 1], [-1, 2]])
    found = oracle.wanda(_Routed(), [{"x": x}])
    assert kept(found.masks["experts"][:2].flatten(0, 1)) == [[0], [1]]
    assert found.covered["experts"].flatten(1).all(1).tolist() == [True, True, False]


@pytest.mark.parametrize("name", ["Llama", "BERT", "Whisper", "Qwen2-VL"])
def test_hooks_on_modules_see_the_same_inputs(name):
    model, samples = BY_NAME[name].build(), BY_NAME[name].samples()
    sums, handles = {}, []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):

            def add(module, args, path=path):
                squares = args[0].double().square().flatten(0, -2).sum(0)
                sums[f"{path}.weight"] = sums.get(f"{path}.weight", 0) + squares

            handles.append(module.register_forward_pre_hook(add))
    with torch.no_grad():
        for sample in samples:
            model(**sample)
    for handle in handles:
        handle.remove()
    uses = oracle.watch(model, samples).uses
    assert len(sums) > 10
    for path, squares in sums.items():
        # The head is tied, and goes by the embedding's name.
        if path in uses:
            (use,) = uses[path].values()
            torch.testing.assert_close(use.squares.flatten(), squares)


def test_a_cache_that_leaks_is_noticed():
    from transformers import DynamicCache

    model, samples = BY_NAME["Llama"].build(), BY_NAME["Llama"].samples()
    taken = inspect.signature(model.model.forward).parameters
    name = "past_key_values" if "past_key_values" in taken else "cache"
    cache = DynamicCache()
    names = oracle.matrices(model, oracle.watch(model, samples))
    first = oracle.units(model, names)[0]
    leaky = copy.deepcopy(model)
    oracle.prune_rows(oracle.watch(leaky, [{**s, name: cache} for s in samples]), first)
    assert (
        oracle.wanda(model, samples, choices=dict.fromkeys(first, oracle.Choice(0))).total(leaky)
        < 0.98
    )
    alone = copy.deepcopy(model)
    oracle.prune_rows(oracle.watch(alone, samples), first)
    assert (
        oracle.wanda(model, samples, choices=dict.fromkeys(first, oracle.Choice(0))).total(alone)
        == 1
    )


def test_one_wrong_weight_is_noticed():
    model, samples = BY_NAME["BERT"].build(), BY_NAME["BERT"].samples()
    found = oracle.wanda(model, samples)
    for name, mask in found.masks.items():
        model.get_parameter(name).data *= mask
    assert found.total(model) == 1
    weight = model.encoder.layer[1].output.dense.weight
    weight.data[0, weight[0].nonzero()[0]] = 0
    assert 0.9999 < found.total(model) < 1
    assert [n for n, s in found.agreement(model).items() if s < 1] == [
        "encoder.layer.1.output.dense.weight"
    ]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("T5", ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"]),
        ("OPT", ["project_in", "layers.0", "layers.1", "layers.2", "project_out"]),
        ("BERT", ["layer.0", "layer.1", "layer.2", "pooler"]),
    ],
)
def test_units_are_blocks_and_single_layers_in_the_order_in_which_they_run(name, wanted):
    found = oracle.wanda(BY_NAME[name].build(), BY_NAME[name].samples(1)).units
    assert len(found) == len(wanted)
    for unit, part in zip(found, wanted, strict=True):
        assert all(part in parameter for parameter in unit)


def test_units_may_be_pruned_in_parts_but_not_across_blocks():
    model, samples = BY_NAME["BERT"].build(), BY_NAME["BERT"].samples(1)
    names = [n for unit in oracle.wanda(model, samples).units for n in unit]
    choices = {name: oracle.Choice(index) for index, name in enumerate(names)}
    assert oracle.wanda(model, samples, choices=choices).units == [[name] for name in names]
    with pytest.raises(AssertionError, match="several blocks"):
        oracle.wanda(model, samples, choices=dict.fromkeys(names, oracle.Choice(0)))
