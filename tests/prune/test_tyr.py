"""Týr: its score and its supernet against transcriptions, and a search that moves units."""

import numpy as np
import pytest
import torch
from small_models import bert, encoder_inputs, llama, tokens

import thresher as th
from thresher.core.errors import DataError, OptionError
from thresher.core.remembered import remembered
from thresher.parts.evolution import Evolution
from thresher.parts.moments import Gram
from thresher.parts.rankings import GreedyOBS
from thresher.parts.statistics import Statistics
from thresher.parts.updates import DenseTarget, LeastSquares
from thresher.prune.likeness import Likeness
from thresher.prune.supernet import Supernet, alone
from thresher.prune.tyr import Tyr, _shifted
from thresher.prune.unit_refit import made_up

SEARCH = Evolution(generations=2, offspring=8, most=1)
RECIPE = Tyr(density=0.6, iterations=1, search=SEARCH)


def small(**changes):
    return llama(num_hidden_layers=2, **changes)


def test_units_go_in_the_order_of_algorithm_1():
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 6, generator=generator)
    inputs = torch.randn(300, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    statistics = Statistics("layer", {Gram})
    statistics.update(inputs)
    labels = torch.arange(6).expand(5, 6)
    ranking = GreedyOBS(damping=1e-9, rounds=100, first_order=True)
    order = ranking(weight, labels, 6, statistics).argsort().tolist()
    moment = (inputs.T @ inputs / len(inputs)).double()
    slope, left, expected = moment @ weight.T.double(), list(range(6)), []
    while left:
        inverse = torch.linalg.inv(moment[left][:, left])
        now = inverse @ slope[left]
        first = (slope[left] * now).sum(1).abs()
        gone = int((first + now.square().sum(1) / inverse.diagonal() / 2).argmin())
        expected.append(left.pop(gone))
    assert order == expected
    plain = GreedyOBS(damping=1e-9, rounds=100)(weight, labels, 6, statistics)
    assert plain.argsort().tolist() != expected


class Watched(Tyr):
    """Look at a supernet of the model, in place of the search."""

    def choose(self, candidates, target):
        self.look(candidates)
        return super().choose(candidates, target)


def inputs_of(model, layer):
    """Return the rows that a layer is given."""
    rows = []
    hook = layer.module.register_forward_pre_hook(lambda _, a: rows.append(a[0].flatten(0, -2)))
    with torch.no_grad():
        for row in tokens():
            model(row[None], use_cache=False)
    hook.remove()
    return torch.cat(rows)


def look(candidates):
    model = candidates.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = alone(candidates)
    assert len(groups) == 4  # heads and neurons of two blocks
    counts = {g.name: [0, 1] if g.size == 2 else [4, 12, 20] for g in groups}
    update = LeastSquares()
    net = Supernet(candidates, GreedyOBS(first_order=True), update, counts)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    layers = {la.name: la for found in candidates.layers.values() for la in found}
    first, last = (layers[f"model.layers.{i}.mlp.down_proj"] for i in range(2))
    name = next(g.name for g in groups if g.size > 2 and "layers.0" in g.name)
    variants = []
    for width in range(3):
        with net.using({name: width}):
            variants.append(first.weight.clone())
            assert int((first.weight == 0).all(0).sum()) == counts[name][width]
    # The second block is refitted on the expectation over the widths of the first.
    heads = next(g.name for g in groups if g.size == 2 and "layers.0" in g.name)
    with net.using({heads: 1}):
        without = layers["model.layers.0.self_attn.o_proj"].weight.clone()
    stay = [1 - count / 32 for count in counts[name]]
    mean = sum(s * v for s, v in zip(stay, variants, strict=True)) / sum(stay)
    output = layers["model.layers.0.self_attn.o_proj"]
    kept = output.weight.clone()
    output.overwrite((kept + without / 2) / 1.5)
    first.overwrite(mean)
    statistics = Statistics(last.name, {Gram})
    statistics.update(inputs_of(model, last))
    output.overwrite(kept)
    first.overwrite(before["model.layers.0.mlp.down_proj.weight"])
    later = next(g.name for g in groups if g.size > 2 and "layers.1" in g.name)
    mask = torch.ones(last.weight.shape, dtype=torch.bool)
    mask[:, net.ranked[later].cheapest(20)] = False
    with net.using({later: 2}):
        found = last.weight.clone()
    torch.testing.assert_close(found, made_up(last, mask, update, statistics), rtol=1e-3, atol=1e-5)
    plain = Statistics(last.name, {Gram})
    plain.update(inputs_of(model, last))
    assert not torch.allclose(found, made_up(last, mask, update, plain), rtol=1e-3, atol=1e-5)


def test_the_supernet_is_what_algorithm_2_says():
    recipe = Watched(density=0.6, iterations=1, search=Evolution(1, 1, 1))
    object.__setattr__(recipe, "look", look)
    th.prune(small(), recipe, tokens(), progress=False)


def test_units_go_where_they_are_missed_least():
    model = small()
    with torch.no_grad():  # so that the last block's neurons matter much, the first one's little
        for factor, layer in zip((1e-3, 300), model.model.layers, strict=True):
            layer.mlp.down_proj.weight.mul_(factor)
    pruned = th.prune(model, RECIPE, tokens(), progress=False)
    first, last = (layer.mlp.down_proj.in_features for layer in pruned.model.layers)
    assert first < last
    weights = remembered(pruned).structure["weights"]
    assert weights["after"] / weights["before"] == pytest.approx(0.6, abs=0.05)


def test_shifts_keep_the_sum_of_each_kind():
    rng, kinds, widths = np.random.default_rng(0), ["a", "b", "a", "b", "a"], [3, 5, 3, 5, 3]
    genome, seen = (1, 2, 1, 2, 1), set()
    for _ in range(200):
        genome = _shifted(genome, kinds, widths, rng)
        seen.add(genome)
        assert (genome[0] + genome[2] + genome[4], genome[1] + genome[3]) == (3, 4)
        assert all(0 <= w < most for w, most in zip(genome, widths, strict=True))
    assert len(seen) > 20


def test_a_loss_of_the_users_own_decides():
    losses = []

    def loss(model, sample):
        losses.append(sample)
        return model(**sample)[0].square().mean()

    th.prune(bert(), RECIPE, encoder_inputs(), loss=loss, progress=False)
    assert losses


def test_likeness_is_the_divergence_of_predictions_without_padding():
    model, ids = small(), tokens(2)
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    samples = [{"input_ids": ids, "attention_mask": mask}]
    with torch.no_grad():
        dense = model(**samples[0]).logits[mask.bool()].log_softmax(-1)
        likeness = Likeness(model, samples)
        assert likeness([0]) == pytest.approx(0, abs=1e-6)
        model.lm_head.weight.mul_(1.5)
        changed = model(**samples[0]).logits[mask.bool()].log_softmax(-1)
    expected = (dense.exp() * (dense - changed)).sum(-1).mean()
    assert likeness([0]) == pytest.approx(float(expected), rel=1e-4)
    with pytest.raises(DataError, match="pass data="):
        Likeness(model, [])


def test_likeness_of_what_is_no_prediction_is_a_relative_distance():
    net = torch.nn.Linear(4, 3)
    likeness = Likeness(net, [torch.ones(2, 4)])
    with torch.no_grad():
        net.weight.mul_(2)
        net.bias.mul_(2)
    assert likeness([0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "bad",
    [{"iterations": 0}, {"interval": 0.0}, {"interval": 1.0}, {"update": DenseTarget()}],
)
def test_options_out_of_range_are_named(bad):
    word = "LeastSquares" if "update" in bad else next(iter(bad))
    with pytest.raises(OptionError, match=word):
        Tyr(**bad)
