"""Methods that train: penalties, their gradients, and activations that are exchanged."""

import math

import pytest
import torch
from small_models import gpt2, llama, tokens
from torch import nn
from torch.nn import functional

from thresher.activate.deft import DEFT
from thresher.activate.networks import find_networks
from thresher.activate.penalty import penalised
from thresher.activate.prosparse import ProSparse
from thresher.core.errors import DataError, LayerError, OptionError
from thresher.parts.activations.attached import attached, counting


def test_a_penalty_is_the_mean_over_networks_and_its_gradient_reaches_the_weights():
    model, rows = llama(hidden_act="relu"), tokens(2)
    networks = find_networks(model, rows)
    hidden = []
    with networks.watched(lambda network, x: hidden.append(x)):
        with penalised(networks, torch.Tensor.abs) as penalty:
            model(input_ids=rows)
            value = penalty()
            assert penalty.density == pytest.approx(
                float(torch.stack([(x != 0).float().mean() for x in hidden]).mean())
            )
        expected = torch.stack([x.abs().mean() for x in hidden]).mean()
    torch.testing.assert_close(value, expected)
    weight = model.model.layers[-1].mlp.gate_proj.weight
    (found,) = torch.autograd.grad(value, weight, retain_graph=True)
    (by_hand,) = torch.autograd.grad(expected, weight)
    torch.testing.assert_close(found, by_hand)
    assert float(found.abs().sum()) > 0
    with pytest.raises(DataError, match="call the model first"):
        penalty()


def test_passes_without_gradients_are_not_penalised():
    model, rows = llama(), tokens(2)
    with DEFT().penalised(model, rows) as penalty:
        with torch.no_grad():
            model(input_ids=rows)
        with pytest.raises(DataError, match="no network ran"):
            penalty()


def test_defts_density_and_gradient_by_hand():
    a = torch.tensor([0.0, 0.1, -0.1, 1.0], requires_grad=True)
    found = DEFT(weight=2.0, sharpness=10.0).density(a)
    expected = torch.tensor([0.0, math.tanh(1), math.tanh(1), math.tanh(10)])
    torch.testing.assert_close(found, 2 * expected)
    found.sum().backward()
    slope = 20 * (1 - math.tanh(1) ** 2)
    torch.testing.assert_close(a.grad[:3], torch.tensor([0.0, slope, -slope]))


def trained(model, rows, penalty, parameters, steps=30):
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for step in range(steps):
        loss = model(input_ids=rows, labels=rows).loss + penalty(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_deft_trains_adapters_to_fewer_active_neurons():
    peft = pytest.importorskip("peft")
    model, rows = llama(hidden_act="relu"), tokens(4)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with DEFT(weight=3.0).penalised(model, rows) as penalty:
        config = peft.LoraConfig(r=4, target_modules=["gate_proj", "up_proj"])
        adapted = peft.get_peft_model(model, config)
        few = [p for p in adapted.parameters() if p.requires_grad]
        densities = []

        def step(_):
            value = penalty()
            densities.append(penalty.density)
            return value

        trained(adapted, rows, step, few)
    assert densities[-1] < 0.6 * densities[0]
    frozen = {name.replace("base_layer.", ""): p for name, p in model.named_parameters()}
    assert all(torch.equal(frozen[name], value) for name, value in before.items())


def test_factors_rise_along_half_a_sine():
    method = ProSparse(peaks=(0.1, 0.5, 0.9), steps=(10, 20, 40))
    for step in range(11, 21):
        sine = (math.sin(-math.pi / 2 + math.pi * (step - 10) / 10) + 1) / 2
        assert method.factor_at(step) == pytest.approx(0.1 + 0.4 * sine)
    factors = [method.factor_at(step) for step in range(60)]
    assert factors == sorted(factors)
    assert factors[0] == factors[10] == 0.1
    assert factors[-1] == 0.9
    assert ProSparse(peaks=(0.2,), steps=(5,)).factor_at(100) == 0.2


RELU = {llama: "hidden_act", gpt2: "activation_function"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", RELU)
def test_relus_take_the_place_of_other_activations(make, tmp_path):
    model, rows = make(), tokens(4)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    networks = ProSparse().substitute(model, rows)
    assert {network.activation for network in networks.networks} == {functional.relu}
    assert len(networks.networks) == 3
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())
    expected = make(**{RELU[make]: "relu"})(input_ids=rows).logits
    torch.testing.assert_close(model(input_ids=rows).logits, expected)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(type(model).from_pretrained(tmp_path)(rows).logits, expected)


def test_a_configuration_that_cannot_say_so_is_named():
    model, rows = llama(), tokens(2)
    model.model.layers[1].mlp.act_fn = nn.GELU()  # which no model of a configuration would have
    del model.config.hidden_act
    with pytest.warns(UserWarning, match=r'model\.config\.hidden_act = "relu"'):
        ProSparse().substitute(model, rows)


def test_activations_that_are_no_modules_are_named():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x):
            return x + self.down(functional.gelu(self.up(x)))

    model = nn.Sequential(nn.ModuleList([Block(), Block()])[0], Block())
    holder = nn.Module()
    holder.blocks = nn.ModuleList(model)
    holder.forward = lambda x: model(x)
    with pytest.raises(LayerError, match=r"layer 'blocks\.0\.up' \('gelu'\) is no module"):
        ProSparse().substitute(holder, torch.randn(64, 16))


def test_activations_that_others_use_are_named():
    model = llama()
    for block in model.model.layers:
        block.mlp.act_fn = model.model.layers[0].mlp.act_fn
    networks = ProSparse().substitute(model, tokens())  # shared by the networks alone
    assert {network.activation for network in networks.networks} == {functional.relu}
    model = llama()
    act, head = model.model.layers[0].mlp.act_fn, model.model.norm
    head.register_forward_hook(lambda module, args, output: act(output))
    with pytest.raises(LayerError, match="activates something else as well"):
        ProSparse().substitute(model, tokens())
    assert model.model.layers[1].mlp.act_fn is not act
    assert not isinstance(act, nn.ReLU)


def test_blocks_that_are_run_again_count_once():
    model, rows = llama(hidden_act="relu"), tokens(2)
    with DEFT().penalised(model, rows) as penalty:
        model(input_ids=rows)
        expected = penalty().detach()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        for _ in range(2):
            loss = model(input_ids=rows, labels=rows).loss
            value = penalty()
            torch.testing.assert_close(value.detach(), expected)
            (loss + value).backward()


def test_prosparse_trains_to_few_active_neurons_and_shifts_the_rest():
    model, rows = llama(hidden_size=32, intermediate_size=64), tokens(4)
    method = ProSparse(peaks=(1.0, 5.0), steps=(10, 30), threshold=0.05)
    networks = method.substitute(model, rows)
    with method.penalised(networks) as penalty:
        trained(model, rows, lambda step: penalty(step), list(model.parameters()))
        assert penalty.collected.density < 0.4
    with torch.no_grad():
        before = model(input_ids=rows).logits
        method.shift(networks)
        with counting() as tallies:
            after = model(input_ids=rows).logits
    assert {side for _, side in attached(model)} == {"outputs"}
    assert all(tally.sparsity > 0.6 for tally in tallies.values())
    assert not torch.equal(before, after)
    gate = networks.networks[0].gate.module
    x = torch.randn(5, 32)
    z = functional.linear(x, gate.weight)
    torch.testing.assert_close(gate(x).relu(), torch.where(z >= 0.05, z, 0))


def test_what_needs_relus_names_the_method_that_makes_them():
    networks = find_networks(llama(), tokens())
    with pytest.raises(LayerError, match=r"gate_proj' gives is activated by 'silu'.*'prosparse'"):
        ProSparse().shift(networks)
    with pytest.raises(LayerError, match="'prosparse'"), ProSparse().penalised(networks):
        pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peaks": (1, 2), "steps": (5,)}, "2 peaks and 1 stages"),
        ({"peaks": (2, 1), "steps": (5, 6)}, "must ascend"),
        ({"peaks": (1, 2), "steps": (5, 5)}, "must ascend"),
        ({"peaks": (), "steps": ()}, "0 peaks"),
        ({"threshold": -1}, "threshold, of activations"),
    ],
)
def test_stages_that_make_no_sense_are_named(options, said):
    with pytest.raises(OptionError, match=said):
        ProSparse(**options)
    with pytest.raises(OptionError, match="sharpness"):
        DEFT(sharpness=0)
