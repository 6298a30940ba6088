"""What is no model, and what is no data, is said in words before any work."""

import re

import pytest
import torch
from model_folders import byte_tokenizer, tiny_llama
from small_models import llama, mlp, tokens
from torch import nn

import thresher as th
from thresher.core.errors import DataError, LayerError, OptionError
from thresher.linear import Lasso
from thresher.run import _run


def half(model, data=None, method="wanda", **options):
    return th.prune(model, method, data, density=0.5, progress=False, **options)


NO_MODELS = [
    ("no/such/folder", "not the text 'no/such/folder': load .* `thresher"),
    (None, "not NoneType"),
    (Lasso(), "not the estimator Lasso: .* thresher.linear"),
    (nn.Linear, "not the class Linear: pass an object"),
    (mlp().state_dict(), "not a OrderedDict: .*load_state_dict"),
]


@pytest.mark.parametrize("call", [half, th.pack])
@pytest.mark.parametrize(("given", "words"), NO_MODELS, ids=lambda v: type(v).__name__)
def test_what_is_no_model_is_named(call, given, words):
    with pytest.raises(OptionError, match=rf"takes a torch\.nn\.Module, {words}"):
        call(given)


def test_a_folder_is_for_the_command(tmp_path):
    with pytest.raises(
        OptionError, match=rf"the folder '{re.escape(str(tmp_path))}'.*`thresher pr"
    ):
        half(tmp_path)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_a_packed_model_is_not_pruned(method):
    model = llama()
    half(model, method="magnitude")
    packed = th.pack(model, batch=1, repeats=1, gain=0, show=False)
    with pytest.raises(LayerError, match=r"is packed already.*before thresher.pack"):
        half(packed, tokens(), method)


TEXT = "The quick brown fox jumps over the lazy dog. " * 4
TEXTS = [
    TEXT,
    [TEXT],
    iter([TEXT]),
    {"text": TEXT},
    {"text": [TEXT]},
    [{"text": TEXT, "label": 1}],
]


@pytest.mark.parametrize("data", TEXTS, ids=range(len(TEXTS)))
def test_texts_come_in_many_forms(data):
    models = [tiny_llama(layers=1), tiny_llama(layers=1)]
    options = {"tokenizer": byte_tokenizer(), "length": 32}
    record = half(models[0], data, **options)
    assert record.calibration["windows"] > 1
    half(models[1], TEXT, **options)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


NO_DATA = [
    (5, "the calibration data is a int"),
    ([None], "must be a tensor.* not NoneType"),
    (["text", 5], "must be a tensor.* not str .lists of texts hold nothing else"),
    ([{"foo": 1}], "LlamaForCausalLM has no argument 'foo'.*input_ids"),
    ([{"text": "a"}, {"words": "b"}], "has no argument 'text'"),
    ([{"text": ["a"]}], "has no argument 'text'"),
]


@pytest.mark.parametrize(("data", "words"), NO_DATA, ids=range(len(NO_DATA)))
def test_what_is_no_data_is_named(data, words):
    with pytest.raises(DataError, match=words):
        half(llama(), data)


def test_a_keyword_that_the_model_does_not_have_is_named():
    with pytest.raises(DataError, match=r"Sequential has no argument 'label'.*\(input, "):
        half(mlp(), [{"input": torch.randn(2, 16), "label": 1}])


def test_an_unknown_instruction_set_is_named_before_work(monkeypatch):
    monkeypatch.setenv("THRESHER_ISA", "foo")
    _run.forget_isa()
    try:
        with pytest.raises(OptionError, match=r"THRESHER_ISA=foo .*use portable, avx2, avx512"):
            th.pack(llama(), show=False)
    finally:
        monkeypatch.delenv("THRESHER_ISA")
        _run.forget_isa()


class Lending(nn.Module):
    """Runs its layers with weights that it makes for the call."""

    def __init__(self, made):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
        self.out = nn.Linear(16, 4)
        self.made = made

    def forward(self, x):
        weights = {name: self.made(p) for name, p in self.inner.named_parameters()}
        return self.out(torch.func.functional_call(self.inner, weights, (x,)))


@pytest.mark.parametrize(
    "made", [lambda p: p * 1.0, lambda p: nn.Parameter(p.detach().clone())], ids=["tensor", "own"]
)
def test_weights_that_are_lent_for_a_call_are_not_pruned_in_the_place_of_the_own(made):
    model = Lending(made).eval()
    with pytest.warns(UserWarning, match="other weights in the place of its own"):
        record = half(model, [torch.randn(8, 16) for _ in range(4)])
    for layer in record.layers:
        weight = model.get_submodule(layer.name).weight
        assert float((weight != 0).float().mean()) == pytest.approx(layer.density) == 0.5


class Transformed(nn.Module):
    """Calls its layers inside a transform."""

    def __init__(self, transform, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(2))
        self.transform, self.depth = transform, depth

    def forward(self, x):
        if self.depth:
            for layer in self.layers:
                x = self.transform(layer, x)
            return x
        return self.transform(lambda rows: self.layers[1](self.layers[0](rows)), x)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: torch.vmap(f)(x),
        lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    ],
    ids=["vmap", "jvp"],
)
def test_layers_inside_a_transform_are_refused_in_words(transform, depth):
    with pytest.raises(DataError, match=r"called inside torch\.vmap or another transform"):
        half(Transformed(transform, depth).eval(), [torch.randn(8, 16) for _ in range(4)])


def test_lists_of_token_ids_are_windows():
    rows = tokens(3).tolist()
    found, expected = llama(), llama()
    half(found, rows)
    half(expected, tokens(3))
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("density", ["0.5", 50, -0.1, float("nan")])
def test_a_density_that_is_no_share_is_named(density):
    with pytest.raises(OptionError, match=f"density {density} is out of range"):
        th.prune(mlp(), "magnitude", density=density)
