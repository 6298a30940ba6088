"""What every method that makes activations sparse must do, whichever it is."""

import copy
import pickle
import warnings

import pytest
import torch
from small_models import MODELS, llama, tokens

import thresher as th
from thresher.activate.recipe import ActivationRecipe
from thresher.core.card import catalogue
from thresher.core.errors import LayerError, NumericalError, OptionError
from thresher.parts.activations.attached import attached, counting

METHODS = [name for name, kind in catalogue().items() if issubclass(kind, ActivationRecipe)]
EACH = pytest.mark.parametrize("method", METHODS)
#: How far what is reached in calibration may be from what was asked: thresholds are taken of rows
#: that the block before gives, and later layers of the block see what its first ones leave.
TOLERANCE = 0.08

#: What methods say of models that they can do nothing with.
LACKING = {
    **{
        (m, n): "no feed-forward network is recog"
        for m in ("cats", "chess", "lazy-neuron")
        for n in ("cnn", "mlp")
    },
    ("r-sparse", "cnn"): r"has no split by rank.*exclude=",
}


def activated(method, model, data, sparsity=0.5, **options):
    return th.activate(model, method, data, sparsity=sparsity, progress=False, **options)


def logits(model, rows=None):
    rows = tokens(2, seed=7) if rows is None else rows
    with torch.no_grad():
        return model(input_ids=rows).logits


def test_there_are_methods():
    assert {"teal", "wina", "cats", "chess", "r-sparse", "lazy-neuron", "q-sparse"} <= set(METHODS)


@EACH
def test_without_sparsity_the_model_is_dense_bit_for_bit(method):
    model = activated(method, llama(), tokens(), sparsity=0.0)
    assert attached(model)
    assert torch.equal(logits(model), logits(llama()))


@EACH
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_the_asked_sparsity_is_reached_on_the_calibration_data(method, sparsity):
    model = activated(method, llama(hidden_size=64, intermediate_size=128), tokens(16), sparsity)
    record = th.activation_record(model)
    assert record.sparsity == pytest.approx(sparsity, abs=TOLERANCE)
    assert record.sparsity_asked == sparsity
    with counting() as tallies, torch.no_grad():
        for row in tokens(16):
            model(input_ids=row[None])
    for site in record.sites:
        assert tallies[site.place].sparsity == pytest.approx(site.sparsity, abs=1e-6)


@EACH
def test_no_weight_changes_and_names_stay(method):
    before = llama().state_dict()
    model = activated(method, llama(), tokens())
    after = model.state_dict()
    assert before.keys() <= after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all("sparse_" in name for name in after.keys() - before.keys())
    assert not torch.equal(logits(model), logits(llama()))


@EACH
def test_state_dicts_copies_and_pickles_keep_it(method):
    model = activated(method, llama(), tokens())
    expected = logits(model)
    assert torch.equal(logits(copy.deepcopy(model)), expected)
    assert torch.equal(logits(pickle.loads(pickle.dumps(model))), expected)
    other = activated(method, llama(), tokens(), sparsity=0.5)
    for selection in attached(other).values():
        for tensor in selection.tensors().values():
            tensor.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other), expected)


@EACH
def test_thresholds_survive_shorter_dtypes(method):
    model = activated(method, llama(), tokens())
    before = [
        {n: t.clone() for n, t in s.tensors().items() if n in ("threshold", "scale")}
        for s in attached(model).values()
    ]
    model.bfloat16().float()
    for selection, tensors in zip(attached(model).values(), before, strict=True):
        for name, tensor in tensors.items():
            assert torch.equal(selection.tensors()[name], tensor)
    assert bool(torch.isfinite(logits(model.half().bfloat16())).all())


@EACH
def test_bfloat16_models_are_calibrated(method):
    model = activated(method, llama().bfloat16(), tokens())
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert th.activation_record(model).sparsity == pytest.approx(0.5, abs=2 * TOLERANCE)
    assert logits(model).dtype == torch.bfloat16


@EACH
def test_it_compiles_whole_and_runs_in_every_mode(method):
    model = activated(method, llama(num_hidden_layers=1), tokens())
    rows = tokens(2, seed=7)
    expected = logits(model, rows)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(logits(compiled, rows), expected)
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=rows).logits, expected)
    torch.testing.assert_close(model(input_ids=rows).logits.detach(), expected)


@EACH
def test_it_trains_with_thresholds_as_they_were(method):
    model = activated(method, llama(), tokens())
    held = [t.clone() for s in attached(model).values() for t in s.tensors().values()]
    drifting = any(selection.drifts for selection in attached(model).values())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.train()
    said = ["thresholds of activation sparsity stay" in str(each.message) for each in caught]
    assert said and all(said) if drifting else not said
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = tokens(2)
    model(input_ids=rows, labels=rows).loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in
               model.parameters())  # fmt: skip
    optimizer.step()
    now = [t for s in attached(model).values() for t in s.tensors().values()]
    assert all(torch.equal(a, b) for a, b in zip(now, held, strict=True))


@EACH
@pytest.mark.parametrize("name", MODELS)
def test_any_model_runs_or_says_what_it_lacks(method, name):
    make, data, dense = MODELS[name]
    model = make()
    if (method, name) in LACKING:
        with pytest.raises(LayerError, match=LACKING[method, name]):
            activated(method, model, data())
        assert not attached(model)
        return
    activated(method, model, data())
    record = th.activation_record(model)
    assert record.sites
    assert 0 < record.skipped <= record.sparsity + 1e-9
    assert not {site.name for site in record.sites} & set(dense)
    assert sum(record.coverage["kept"].values()) + record.coverage["covered"] + sum(
        record.coverage["not_understood"].values()
    ) == sum(p.numel() for p in make().parameters())


@EACH
def test_the_same_call_gives_the_same_thresholds(method):
    first, second = (activated(method, llama(), tokens()) for _ in range(2))
    pairs = zip(attached(first).values(), attached(second).values(), strict=True)
    for a, b in pairs:
        for name, tensor in a.tensors().items():
            assert torch.equal(tensor, b.tensors()[name])


@EACH
def test_excluded_layers_stay_dense(method):
    model = activated(method, llama(), tokens(), exclude=["*.layers.0.*"])
    assert not any(".layers.0." in name for name, _ in attached(model))


@EACH
def test_a_second_call_replaces_the_first(method):
    model = activated(method, activated(method, llama(), tokens(), 0.75), tokens(), 0.25)
    torch.testing.assert_close(logits(model), logits(activated(method, llama(), tokens(), 0.25)))


@EACH
def test_the_record_is_json(method):
    record = th.activation_record(activated(method, llama(), tokens()))
    assert record.method == method
    assert type(record).from_json(record.to_json()) == record


@EACH
@pytest.mark.parametrize("sparsity", [1.0, -0.1, 50, float("nan"), "half"])
def test_shares_out_of_range_are_named(method, sparsity):
    with pytest.raises(OptionError, match="share of inputs to drop") as error:
        activated(method, llama(), tokens(), sparsity)
    assert ("did you mean 0.5?" in str(error.value)) == (sparsity == 50)


@EACH
def test_bad_weights_stop_before_anything_changes(method):
    model = llama()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"'model\.layers\.2\.mlp\.up_proj' has 1 NaN"):
        activated(method, model, tokens())
    assert not attached(model)
