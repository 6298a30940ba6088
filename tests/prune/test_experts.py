"""Whole experts go, with their rows of the router, and the configuration says how many are left."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from model_folders import save_folder
from small_models import llama, tokens
from torch import nn

import thresher as th
from thresher.core.card import catalogue
from thresher.core.errors import DataError, LayerError, OptionError
from thresher.core.remembered import remembered
from thresher.parts.coverage import find_layers
from thresher.parts.experts import GateWeight, HitRate, Routing, find_mixtures
from thresher.prune.expert_recipe import ExpertRecipe, Seen
from thresher.prune.stun import STUN
from thresher.prune.task_experts import TaskExperts
from thresher.stream.routing import collect_routing

METHODS = [name for name, kind in catalogue().items() if issubclass(kind, ExpertRecipe)]
EACH = pytest.mark.parametrize("method", METHODS)
SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
}
KINDS = {
    "Mixtral": {"num_local_experts": 6, "intermediate_size": 24},
    "Olmoe": {"num_experts": 6, "intermediate_size": 24},
    "Qwen3Moe": {"num_experts": 6, "moe_intermediate_size": 24, "intermediate_size": 24},
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def moe(kind="Mixtral", seed=0, **changes):
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**(SIZES | KINDS[kind] | changes))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.shape == (6, 16):  # that of a router, which some begin with zeros
                parameter.normal_(0, 1)
            elif "norm" not in name:
                parameter.normal_(0, 0.1)
    return model


def routers(model):
    return [m.weight for m in model.modules() if getattr(m, "weight", None) is not None
            and m.weight.shape[0] == 6]  # fmt: skip


def masked_logits(model, removed, monkeypatch, rows):
    """Return what a model gives whose routers never choose some experts."""
    gone = dict(zip(map(id, routers(model)), removed, strict=True))
    plain = F.linear

    def linear(x, weight, bias=None):
        made = plain(x, weight, bias)
        if id(weight) in gone:
            made[..., gone[id(weight)]] = -torch.inf
        return made

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(F, "linear", linear)
        return model(rows).logits


def removed_of(small):
    return list(remembered(small).structure["removed"].values())


def test_there_are_methods():
    assert {"task-experts", "stun"} <= set(METHODS)


@EACH
@EVERY
def test_models_become_smaller_and_say_so(method, kind, tmp_path):
    model = moe(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = th.prune(model, method, tokens(), density=0.6, progress=False)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    record = remembered(small)
    assert record.method == method
    assert record.density == pytest.approx(0.6, abs=0.08)
    left = {name: int((p != 0).sum()) for name, p in small.named_parameters()}
    layers = {layer.name.partition("[")[0] for layer in record.layers}
    assert sum(la.kept for la in record.layers) == sum(
        left.get(name, left.get(f"{name}.weight")) for name in layers
    )
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    again = type(record).from_json(record.to_json())
    assert again.structure == record.structure
    th.save(small, tmp_path / "small")
    loaded = type(model).from_pretrained(tmp_path / "small").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens(1)).logits, small(tokens(1)).logits)


@EVERY
@pytest.mark.parametrize("density", [0.7, 0.45])
def test_what_is_left_never_chooses_what_went(kind, density, monkeypatch):
    model = moe(kind)
    small = th.prune(model, "task-experts", tokens(), density=density, progress=False)
    removed = removed_of(small)
    assert len({len(gone) for gone in removed}) == 1
    with torch.no_grad():
        found = small(tokens(2)).logits
    expected = masked_logits(model, removed, monkeypatch, tokens(2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(found, model(tokens(2)).logits, atol=1e-3)


@EVERY
def test_one_expert_may_be_left_of_those_that_choose_two(kind):
    small = th.prune(moe(kind), "task-experts", tokens(), density=0.32, progress=False)
    assert {len(gone) for gone in removed_of(small)} == {5}
    assert small.config.num_experts_per_tok == 1
    assert small(tokens(1)).logits.isfinite().all()


@EACH
def test_the_same_call_gives_the_same(method):
    first, second = (
        th.prune(moe(), method, tokens(), density=0.6, progress=False).state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_experts_that_are_given_most_weight_stay():
    model = moe("Olmoe")
    seen = {}
    hooks = [
        layer.mlp.gate.register_forward_hook(
            lambda _, __, out, i=i: seen.setdefault(i, []).append((out[2], out[1]))
        )
        for i, layer in enumerate(model.model.layers)
    ]
    small = th.prune(model, "task-experts", tokens(), density=0.7, progress=False)
    for hook in hooks:
        hook.remove()
    for index, gone in enumerate(removed_of(small)):
        weights = Counter()
        for chosen, alphas in seen[index]:
            for expert, alpha in zip(
                chosen.flatten().tolist(), alphas.flatten().tolist(), strict=True
            ):
                weights[expert] += alpha
        least = sorted(range(6), key=lambda expert: weights[expert])[: len(gone)]
        assert gone == sorted(least)


def routing(hits, weights=None):
    found = Routing(len(hits))
    found.tokens = 100
    found.hits = torch.tensor(hits, dtype=torch.float64)
    found.weights = torch.tensor(weights or hits, dtype=torch.float64)
    return found


def test_scores_are_means_over_all_tokens():
    found = Routing(3)
    found.update(torch.tensor([[0, 2], [2, 0]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    found.update(torch.tensor([[2, 1]]), torch.tensor([[1.0, 0.0]]))
    assert found.tokens == 3
    assert HitRate()(found).tolist() == pytest.approx([2 / 3, 1 / 3, 1])
    assert GateWeight()(found).tolist() == pytest.approx([1.25 / 3, 0, 1.75 / 3])
    assert found.together.tolist() == [[2, 0, 2], [0, 1, 1], [2, 1, 3]]


def seen(known, keep, *, few=(), always=(), weights=None, rows=None):
    mask = torch.zeros(known.count, dtype=torch.bool)
    marked = [mask.index_fill(0, torch.tensor(some, dtype=torch.long), True)
              for some in (list(always), list(few))]  # fmt: skip
    rows = torch.eye(known.count) if rows is None else rows
    weights = [torch.eye(known.count)[:, None]] if weights is None else weights
    return Seen(known, rows, weights, keep, *marked)


def test_experts_that_few_chose_are_judged_by_the_mean_of_others_or_stay():
    known = routing([50, 30, 1, 10])
    assert TaskExperts().choose(seen(known, 2)) == [0, 1]
    # The mean of 50, 30 and 10 comes between the first two.
    assert TaskExperts().choose(seen(known, 2, few=[2])) == [0, 1]
    assert TaskExperts().choose(seen(known, 3, few=[2])) == [0, 1, 2]
    assert TaskExperts().choose(seen(known, 2, always=[2])) == [0, 2]


def test_experts_that_few_chose_can_stop_the_run():
    model = moe()
    mixtures = find_mixtures(model, find_layers(model))
    hits = [r.hits for r in collect_routing(model, mixtures, [tokens()]).values()]
    least = 1 + max(int(each.min()) for each in hits)
    few = [set((each < least).nonzero().flatten().tolist()) for each in hits]
    options = {"density": 0.7, "least": least}
    first = ", ".join(map(str, sorted(few[0])))
    with pytest.raises(DataError, match=rf"experts {first} of '.*experts' were chosen by fewer"):
        th.prune(model, TaskExperts(few="stop", **options), tokens())
    with pytest.raises(OptionError, match=r"6 experts of .* and only 4 are to stay"):
        th.prune(model, TaskExperts(few="keep", least=10**6, density=0.7), tokens())
    small = th.prune(model, TaskExperts(few="keep", **options), tokens(), progress=False)
    assert all(not set(gone) & idle for gone, idle in zip(removed_of(small), few, strict=True))
    plain = th.prune(model, "task-experts", tokens(), density=0.7, progress=False)
    assert all(set(gone) & idle for gone, idle in zip(removed_of(plain), few, strict=True))


def test_one_of_experts_that_are_alike_stays():
    base = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    rows = base[[0, 1, 0, 2, 1, 0]] + 0.01 * torch.randn(
        6, 8, generator=torch.Generator().manual_seed(1)
    )
    # Of 0, 2 and 5 the last is nearest to their mean; of 1 and 4 both are, and the first stays.
    weights = [torch.tensor([0.0, 1, 9, 5, 2, 4])[:, None, None]]
    assert STUN().choose(seen(routing([1] * 6), 3, rows=rows, weights=weights)) == [1, 3, 5]
    assert STUN().choose(seen(routing([1] * 6), 6, rows=rows, weights=weights)) == [*range(6)]
    kept = STUN().choose(seen(routing([1] * 6), 4, rows=rows, weights=weights, always=[0]))
    assert kept == [0, 1, 2, 3]


def test_experts_that_are_chosen_together_are_alike():
    known = routing([1] * 4)
    known.together[:] = torch.eye(4)
    known.together[0, 3] = known.together[3, 0] = 5
    weights = [torch.arange(4.0)[:, None, None]]
    assert STUN(coactivation=2.0).choose(seen(known, 3, weights=weights)) == [0, 1, 2]


def test_weights_go_after_experts_down_to_the_density():
    small = th.prune(moe(), "stun", tokens(), density=0.5, progress=False)
    record = remembered(small)
    layers = find_layers(small)
    left = sum(int((layer.weight != 0).sum()) for layer in layers)
    whole = record.structure["weights"]["before"]
    assert left == record.structure["weights"]["after"]
    assert left / whole == pytest.approx(0.5, abs=1e-3)
    assert sum(layer.weight.numel() for layer in layers) / whole == pytest.approx(0.8, abs=0.08)


def test_mixtures_are_found_with_all_that_has_an_index_for_each_expert():
    model = moe("Qwen3Moe")
    found = find_mixtures(model, find_layers(model))
    assert [mixture.router for mixture in found] == [
        f"model.layers.{i}.mlp.gate.weight" for i in range(2)
    ]
    assert {path.rpartition(".")[2] for path in found[0].members} == {
        "weight",
        "gate_up_proj",
        "down_proj",
    }


def test_a_router_that_could_be_one_of_two_is_named():
    model = moe()
    block = next(m for m in model.model.layers[0].children() if hasattr(m, "experts"))
    block.other = nn.Linear(16, 6, bias=False)
    with pytest.raises(LayerError, match=r"not clear what chooses .*gate\.weight, .*other\.weight"):
        find_mixtures(model, find_layers(model))


@EACH
def test_models_without_experts_are_named(method):
    with pytest.raises(LayerError, match="LlamaForCausalLM has no mixture of experts"):
        th.prune(llama(), method, tokens(), density=0.5)
    with pytest.raises(LayerError, match="Sequential is no model of transformers"):
        th.prune(nn.Sequential(nn.Linear(4, 4)), method, torch.randn(3, 4), density=0.5)


@EACH
def test_densities_that_cannot_be_reached_say_the_nearest(method):
    recipe = catalogue()[method]
    options = {"experts": 0.1} if method == "stun" else {}
    with pytest.raises(OptionError, match=r"density 0\.1 cannot be .* nearest density is 0\.\d"):
        th.prune(moe(), recipe(density=0.1, **options), tokens())
    with pytest.raises(OptionError, match=r"with one less of each of 2 mixtures"):
        th.prune(moe(), recipe(density=0.99), tokens())


@EACH
def test_options_out_of_range_are_named(method):
    kind = catalogue()[method]
    for bad in ({"density": 0}, {"density": 1.0}, {"least": -1}, {"few": "drop"}):
        with pytest.raises(OptionError, match=next(iter(bad))):
            kind(**bad)
    with pytest.raises(OptionError, match="removes whole experts, and has no pattern"):
        th.prune(moe(), method, tokens(), density=0.5, pattern="2:4")


def test_the_options_of_stun_are_checked():
    for bad in ({"experts": 1}, {"coactivation": -1}):
        with pytest.raises(OptionError, match=next(iter(bad))):
            STUN(**bad)


def test_the_command_writes_a_stock_folder(tmp_path):
    from click.testing import CliRunner
    from transformers import AutoModelForCausalLM

    from thresher.cli import main

    source = save_folder(moe(vocab_size=256), tmp_path / "dense")
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 100)
    arguments = ["prune", str(source), "--method", "task-experts", "--density", "0.6"]
    arguments += ["--out", str(tmp_path / "small"), "--calibration", str(text)]
    arguments += ["--windows", "4", "--length", "32"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "of experts and what goes with it" in " ".join(result.output.split())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert loaded.config.num_local_experts < 6
