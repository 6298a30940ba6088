"""Zeros that are held stay zero, whatever trains the model, and the kept weights move."""

import copy

import pytest
import torch
from model_folders import tiny_llama
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import thresher as th
from thresher.core.errors import LayerError, OptionError
from thresher.prune.record import PruneRecord
from thresher.run.files.companions import RECORD_FILE
from thresher.run.layouts.masked import Bitmask
from thresher.run.packed.linear import PackedLinear

SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
ADAM = {"lr": 0.01, "weight_decay": 0.1}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, **SGD),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, **SGD, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, **ADAM),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, **ADAM, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, **ADAM, fused=True),
    "groups": lambda p: torch.optim.AdamW(
        [{"params": p[:1], "weight_decay": 0.5}, {"params": p[1:]}], lr=0.01
    ),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
}


def network(pattern="2:4"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 8))
    th.prune(model, "magnitude", pattern=pattern, density=None if ":" in pattern else 0.5)
    return model


def loss_of(model, step):
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
    return (model(x) - 1).square().mean()


def zeros_of(model):
    return {n: p.detach() == 0 for n, p in model.named_parameters() if n.endswith("weight")}


def train(model, optimizer, steps=20, clip=None, scaler=None):
    for step in range(steps):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(model, step)
            (scaler.scale(loss) if scaler else loss).backward()
            if clip is not None:
                if scaler:
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            scaler.step(optimizer) if scaler else optimizer.step()
            if scaler:
                scaler.update()


def check_held(model, zeros, before):
    for name, parameter in model.named_parameters():
        if name in zeros:
            assert torch.equal(parameter == 0, zeros[name]), name
            moved = (parameter != before[name])[~zeros[name]]
            assert moved.all(), name


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("pattern", ["2:4", "unstructured"])
def test_zeros_stay_and_kept_weights_move(name, pattern):
    model = network(pattern)
    zeros, before = zeros_of(model), copy.deepcopy(model.state_dict())
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    with th.hold(model, optimizer):
        train(model, optimizer)
        check_held(model, zeros, before)


def test_without_it_zeros_vanish():
    model = network()
    optimizer = OPTIMIZERS["adamw"](list(model.parameters()))
    th.hold(model, optimizer).remove()
    train(model, optimizer, steps=1)
    assert not (model[0].weight == 0).any()


def test_the_record_forgets_with_the_first_step_what_was_measured():
    model = network()
    record = th.prune(model, "magnitude", density=0.5)
    record.evaluation = {"digest": "d", "pruned_perplexity": 9.0, "sparse_bytes": 7}
    record.tasks = {"task": {"pruned": 0.5}}
    optimizer = OPTIMIZERS["sgd"](list(model.parameters()))
    with th.hold(nn.DataParallel(model), optimizer):
        assert record.evaluation["pruned_perplexity"] == 9
        train(model, optimizer, steps=1)
    assert record.evaluation == {"sparse_bytes": 7}
    assert not record.tasks


def test_what_was_loaded_from_a_folder_is_saved_with_the_record_of_that_folder(tmp_path):
    model = tiny_llama(layers=1)
    record = th.prune(model, "magnitude", density=0.5)
    record.evaluation = {"digest": "d", "pruned_perplexity": 9.0, "sparse_bytes": 7}
    th.save(model, tmp_path / "pruned", record)
    config = AutoConfig.from_pretrained(tmp_path / "pruned")
    config.quantization_config["packed"] = False
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", config=config).train()
    ids = torch.arange(16)[None]
    optimizer = torch.optim.AdamW(loaded.parameters(), **ADAM)
    with th.hold(loaded, optimizer):
        loaded(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    th.save(loaded, tmp_path / "trained")
    saved = PruneRecord.from_json((tmp_path / "trained" / RECORD_FILE).read_text())
    assert saved.method == "magnitude"
    assert saved.evaluation == {"sparse_bytes": 7}
    assert [layer.kept for layer in saved.layers] == [layer.kept for layer in record.layers]


def test_the_record_forgets_when_zeros_are_put_back():
    model = network()
    record = th.prune(model, "magnitude", density=0.5)
    record.evaluation = {"digest": "d", "pruned_perplexity": 9.0, "sparse_bytes": 7}
    held = th.hold(model)
    assert held.apply() == 0
    assert record.evaluation["pruned_perplexity"] == 9
    with torch.no_grad():
        model[0].weight += 1
    assert held.apply() > 0
    assert record.evaluation == {"sparse_bytes": 7}


def test_with_clipping_and_a_scaler():
    model = network()
    zeros, before = zeros_of(model), copy.deepcopy(model.state_dict())
    optimizer = OPTIMIZERS["adamw"](list(model.parameters()))
    th.hold(model, optimizer)
    train(model, optimizer, clip=0.1, scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    check_held(model, zeros, before)


def test_clipping_counts_the_kept_gradients_alone():
    model = network()
    th.hold(model, OPTIMIZERS["adamw"](list(model.parameters())))
    loss_of(model, 0).backward()
    assert (model[0].weight.grad[model[0].weight == 0] == 0).all()
    assert model[0].weight.grad.any()


def test_momentum_from_before_does_not_revive():
    model = network()
    optimizer = OPTIMIZERS["sgd"](list(model.parameters()))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, optimizer, steps=3)
    model.load_state_dict(kept)
    zeros = zeros_of(model)
    with th.hold(model, optimizer):
        train(model, optimizer, steps=3)
    assert all(torch.equal(model.get_parameter(n) == 0, z) for n, z in zeros.items())


def test_gradients_that_are_written_before_the_step_are_masked():
    model = network()
    optimizer = OPTIMIZERS["sgd"](list(model.parameters()))
    th.hold(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not optimizer.state[model[0].weight]["momentum_buffer"][model[0].weight == 0].any()


def test_a_model_without_a_record_is_held_by_its_zeros():
    model = copy.deepcopy(network())
    zeros, before = zeros_of(model), copy.deepcopy(model.state_dict())
    optimizer = OPTIMIZERS["adamw"](list(model.parameters()))
    th.hold(model, optimizer)
    train(model, optimizer)
    check_held(model, zeros, before)


def test_a_weight_that_starts_at_zero_is_trained():
    model = nn.Sequential(*copy.deepcopy(network()), nn.Linear(8, 8))
    nn.init.zeros_(model[3].weight)
    optimizer = OPTIMIZERS["adamw"](list(model.parameters()))
    th.hold(model, optimizer)
    train(model, optimizer, steps=2)
    assert model[3].weight.all()


def test_a_pruned_output_head_is_held_as_its_record_says():
    model = tiny_llama(layers=1, tie_word_embeddings=False)
    others = [n for n, _ in model.named_modules() if n.endswith("proj")]
    th.prune(model, "magnitude", density=0.5, include=["lm_head"], exclude=others)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAM)
    th.hold(model, optimizer)
    ids = torch.arange(16)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    zeros = model.lm_head.weight == 0
    optimizer.step()
    assert zeros.sum() == zeros.numel() // 2
    assert torch.equal(model.lm_head.weight == 0, zeros)


def test_a_wrapped_model_is_known_by_its_parameters():
    model = network()
    zeros, before = zeros_of(model), copy.deepcopy(model.state_dict())
    wrapped = nn.Sequential(nn.Identity(), torch.compile(model, backend="eager"))
    optimizer = OPTIMIZERS["adamw"](list(wrapped.parameters()))
    th.hold(wrapped, optimizer)
    train(model, optimizer)
    check_held(model, zeros, before)


def test_a_tied_weight_is_held_once():
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
    model[2].weight = model[0].weight
    th.prune(model, "magnitude", density=0.5)
    optimizer = OPTIMIZERS["adamw"](list(model.parameters()))
    zeros = model[0].weight == 0
    with th.hold(model, optimizer) as held:
        train(model, optimizer)
        assert torch.equal(model[2].weight == 0, zeros)
        assert len(held._held) == 1


def test_masks_follow_a_parameter_to_another_device():
    (first, _) = th.hold(network())._held
    assert first._removed(torch.empty(16, 16, device="meta")).device.type == "meta"


def test_the_zeros_of_an_optimizer_of_accelerate():
    from accelerate import Accelerator

    model = network()
    zeros, before = zeros_of(model), copy.deepcopy(model.state_dict())
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare(OPTIMIZERS["adamw"](list(model.parameters())))
    th.hold(model, optimizer)
    train(model, optimizer)
    check_held(model, zeros, before)


class _LowRank(nn.Module):
    """An adapter beside a frozen layer, merged into its weight in one of two ways."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))

    def merged(self, anew):
        change = self.up.weight @ self.down.weight
        if anew:
            self.base.weight = nn.Parameter(self.base.weight + change)
        else:
            self.base.weight.data += change
        return self.base


@pytest.mark.parametrize("anew", [False, True])
def test_a_merged_adapter_keeps_zeros(anew):
    model = network()
    zeros, held = zeros_of(model), th.hold(model)
    for index in (0, 2):
        model[index] = _LowRank(model[index])
    trained = [p for p in model.parameters() if p.requires_grad]
    train(model, torch.optim.AdamW(trained, lr=0.01))
    for index in (0, 2):
        model[index] = model[index].merged(anew)
    assert not (model[0].weight == 0).any()
    expected = model[0].weight.detach().clone()
    assert held.apply() == sum(int(z.sum()) for z in zeros.values())
    assert torch.equal(model[0].weight, expected.masked_fill(zeros["0.weight"], 0))
    assert held.apply() == 0


def test_a_merged_copy_gets_its_zeros_by_name():
    model = network()
    held, merged = th.hold(model), copy.deepcopy(model)
    with torch.no_grad():
        merged[0].weight += 1
    assert held.apply(merged) == 128
    assert torch.equal(merged[0].weight == 0, model[0].weight == 0)
    with pytest.raises(LayerError, match=r"'0\.weight', whose zeros are held"):
        held.apply(nn.Sequential(nn.Identity()))
    with pytest.raises(LayerError, match=r"shape \(4, 16\)"):
        held.apply(nn.Sequential(nn.Linear(16, 4), nn.Tanh(), merged[2]))


def test_a_dense_model_is_refused():
    model = nn.Sequential(nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight[0, 0] = 0
    with pytest.raises(LayerError, match="Sequential has no pruned weights: 1 zeros"):
        th.hold(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_an_optimizer_of_other_weights_is_refused():
    model = network()
    with pytest.raises(OptionError, match=r"no optimizer has '0\.weight'"):
        th.hold(model, torch.optim.SGD(model[2].parameters(), lr=0.1))
    model.requires_grad_(False)
    with pytest.raises(OptionError, match=r"'0\.weight', '2\.weight' are frozen.*apply"):
        th.hold(model, torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
    with pytest.raises(OptionError, match=r"a dict is no torch\.optim"):
        th.hold(model, {})


def test_two_optimizers_share_the_weights():
    model = network()
    optimizers = [torch.optim.SGD(layer.parameters(), **SGD) for layer in (model[0], model[2])]
    zeros = zeros_of(model)
    with th.hold(model, *optimizers):
        for step in range(3):
            loss_of(model, step).backward()
            for optimizer in optimizers:
                optimizer.step()
    assert all(torch.equal(model.get_parameter(n) == 0, z) for n, z in zeros.items())


def test_packed_layers_are_to_be_unpacked_first():
    weight = network()[0].weight.detach().bfloat16()
    packed = nn.Sequential(PackedLinear(Bitmask.from_dense(weight)))
    with pytest.raises(LayerError, match=r"packed weight.*thresher export"):
        th.hold(packed)
