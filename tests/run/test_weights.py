"""Every weight of a model has a row, and what is packed computes as before."""

from __future__ import annotations

import copy

import pytest
import torch
from layout_contract import one_thread  # noqa: F401
from torch import nn
from torch.nn.utils import parametrizations, prune

from thresher.core.errors import LayerError, OptionError
from thresher.core.numbers import percent
from thresher.run.measure.modes import evaluating
from thresher.run.pack import choose_layouts, pack
from thresher.run.packed.conv import PackedConv2d
from thresher.run.packed.linear import PackedLinear


def sparse(model: nn.Module, density: float = 0.1) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        keep = torch.rand(parameter.shape, generator=generator) < density
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * keep
    return model.eval()


def chosen(model: nn.Module, **options):
    """The layout, or the reason against one, by layer."""
    options = {"batch": (1,), "repeats": 1, "gain": 0.0} | options
    return {c.name: c.reason or c.layout for c in choose_layouts(model, **options).layers}


def packed(model: nn.Module, **options) -> nn.Module:
    return pack(model, **({"batch": (1,), "repeats": 1, "gain": 0.0, "show": False} | options))


class Written(nn.Linear):
    """Another way to write the same product, as in transformers' Falcon."""

    def forward(self, x):
        out = x @ self.weight.T
        return out if self.bias is None else out + self.bias


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Clipped(nn.Linear):
    """Equal to its base for small inputs only."""

    def forward(self, x):
        return super().forward(x).clamp(-50, 50)


class Adapted(nn.Linear):
    """Equal to its base until its second parameter is trained."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.more = nn.Parameter(torch.zeros(sizes[1], 1))

    def forward(self, x):
        return super().forward(x) + (self.more @ torch.ones(1, 1)).squeeze(1)


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), None


class Same(nn.Conv2d):
    def forward(self, x):
        return super().forward(x)


class Padded(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_derived_layers_are_packed_if_they_compute_what_their_base_does(dtype):
    kinds = (Written, Doubled, Clipped, Adapted, Pair)
    model = sparse(nn.ModuleDict({k.__name__: k(64, 96) for k in kinds})).to(dtype)
    model["Adapted"].more.data.zero_()
    found = chosen(model, candidates=["csr"])
    assert found.pop("Written") == "csr"
    assert found == {
        kind.__name__: f"{kind.__name__} does not compute what Linear does" for kind in kinds[1:]
    }
    x = torch.randn(3, 64).to(dtype)
    expected = model["Written"](x)
    assert isinstance(packed(model)["Written"], PackedLinear)
    torch.testing.assert_close(model["Written"](x), expected, rtol=2e-2, atol=2e-2)


def test_derived_convolutions():
    model = sparse(nn.Sequential(Same(8, 16, 3), Padded(16, 8, 3)))
    x = torch.randn(1, 8, 12, 12)
    expected = model(x)
    assert chosen(model, example=x, candidates=["csr"]) == {
        "0": "csr",
        "1": "Padded does not compute what Conv2d does",
    }
    packed(model, example=x, candidates=["csr"])
    assert isinstance(model[0], PackedConv2d)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.zeros(4, 16, 8))


def test_what_cannot_be_packed_has_a_row_with_its_reason_and_share(capsys):
    model = sparse(
        nn.ModuleDict(
            {
                "table": nn.Embedding(10, 16),
                "memory": nn.LSTM(16, 16),
                "mixture": Experts(),
                "head": nn.Linear(16, 10),
                "norm": nn.LayerNorm(16),
            }
        )
    )
    choices = choose_layouts(model, (1,), ["csr"], repeats=1, gain=0.0)
    found = {c.name: c.reason or c.layout for c in choices.layers}
    assert found == {
        "table": "Embedding has no packed form",
        "memory.weight_ih_l0": "LSTM has no packed form",
        "memory.weight_hh_l0": "LSTM has no packed form",
        "mixture.up": "Experts has no packed form",
        "head": "csr",
    }
    total = sum(p.numel() for p in model.parameters())
    shares = {c.name: c.share for c in choices.layers}
    assert shares["mixture.up"] == pytest.approx(4 * 16 * 8 / total)
    assert shares["head"] == pytest.approx(160 / total)
    choices.show()
    printed = capsys.readouterr().out
    assert "4 x 16 x 8" in printed
    assert "Experts has no packed form" in printed
    assert percent(4 * 16 * 8 / total) in printed


def test_layers_of_transformers_have_rows():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = sparse(transformers.GPT2LMHeadModel(config))
    found = chosen(model)
    assert found["transformer.h.0.mlp.c_fc"] == "Conv1D has no packed form"
    shares = [layer.share for layer in choose_layouts(model, (1,), repeats=1).layers]
    assert 0.9 < sum(shares) <= 1, "the head's weight, which is the embedding's, counts once"
    assert shares[-1] == 0


def test_layers_whose_call_is_not_all_stay_dense():
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    hooked, patched, masked = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
    hooked.register_forward_hook(lambda module, inputs, out: out + 1)
    patched.forward = lambda x: 3 * nn.functional.linear(x, patched.weight)
    prune.random_unstructured(masked, "weight", 0.9)
    normed = parametrizations.weight_norm(nn.Linear(16, 16))
    model = nn.ModuleDict(
        {"a": attention, "h": hooked, "p": patched, "m": masked, "n": normed}
    ).eval()
    assert chosen(model, candidates=["csr"]) == {
        "a.in_proj_weight": "MultiheadAttention has no packed form",
        "a.out_proj": "MultiheadAttention multiplies its weight itself",
        "h": "it has hooks, which a packed layer would lose",
        "p": "Linear does not compute what Linear does",
        "m": "it has hooks, which a packed layer would lose",
        "n": "it is computed anew; torch's remove_parametrizations makes it fixed",
    }
    before = list(model.modules())
    assert list(packed(model, candidates=["csr"]).modules()) == before


def test_a_layer_with_two_names_is_packed_under_both():
    linear = nn.Linear(64, 64)
    model = sparse(nn.ModuleDict({"a": linear, "b": nn.Sequential(linear)}))
    x = torch.randn(2, 64)
    expected = linear(x)
    assert len(choose_layouts(model, (1,), repeats=1).layers) == 1
    packed(model)
    assert isinstance(model["a"], PackedLinear)
    assert model["b"][0] is model["a"]
    torch.testing.assert_close(model["a"](x), expected, rtol=1e-4, atol=1e-5)


def test_tied_weights_stay_tied():
    model = sparse(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)))
    model[2].weight = model[0].weight
    x = torch.randn(2, 64)
    expected = model(x)
    packed(model, candidates=["csr"])
    assert model[0].layout is model[2].layout
    assert model[0].layout is not model[1].layout
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[1].bias.zero_()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))


def test_every_module_keeps_its_mode():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)).train()
    model[1].eval()
    statistics = model[1].running_mean.clone()
    x = torch.randn(1, 3, 9, 9)
    choose_layouts(model, (1,), repeats=1, example=x)
    assert [module.training for module in model] == [True, False, True]
    assert torch.equal(model[1].running_mean, statistics)
    with pytest.raises(LayerError, match="does not run on the example"):
        choose_layouts(model, (1,), repeats=1, example=torch.randn(1, 4, 9, 9))
    assert [module.training for module in model] == [True, False, True]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [True, False, True]


def test_images_of_layers_called_by_keyword_are_seen():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return self.conv(input=x)

    model = sparse(Keyword())
    assert chosen(model, example=torch.randn(1, 3, 9, 9), candidates=["csr"]) == {"conv": "csr"}


def test_what_cannot_be_packed_at_all_is_refused_before_the_work():
    with pytest.raises(OptionError, match="single layer"):
        pack(nn.Linear(4, 4))
    with pytest.raises(LayerError, match=r"'0.weight' has no data"):
        pack(nn.Sequential(nn.Linear(4, 4, device="meta")))
    with pytest.raises(LayerError, match=r"'0.weight' has no data"):
        pack(nn.Sequential(nn.LazyLinear(4)))
