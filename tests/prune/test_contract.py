"""What every method that prunes a trained model must do, whichever it is."""

import pytest
import torch
from small_models import MODELS, bert, cnn, encoder_inputs, images, llama, mlp, tokens, vectors
from torch import nn

import thresher as th
from thresher.core.card import catalogue
from thresher.core.errors import DataError, LayerError, NumericalError, OptionError
from thresher.parts import budgets, patterns, scores, updates
from thresher.parts.coverage import find_layers
from thresher.parts.moments import forward
from thresher.prune import Recipe

METHODS = [name for name, kind in catalogue().items() if issubclass(kind, Recipe)]
EACH = pytest.mark.parametrize("method", METHODS)


def loss(model, sample):
    """A loss for any of the small models, for methods that use gradients."""
    from thresher.stream.passes import call, first_output

    output = call(model, sample)
    if hasattr(output, "to_tuple"):
        output = first_output(output.to_tuple())
    return output.square().mean()


def pruned(name, method, **options):
    make, data, _ = MODELS[name]
    model = make()
    record = th.prune(model, method, data(), loss=loss, progress=False, **options)
    return model, record


def weights(model):
    return {layer.name: layer.weight.detach().clone() for layer in find_layers(model)}


def test_there_are_methods():
    assert {"magnitude", "wanda", "sparsegpt", "lamp", "dsnot"} <= set(METHODS)


@EACH
@pytest.mark.parametrize("name", MODELS)
def test_the_density_is_reached_and_dense_layers_stay(method, name):
    make, _, dense = MODELS[name]
    model, record = pruned(name, method, density=0.5)
    before = make()
    total = sum(layer.weight.numel() for layer in find_layers(model))
    kept = sum(int((layer.weight != 0).sum()) for layer in find_layers(model))
    quantum = max(as_recipe(method).pattern.quantum(layer.shape) for layer in find_layers(model))
    assert abs(kept - total / 2) <= quantum / 2
    assert record.density == pytest.approx(kept / total)
    found = {layer.name for layer in find_layers(model)}
    assert not found & set(dense)
    for (parameter, new), (_, old) in zip(
        model.named_parameters(), before.named_parameters(), strict=True
    ):
        if parameter.removesuffix(".weight") not in found or parameter.endswith(".bias"):
            assert torch.equal(new, old), parameter


def as_recipe(method):
    return catalogue()[method]()


@EACH
@pytest.mark.parametrize("density", [0.2, 0.75, 1.0])
def test_other_densities_are_reached(method, density):
    model, record = pruned("llama", method, density=density)
    total = sum(w.numel() for w in weights(model).values())
    kept = sum(int((w != 0).sum()) for w in weights(model).values())
    assert record.density == pytest.approx(density, abs=32 / total)
    assert kept == pytest.approx(record.density * total)


@EACH
@pytest.mark.parametrize("name", ["cnn", "llama"])
def test_the_same_call_gives_the_same_weights(method, name):
    first, second = (pruned(name, method, density=0.5)[0] for _ in range(2))
    for (parameter, a), (_, b) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), parameter


@EACH
def test_bfloat16_models_work_and_stay_bfloat16(method):
    model = llama().to(torch.bfloat16)
    record = th.prune(model, method, tokens(), density=0.5, progress=False)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    kept = sum(int((w != 0).sum()) for w in weights(model).values())
    total = sum(w.numel() for w in weights(model).values())
    # A kept weight may round to zero, never the reverse.
    assert kept <= record.density * total + 1e-6
    assert kept >= 0.99 * record.density * total
    assert bool(torch.isfinite(model(input_ids=tokens(1)).logits).all())


@EACH
def test_two_of_four(method):
    recipe = as_recipe(method)
    if recipe.budget != budgets.Uniform():
        pytest.skip("its budget gives layers different densities")
    model, record = pruned("bert", method, pattern="2:4")
    assert record.pattern == "2:4"
    for weight in weights(model).values():
        assert bool(((weight != 0).reshape(-1, 4).sum(-1) == 2).all())


@EACH
def test_excluded_layers_stay_dense_and_included_ones_do_not(method):
    model, record = pruned("llama", method, density=0.5, exclude=["*.down_proj"])
    for name, weight in llama().named_parameters():
        if "down_proj" in name:
            assert torch.equal(weight, model.get_parameter(name))
    assert not any("down_proj" in layer.name for layer in record.layers)
    _, record = pruned("llama", method, density=0.5, include=["lm_head"])
    assert any(layer.name == "lm_head" for layer in record.layers)


@EACH
def test_the_model_keeps_its_mode_and_gradients(method):
    model = mlp().train()
    model[0].weight.requires_grad_(False)
    th.prune(model, method, vectors(), density=0.5, loss=loss, progress=False)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]


@EACH
def test_the_record_tells_what_happened(method):
    model, record = pruned("llama", method, density=0.5)
    assert record.method == method
    assert [layer.name for layer in record.layers] == [la.name for la in find_layers(model)]
    for layer in record.layers:
        assert layer.kept == int((model.get_submodule(layer.name).weight != 0).sum())
        assert 0 <= layer.error <= 4
    again = type(record).from_json(record.to_json())
    assert again == record


@EACH
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_weights_stop_before_anything_changes(method, bad):
    model = llama()
    layer = model.model.layers[2].mlp.up_proj
    with torch.no_grad():
        layer.weight[0, 0] = bad
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(NumericalError, match=r"'model\.layers\.2\.mlp\.up_proj' has 1 NaN"):
        th.prune(model, method, tokens(), density=0.5, progress=False)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name], equal_nan=True, rtol=0, atol=0)


@EACH
def test_bad_activations_name_the_layer(method):
    if not as_recipe(method).needs:
        pytest.skip("looks at no data")
    data = vectors()
    data[3, 2] = torch.nan
    seen = "'0' received NaN or infinite activations|the loss is NaN or infinite where layer '0'"
    if not forward(as_recipe(method).needs):
        seen = "the gradient of layer '0' is NaN or infinite"
    with pytest.raises(NumericalError, match=seen):
        th.prune(mlp(), method, data, density=0.5, loss=loss, progress=False)


@EACH
@pytest.mark.parametrize("density", [0, -0.5, 1.01, float("nan")])
def test_densities_out_of_range_are_named(method, density):
    with pytest.raises(OptionError, match=rf"density {density} is out of range"):
        th.prune(mlp(), method, vectors(), density=density)


@EACH
def test_widths_that_no_group_divides_name_the_layer(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 18), nn.ReLU(), nn.Linear(18, 4))
    with pytest.raises(LayerError, match=r"layer '2': pattern 2:4 .* divisible by 4.* 18"):
        th.prune(model, method, vectors(), pattern="2:4", loss=loss)


@EACH
def test_models_without_layers_are_named(method):
    with pytest.raises(LayerError, match="ReLU has no layer to prune"):
        th.prune(nn.ReLU(), method, vectors(), density=0.5)


@EACH
def test_empty_data_is_named(method):
    if not as_recipe(method).needs:
        pytest.skip("looks at no data")
    with pytest.raises(DataError, match="empty"):
        th.prune(mlp(), method, [], density=0.5, loss=loss)


@EACH
def test_missing_data_is_named(method):
    if not as_recipe(method).needs:
        pytest.skip("looks at no data")
    with pytest.raises(DataError, match=f"Sequential needs calibration data for '{method}'"):
        th.prune(mlp(), method, density=0.5)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(OptionError, match="did you mean 'sparsegpt'"):
        th.prune(mlp(), "sparse-gpt", density=0.5)
    with pytest.raises(OptionError, match="did you mean 'uniform'"):
        th.prune(mlp(), "magnitude", density=0.5, budget="unifrom")
    with pytest.raises(OptionError, match="did you mean 'obs'"):
        th.prune(mlp(), "magnitude", density=0.5, update="obss")


def test_more_than_m_of_m_is_named():
    with pytest.raises(OptionError, match="5:4"):
        th.prune(mlp(), "magnitude", pattern="5:4")


def test_no_density_and_contradictions_are_named():
    with pytest.raises(OptionError, match=r"density=0\.5, or a pattern"):
        th.prune(mlp(), "magnitude")
    with pytest.raises(OptionError, match=r"contradicts density 0\.3"):
        th.prune(mlp(), "magnitude", density=0.3, pattern="2:4")


def test_methods_that_do_not_prune_are_named():
    with pytest.raises(OptionError, match="'essential-sparsity' does not prune"):
        th.prune(mlp(), "essential-sparsity", density=0.5)


def test_composed_recipes():
    recipe = Recipe(
        score=scores.Magnitude() * scores.InputNorm(),
        pattern=patterns.NM(2, 4),
        update=updates.LeastSquares(),
    )
    record = th.prune(bert(), recipe, encoder_inputs(), progress=False)
    assert record.method == "recipe"
    assert record.density == 0.5
    record = th.prune(
        cnn(),
        Recipe(scores.Magnitude() * scores.GradientMagnitude(), budget=budgets.ERK(), density=0.3),
        [images()],
        loss=loss,
    )
    assert record.density == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("budget", [n for n in budgets.Budget.known() if n != "uniform"])
@pytest.mark.parametrize("name", ["cnn", "llama"])
def test_every_budget_reaches_the_density(budget, name):
    _, record = pruned(name, "magnitude", density=0.3, budget=budget)
    total = sum(layer.size for layer in record.layers)
    assert record.density == pytest.approx(0.3, abs=0.5001 / total)


def test_later_blocks_are_calibrated_on_pruned_predecessors():
    together = llama()
    th.prune(together, "sparsegpt", tokens(24), density=0.5, progress=False)
    # Block by block by hand: each call sees the model with all earlier blocks pruned.
    by_hand = llama()
    for block in range(3):
        others = [f"*layers.{other}.*" for other in range(3) if other != block]
        th.prune(by_hand, "sparsegpt", tokens(24), density=0.5, exclude=others, progress=False)
    for (name, a), (_, b) in zip(
        together.named_parameters(), by_hand.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, msg=name)


class _Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.chosen, self.idle = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        return self.chosen(x)


@EACH
@pytest.mark.parametrize("unseen", ["magnitude", "dense"])
def test_layers_that_see_no_data_are_named(method, unseen):
    if not as_recipe(method).needs:
        pytest.skip("looks at no data")
    model = _Expert()
    data = vectors()
    record = th.prune(model, method, data, density=0.5, loss=loss, unseen=unseen, progress=False)
    assert record.unseen == ["idle"]
    kept = {layer.name: layer.density for layer in record.layers}
    assert kept == {"chosen": 0.5, "idle": 0.5 if unseen == "magnitude" else 1}
    weight = model.idle.weight.abs()
    removed = weight[weight == 0].numel()
    assert removed == (32 if unseen == "magnitude" else 0)
