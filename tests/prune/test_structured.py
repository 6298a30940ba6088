"""Methods that make models smaller: whole units go, and what is left loads and runs."""

import json

import pytest
import torch
import warm
from coupled_nets import NETS, FusedAttention, ResNet, built
from model_folders import save_folder, tiny_llama
from small_models import bert, encoder_inputs, gpt2, llama, tokens
from torch import nn

import thresher as th
from thresher.core.card import catalogue
from thresher.core.errors import CheckpointError, DataError, LayerError, OptionError
from thresher.core.remembered import remembered
from thresher.parts.evolution import Evolution
from thresher.parts.rankings import ByScore, GreedyOBS
from thresher.parts.scores import Random
from thresher.parts.spreads import PerKind, WholeModel
from thresher.parts.updates import LeastSquares
from thresher.prune.tyr import Tyr
from thresher.prune.unit_recipe import UnitRecipe

METHODS = [name for name, kind in catalogue().items() if issubclass(kind, UnitRecipe)]
#: Of methods that search, with less of it.
QUICK = {"tyr": Tyr(iterations=1, search=Evolution(generations=1, offspring=2, most=1))}
EACH = pytest.mark.parametrize("method", [QUICK.get(name, name) for name in METHODS], ids=METHODS)


def images(count=3):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 3, 18, 18, generator=generator) for _ in range(count)]


def wide_llama(**changes):
    return llama(hidden_size=32, intermediate_size=128, **changes)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_there_are_methods():
    assert {"structured", "slimgpt", "flap", "spa", "obspa"} <= set(METHODS)


@EACH
def test_networks_become_smaller_and_run(method):
    net = built(ResNet)
    small = th.prune(net, method, images(), density=0.5, progress=False)
    record = remembered(small)
    weights = record.structure["weights"]
    assert 0.4 < weights["after"] / weights["before"] < 0.6
    assert record.density < 0.75
    assert count(small) < 0.65 * count(net)
    assert small(ResNet.inputs).shape == net(ResNet.inputs).shape
    again = type(record).from_json(record.to_json())
    assert again.structure["removed"] == record.structure["removed"]


@EACH
def test_language_models_become_smaller_and_run(method):
    model = wide_llama()
    small = th.prune(model, method, tokens(), density=0.6, progress=False)
    weights = remembered(small).structure["weights"]
    assert 0.5 < weights["after"] / weights["before"] < 0.7
    with torch.no_grad():
        found, dense = small(tokens(1)).logits, model(tokens(1)).logits
    assert 0.01 < float((found - dense).norm() / dense.norm()) < 1.5


@EACH
def test_the_model_itself_stays_and_the_same_call_gives_the_same(method):
    net = built(ResNet)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first, second = (
        th.prune(net, method, images(), density=0.5, progress=False).state_dict() for _ in range(2)
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@EACH
@pytest.mark.parametrize("density", [0, 1, -0.5, float("nan")])
def test_densities_out_of_range_are_named(method, density):
    with pytest.raises(OptionError, match=rf"density {density} is out of range"):
        th.prune(built(ResNet), method, images(), density=density)


@EACH
def test_budgets_that_no_group_can_meet_say_the_nearest(method):
    with pytest.raises(OptionError, match=r"density 0\.001 cannot be .* nearest density is 0\.\d"):
        th.prune(built(ResNet), method, images(), density=0.001, progress=False)


def test_no_density_is_named():
    with pytest.raises(OptionError, match=r"density=0\.8"):
        th.prune(built(ResNet), "spa", example=ResNet.inputs)


def test_any_network_needs_an_example_alone():
    for kind in NETS:
        net = built(kind)
        small = th.prune(net, "spa", density=0.5, example=kind.inputs, progress=False)
        assert small(kind.inputs).shape == net(kind.inputs).shape
        assert count(small) < 0.75 * count(net)


def test_an_example_is_asked_for_and_may_not_be_of_the_wrong_shape():
    with pytest.raises(DataError, match="example="):
        th.prune(built(ResNet), "spa", density=0.5)
    with pytest.raises(DataError, match=r"not run on the example, a tensor of shape \(2, 5\)"):
        th.prune(built(ResNet), "spa", density=0.5, example=torch.zeros(2, 5))
    with pytest.raises(DataError, match="needs calibration data for 'obspa'"):
        th.prune(built(ResNet), "obspa", density=0.5, example=ResNet.inputs)


def test_patterns_that_match_nothing_are_named():
    for option in ("include", "exclude"):
        with pytest.raises(OptionError, match="no_such_layer"):
            th.prune(
                built(ResNet),
                "spa",
                density=0.5,
                example=ResNet.inputs,
                **{option: ["no_such_layer"]},
            )


def test_options_that_units_have_no_use_for_are_named():
    with pytest.raises(OptionError, match="SPA removes whole units, and has no pattern"):
        th.prune(built(ResNet), "spa", density=0.5, example=ResNet.inputs, pattern="2:4")


def test_groups_of_an_excluded_layer_stay_whole():
    net = built(ResNet)
    small = th.prune(
        net, "spa", density=0.6, example=ResNet.inputs, exclude=["stem.0"], progress=False
    )
    assert small.stem[0].weight.shape == net.stem[0].weight.shape
    whole = remembered(small).structure["whole"]
    assert whole["stem.0.weight[0]"] == "an excluded layer is part of it"


def test_groups_that_cross_a_frozen_layer_stay_whole():
    net = built(ResNet)
    net.blocks[1].conv1.weight.requires_grad_(False)
    small = th.prune(net, "spa", density=0.8, example=ResNet.inputs, progress=False)
    assert torch.equal(small.blocks[1].conv1.weight, net.blocks[1].conv1.weight)
    assert not small.blocks[1].conv1.weight.requires_grad
    whole = remembered(small).structure["whole"]
    assert whole["blocks.1.conv1.weight[0]"] == "a frozen layer is part of it"
    assert whole["stem.0.weight[0]"] == "a frozen layer is part of it"


def test_a_branch_on_data_is_named_with_its_line():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            hidden = self.a(x)
            return self.b(hidden) if hidden.sum() > 0 else hidden[:, :8]

    line = Branching.forward.__code__.co_firstlineno + 2
    with pytest.raises(LayerError, match=rf"test_structured\.py:{line}, .* torch\.where"):
        th.prune(Branching(), "spa", density=0.5, example=torch.zeros(2, 8))


def test_models_of_which_nothing_can_go_say_why():
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    with pytest.raises(LayerError, match=r"no unit of Sequential .*normalises over it"):
        th.prune(net, "spa", density=0.5, example=torch.zeros(2, 8))


class _Expert(nn.Module):
    """Two ways, of which whole numbers choose one."""

    def __init__(self):
        super().__init__()
        self.seen = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        self.idle = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x, which):
        return self.idle(x) if int(which) else self.seen(x)


def test_what_the_data_never_reaches_stays_whole():
    torch.manual_seed(0)
    net, x = _Expert().eval(), torch.randn(50, 8)
    small = th.prune(net, "obspa", [(x, torch.tensor(0))], density=0.8, progress=False)
    assert small.seen[0].weight.shape[0] < 32
    assert torch.equal(small.idle[0].weight, net.idle[0].weight)
    whole = remembered(small).structure["whole"]
    assert whole["idle.0.weight[0]"] == "the pass does not read it"


def test_grouped_convolutions_lose_whole_groups():
    net = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, groups=4), nn.Conv2d(24, 2, 1)
    )
    small = th.prune(
        net.eval(), "spa", density=0.6, example=torch.randn(1, 3, 8, 8), progress=False
    )
    grouped = small[2]
    assert grouped.in_channels % grouped.groups == grouped.out_channels % grouped.groups == 0
    assert grouped.weight.shape[0] < 24


@pytest.mark.parametrize("make", [wide_llama, gpt2, bert])
def test_a_stock_folder_loads_where_there_is_no_thresher(make, tmp_path):
    model = make()
    data = encoder_inputs() if make is bert else tokens()
    small = th.prune(model, "structured", data, density=0.7, progress=False)
    th.save(small, tmp_path / "small")
    sample = tokens(1)
    torch.save(sample, tmp_path / "sample.pt")
    script = (
        "import sys, torch, transformers\n"
        f"kind = transformers.{'AutoModel' if make is bert else 'AutoModelForCausalLM'}\n"
        f"model = kind.from_pretrained({str(tmp_path / 'small')!r}).eval()\n"
        f"x = torch.load({str(tmp_path / 'sample.pt')!r}, weights_only=True)\n"
        "assert 'thresher' not in sys.modules\n"
        f"torch.save(model(x)[0].detach(), {str(tmp_path / 'out.pt')!r})\n"
    )
    warm.run("-c", script)
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(found, small(sample)[0], rtol=0, atol=1e-5)
    assert count(small) < count(model)


def test_a_stock_model_keeps_its_dtype_its_ties_and_what_is_frozen():
    model = wide_llama(tied=True).to(torch.bfloat16)
    model.model.norm.weight.requires_grad_(False)
    small = th.prune(model, "structured", tokens(), density=0.7, progress=False)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert small.lm_head.weight is small.model.embed_tokens.weight
    frozen = [name for name, p in small.named_parameters() if not p.requires_grad]
    assert frozen == ["model.norm.weight"]
    rotary = dict(model.named_buffers()), dict(small.named_buffers())
    assert all(torch.equal(rotary[0][name], rotary[1][name]) for name in rotary[0])


def test_a_stock_model_has_one_width_and_whole_key_value_heads():
    small = th.prune(wide_llama(), "structured", tokens(), density=0.6, progress=False)
    config = small.config
    assert config.intermediate_size % 32 == 0
    assert config.head_dim == 8
    assert config.num_attention_heads == 2 * config.num_key_value_heads
    for layer in small.model.layers:
        assert layer.mlp.down_proj.in_features == config.intermediate_size
        assert layer.self_attn.k_proj.out_features == 8 * config.num_key_value_heads
    assert small.model.embed_tokens.weight.shape[1] == 32


def test_heads_that_a_configuration_cannot_say_stay():
    small = th.prune(gpt2(), "structured", tokens(), density=0.7, progress=False)
    assert small.transformer.h[0].attn.c_attn.weight.shape == (16, 48)
    assert small.config.n_inner == 32
    whole = remembered(small).structure["whole"]
    why = whole["transformer.h.0.attn.c_attn.weight[1]"]
    # Older versions keep a mask beside the projection, which this attention does not read.
    assert "no configuration of GPT2LMHeadModel" in why or "attn.bias" in why


def test_a_network_is_rebuilt_without_pickle(tmp_path):
    net = built(ResNet)
    small = th.prune(net, "spa", density=0.5, example=ResNet.inputs, progress=False)
    th.save(small, tmp_path / "small")
    files = {file.name for file in (tmp_path / "small").iterdir()}
    assert files == {"model.safetensors", "thresher.json"}
    again = th.rebuild(ResNet().eval(), tmp_path / "small")
    torch.testing.assert_close(again(ResNet.inputs), small(ResNet.inputs), rtol=0, atol=0)
    assert again.stem[0].out_channels == small.stem[0].out_channels < 16
    with pytest.raises(CheckpointError, match="of another module"):
        th.rebuild(built(FusedAttention), tmp_path / "small")
    with pytest.raises(CheckpointError, match="holds no smaller model"):
        th.rebuild(ResNet(), tmp_path)


def test_sizes_that_modules_say_are_rebuilt(tmp_path):
    net = built(FusedAttention)
    small = th.prune(net, "spa", density=0.5, example=FusedAttention.inputs, progress=False)
    assert small.heads < 4
    th.save(small, tmp_path / "small")
    again = th.rebuild(FusedAttention(), tmp_path / "small")
    assert again.heads == small.heads
    assert torch.equal(again(FusedAttention.inputs), small(FusedAttention.inputs))


def output_error(small, net, data):
    with torch.no_grad():
        return sum(float((small(x) - net(x)).square().sum()) for x in data)


def test_layers_make_up_for_what_is_removed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    data = [torch.randn(200, 8) for _ in range(3)]
    errors = {}
    for name, ranking, update in (
        ("random", ByScore(Random()), None),
        ("greedy", GreedyOBS(), None),
        ("refitted", GreedyOBS(), LeastSquares()),
    ):
        parts = {} if update is None else {"update": update}
        recipe = UnitRecipe(ranking, WholeModel(), density=0.5, **parts)
        errors[name] = output_error(th.prune(net, recipe, data, progress=False), net, data)
    assert errors["refitted"] < 0.7 * errors["greedy"]
    assert errors["refitted"] < 0.5 * errors["random"]


def test_what_never_varies_goes_without_a_trace():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8, bias=False)).eval()
    with torch.no_grad():
        net[0].weight[5:21] = 0
        net[0].bias[5:21] = 1.5
    data = [torch.randn(100, 8) for _ in range(2)]
    small = th.prune(net, "flap", data, density=0.5, progress=False)
    assert small[2].weight.shape == (8, 16)
    torch.testing.assert_close(small(data[0]), net(data[0]), rtol=0, atol=1e-5)


def test_blocks_lose_more_the_later_they_are():
    small = th.prune(wide_llama(), "slimgpt", tokens(), density=0.6, progress=False)
    widths = [layer.mlp.down_proj.in_features for layer in small.model.layers]
    assert widths[0] > widths[1] >= widths[2]


def test_kinds_keep_one_width():
    recipe = UnitRecipe(ByScore(), PerKind(multiple=8), density=0.6)
    small = th.prune(wide_llama(), recipe, example=tokens(1), progress=False)
    (width,) = {layer.mlp.down_proj.in_features for layer in small.model.layers}
    assert width % 8 == 0


def test_the_command_writes_a_stock_folder_with_a_record(tmp_path):
    from click.testing import CliRunner
    from transformers import AutoModelForCausalLM

    from thresher.cli import main

    source = save_folder(tiny_llama(), tmp_path / "dense")
    out = tmp_path / "small"
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 200)
    arguments = ["prune", str(source), "--method", "structured", "--density", "0.7"]
    arguments += ["--out", str(out), "--calibration", str(text), "--windows", "4"]
    arguments += ["--length", "64"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "units in 3 places" in " ".join(result.output.split())
    record = json.loads((out / "thresher.json").read_text())
    assert record["method"] == "structured"
    assert record["structure"]["removed"]
    assert record["evaluation"]["pruned_perplexity"] > 0
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.config.intermediate_size < 64
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "exists" in result.output
    result = CliRunner().invoke(main, [*arguments, "--overwrite", "--pattern", "2:4"])
    assert result.exit_code == 1
    assert "no use for --pattern" in result.output


@pytest.mark.parametrize("groups", [1, 2])
def test_units_before_a_transposed_convolution_in_groups_are_removed(groups):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(16, 8, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
    ).eval()
    images = torch.randn(2, 16, 4, 4)
    smaller = th.prune(model, "structured", images, density=0.75, progress=False)
    parameters = [sum(p.numel() for p in each.parameters()) for each in (model, smaller)]
    assert parameters[1] < parameters[0]
    assert smaller(images).shape == model(images).shape
