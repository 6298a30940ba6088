"""Models as users have them: wrapped, tied, frozen, compiled, adapted, offloaded, quantised."""

import copy

import pytest
import torch
from model_folders import byte_tokenizer, tiny_llama
from safetensors.torch import load_file, save_file
from small_models import bert, llama, mlp, tokens, vectors
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

import thresher as th
from thresher.core.errors import DataError, LayerError, OptionError
from thresher.prune.disk import DiskOptions, prune_folder
from thresher.prune.memory import as_recipe


def half(model, method="wanda", data=None, **options):
    return th.prune(model, method, data, density=0.5, progress=False, **options)


def wandas_mask(weight, inputs):
    score = weight.abs() * torch.cat(inputs).norm(dim=0)
    keep = score.topk(weight.shape[1] // 2, dim=1).indices
    return torch.zeros_like(weight, dtype=torch.bool).scatter_(1, keep, True)


def density_of_matrices(model):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    return sum(int((p != 0).sum()) for p in matrices) / sum(p.numel() for p in matrices)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 3, groups=2)),
        lambda: nn.TransformerEncoderLayer(64, 4, 128),
        lambda: nn.ModuleDict({"rnn": nn.LSTM(64, 64, 2), "fc": nn.Linear(64, 8)}),
        lambda: nn.ModuleDict(
            {"cell": nn.GRUCell(16, 16), "attention": nn.MultiheadAttention(8, 2)}
        ),
    ],
)
def test_the_density_is_that_of_every_matrix(make):
    model = make()
    record = half(model, "magnitude")
    assert density_of_matrices(model) == pytest.approx(record.density, abs=1e-3)
    assert not record.coverage["not_understood"]


def test_experts_are_pruned_and_counted():
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    model = MixtralForCausalLM(config).eval()
    record = half(model, data=tokens())
    experts = model.model.layers[1].mlp.experts
    for weight in (experts.gate_up_proj, experts.down_proj):
        assert bool(((weight != 0).sum(-1) * 2 == weight.shape[-1]).all())
    coverage = record.coverage
    total = coverage["pruned"] + sum(coverage["kept"].values())
    assert total + sum(coverage["not_understood"].values()) == coverage["parameters"]
    assert coverage["parameters"] == sum(p.numel() for p in model.parameters())
    assert coverage["kept"]["router"] == 2 * 4 * 16


def test_a_head_stays_dense_inside_other_modules():
    model = llama()
    half(nn.DataParallel(model), "magnitude")
    assert bool((model.lm_head.weight != 0).all())
    assert bool((model.model.layers[0].mlp.up_proj.weight == 0).any())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.mid, self.b = (nn.Linear(16, 16, bias=False) for _ in range(3))
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.relu(self.mid(torch.relu(self.a(x)))))


def test_a_shared_weight_is_pruned_once_with_the_inputs_of_both_uses():
    torch.manual_seed(0)
    model = Tied()
    dense, data = copy.deepcopy(model), [vectors(seed=s) for s in range(2)]
    record = half(model, data=data)
    assert [layer.name for layer in record.layers] == ["a", "mid"]
    assert record.coverage["parameters"] == 2 * 16 * 16
    seen = []
    for module in (dense.a, dense.b):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for sample in data:
        dense(sample)
    expected = wandas_mask(dense.a.weight.detach(), seen)
    assert torch.equal(model.a.weight != 0, expected)
    assert model.b.weight is model.a.weight


def test_every_module_keeps_its_mode():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)).train()
    model[1].eval()
    half(model, data=[torch.randn(2, 3, 8, 8)])
    assert [module.training for module in model] == [True, False, True]


def test_compiled_models_are_pruned_as_they_are():
    plain = mlp().eval()
    compiled = torch.compile(mlp().eval(), backend="eager")
    with torch.no_grad():
        compiled(vectors())
    half(plain, data=[vectors()])
    half(compiled, data=[vectors()])
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.equal(a, b)


def test_adapters_are_left_alone():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj"])
    model = peft.get_peft_model(llama(), config)
    record = half(model, data=[{"input_ids": tokens(1)}])
    names = [layer.name for layer in record.layers]
    assert not any("lora" in name for name in names)
    assert any(name.endswith("q_proj.base_layer") for name in names)
    assert record.coverage["kept"]["adapter"] > 0


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "old weight_norm"])
def test_parametrised_layers_are_named(kind):
    norm = {
        "weight_norm": nn.utils.parametrizations.weight_norm,
        "spectral_norm": nn.utils.parametrizations.spectral_norm,
        "old weight_norm": nn.utils.weight_norm,
    }[kind]
    with pytest.warns(FutureWarning) if kind.startswith("old") else _nothing():
        layer = norm(nn.Linear(16, 16))
    with pytest.warns(UserWarning, match="remove_parametrizations"):
        record = half(nn.Sequential(layer, nn.Linear(16, 4)), "magnitude")
    assert [each.name for each in record.layers] == ["1"]
    assert all(name.startswith("0.") for name in record.coverage["not_understood"])
    assert record.coverage["not_understood"]
    with pytest.raises(LayerError, match="remove_parametrizations"):
        half(nn.Sequential(layer), "magnitude")


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_weights_that_are_elsewhere_are_named():
    import accelerate

    with torch.device("meta"):
        meta = nn.Sequential(nn.Linear(16, 16))
    offloaded = nn.Sequential(nn.Linear(16, 16))
    accelerate.cpu_offload(offloaded, execution_device="cpu")
    for model in (meta, offloaded):
        with pytest.raises(LayerError, match=r"'0' is not in memory .* load the model whole"):
            half(model, "magnitude")
    with pytest.raises(LayerError, match=r"'0' .* has no weight yet; run the model once"):
        half(nn.Sequential(nn.LazyLinear(8)), "magnitude")


class Codes(nn.Linear):
    def __init__(self):
        super().__init__(16, 16, bias=False)
        codes = torch.randint(0, 255, (128, 1), dtype=torch.uint8)
        self.weight = nn.Parameter(codes, requires_grad=False)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e4m3fn])
def test_quantised_layers_are_refused(dtype):
    model = nn.Sequential(Codes(), nn.Linear(16, 4))
    model[0].weight.data = model[0].weight.data.to(dtype)
    with pytest.raises(LayerError, match=r"'0' .* holds torch.* load the model without quant"):
        half(model, "magnitude")


@pytest.mark.parametrize("inplace", [False, True])
def test_blocks_that_change_their_input_change_no_sample(inplace):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.SiLU(inplace=inplace), nn.Linear(16, 16)) for _ in range(3)]
    model, data = nn.Sequential(*blocks), [vectors(seed=s) for s in range(3)]
    before = [sample.clone() for sample in data]
    dense = copy.deepcopy(model)
    half(model, data=data)
    assert all(torch.equal(a, b) for a, b in zip(data, before, strict=True))
    for index in range(2):
        dense[index].load_state_dict(model[index].state_dict())
    seen = []
    dense[2][1].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    for sample in before:
        dense(sample.clone())
    expected = wandas_mask(dense[2][1].weight.detach(), seen)
    assert torch.equal(model[2][1].weight != 0, expected)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qk = nn.Linear(16, 16)

    def forward(self, x):
        return torch.softmax(self.qk(x) @ self.qk(x).mT, -1) @ x


def test_a_layer_called_twice_is_pruned():
    assert half(Attention(), data=[vectors(seed=s) for s in range(3)]).density == 0.5


def test_images_labels_and_rows_of_text():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    half(ViTForImageClassification(config).eval(), data=torch.randn(3, 3, 16, 16))
    labelled = DataLoader(TensorDataset(torch.randn(32, 16), torch.zeros(32)), 8)
    half(nn.Sequential(nn.Linear(16, 8)), data=labelled)
    rows = [{"text": "some words " * 40}, {"text": "more of them " * 40}]
    model = tiny_llama()
    record = half(model, data=rows, tokenizer=byte_tokenizer(), windows=2, length=64)
    assert record.calibration == {"source": "data", "windows": 2, "length": 64}
    with pytest.raises(DataError, match="takes token ids, and the data is a tensor of"):
        half(model, data=torch.randn(2, 8))


def test_windows_that_do_not_fit_the_model_are_named(tmp_path):
    with pytest.raises(DataError, match=r"windows of 40 tokens are longer than the 32 positions"):
        half(bert(), data=tokens(2, 40))
    with pytest.raises(DataError, match=r"token 60 is beyond the 60 of BertModel's vocabulary"):
        half(bert(), data=tokens(2, 24) + 1)
    bert().save_pretrained(tmp_path / "model")
    recipe = as_recipe("wanda").with_options(0.5)
    with pytest.raises(DataError, match="longer than the 32 positions"):
        prune_folder(tmp_path / "model", tmp_path / "out", recipe, tokens(2, 40))


def test_patterns_that_match_nothing_are_named(tmp_path):
    with pytest.raises(OptionError, match=r"include='\*.v_prj' matches no layer .* 'v_proj'"):
        half(llama(), "magnitude", include=["*.v_prj"])
    # Of a small model all names are told.
    small = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 4))
    with pytest.raises(OptionError, match=r"matches no layer of Sequential; known: 0\.0, 1;"):
        half(small, "magnitude", include=["zzz*"])
    # Programs share lists of what to leave out among architectures.
    with pytest.warns(UserWarning, match=r"include='\*.layers.0.\*' changes nothing.* exclude the"):
        th.prune(llama(), "magnitude", density=0.5, include=["*.layers.0.*"], progress=False)
    with pytest.warns(UserWarning, match=r"exclude='\*.v_prj' matches no layer .* 'v_proj'"):
        half(llama(), "magnitude", exclude=["*.v_prj"])
    with pytest.raises(OptionError, match="pass a list"):
        half(llama(), "magnitude", exclude="*.v_proj")
    llama().save_pretrained(tmp_path / "model")
    recipe = as_recipe("magnitude").with_options(0.5)
    options = DiskOptions(exclude=["*.v_prj"])
    with pytest.raises(OptionError, match=r"exclude='\*.v_prj' matches no layer"):
        prune_folder(tmp_path / "model", tmp_path / "out", recipe, None, options)


def test_the_name_of_an_expert_is_a_pattern_of_it():
    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=8,
        num_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    names = [layer.name for layer in half(Qwen3MoeForCausalLM(config), "magnitude").layers]
    for name in names:
        record = half(Qwen3MoeForCausalLM(config), "magnitude", exclude=[name])
        assert [layer.name for layer in record.layers] == [each for each in names if each != name]


def test_a_tied_weight_may_be_stored_under_either_name(tmp_path):
    model = llama(tied=True)
    source, out = tmp_path / "model", tmp_path / "out"
    model.save_pretrained(source)
    # As safetensors.torch.save_model keeps it.
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    prune_folder(source, out, as_recipe("magnitude").with_options(0.5), None)
    loaded = type(model).from_pretrained(out)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_a_head_may_be_included_from_disk_too(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    recipe = as_recipe("wanda").with_options(0.5)
    options = DiskOptions(include=["lm_head"], progress=False)
    record = prune_folder(tmp_path / "model", tmp_path / "out", recipe, tokens(), options)
    assert record.layers[-1].name == "lm_head"
    again = half(llama(), data=tokens(), include=["lm_head"])
    assert [a.kept for a in record.layers] == [b.kept for b in again.layers]


def test_the_same_run_again_is_known_to_have_ended(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    recipe, out = as_recipe("wanda").with_options(0.5), tmp_path / "out"
    first = prune_folder(tmp_path / "model", out, recipe, tokens())
    written = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    again = prune_folder(tmp_path / "model", out, recipe, tokens())
    assert again.to_json() == first.to_json()
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == written
    with pytest.raises(OptionError, match="exists, and is not of this run"):
        prune_folder(tmp_path / "model", out, recipe, tokens(seed=1))
    # Another model of the same names and sizes is another run.
    llama(seed=1).save_pretrained(tmp_path / "model")
    with pytest.raises(OptionError, match="exists, and is not of this run"):
        prune_folder(tmp_path / "model", out, recipe, tokens())


def test_parts_that_are_compiled_are_pruned_and_saved_under_their_own_names(tmp_path):
    model, plain = llama(), llama()
    model.model.layers[0] = torch.compile(model.model.layers[0], backend="eager")
    records = [half(each, "wanda", tokens()) for each in (model, plain)]
    assert [layer.name for layer in records[0].layers] == [
        layer.name for layer in records[1].layers
    ]
    assert hasattr(model.model.layers[0], "_orig_mod")
    th.save(model, tmp_path / "out")
    loaded = type(plain).from_pretrained(tmp_path / "out")
    for name, weight in plain.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "best", "structured"])
def test_inference_mode_around_a_run_changes_nothing(method):
    plain, inside = llama(), llama()
    options = {"density": 0.6 if method == "structured" else 0.5, "progress": False}
    expected = th.prune(plain, method, tokens(), **options)
    with torch.inference_mode():
        found = th.prune(inside, method, tokens(), **options)
    if method == "structured":
        plain, inside = expected, found
    for a, b in zip(plain.parameters(), inside.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not b.is_inference()
    inside(input_ids=tokens(), labels=tokens()).loss.backward()


def test_weights_that_cannot_be_changed_are_named():
    with torch.inference_mode():
        model = mlp()
    with pytest.raises(LayerError, match=r"made under torch\.inference_mode"):
        half(model, "magnitude")
    half(copy.deepcopy(model), "magnitude")
    model = mlp()
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    last.weight = nn.Parameter(torch.ones(last.in_features).expand(last.out_features, -1))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(LayerError, match="one number in memory"):
        half(model, "magnitude")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Hollow(nn.Module):
    """Has a layer without outputs, and one without inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 0), nn.Linear(0, 8)

    def forward(self, x):
        return self.a(x) + self.c(self.b(x))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_layers_without_weights_are_left_alone(method):
    model = Hollow()
    record = half(model, method, torch.randn(4, 8))
    assert [layer.name for layer in record.layers] == ["a"]
    assert int((model.a.weight == 0).sum()) == 32


def test_weights_that_other_processes_hold_are_named():
    model = llama()
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    with pytest.raises(LayerError, match="q_proj' is empty: it is shared out"):
        half(model, "magnitude")


class Mystery(nn.Module):
    """Multiplies by most of its weights in a way that no layer does."""

    def __init__(self):
        super().__init__()
        self.first, self.table = nn.Linear(8, 8), nn.Parameter(torch.randn(8, 64))

    def forward(self, x):
        return self.first(x) @ torch.linalg.pinv(self.table).mT


def test_what_is_not_understood_is_said_aloud():
    with pytest.warns(UserWarning, match=r"88% of .* not understood .* such as 'table'"):
        half(Mystery(), "magnitude")


def test_where_nothing_can_be_pruned_what_is_not_understood_is_named():
    model = Mystery()
    model.first = nn.Identity()
    with pytest.raises(LayerError, match=r"no layer to prune.* How 'table' is used is not und"):
        half(model, "magnitude")
