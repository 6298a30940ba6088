"""Diagnostics of feed-forward networks: errors of truncation, and what perplexity affords."""

import math

import pytest
import torch
from small_models import cnn, images, llama, tokens

import thresher as th
from thresher.activate.cett import CETT
from thresher.activate.networks import find_networks, see_networks
from thresher.activate.sparsing_law import SparsingLaw
from thresher.core.errors import DataError, LayerError, OptionError
from thresher.parts.activations.attached import attached
from thresher.parts.activations.truncation import threshold_at_error, truncation_errors


def test_truncation_errors_by_hand():
    matrix = torch.tensor([[3.0, 0.0, 1.0], [0.0, 4.0, 0.0]])
    rows = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    sizes = rows.abs() * matrix.norm(dim=0)
    found = truncation_errors(rows, matrix, sizes, 3.5)
    torch.testing.assert_close(found, torch.tensor([3 / 5, 1 / 17**0.5, 0.0]))


def test_the_threshold_is_the_largest_that_the_error_allows():
    torch.manual_seed(0)
    rows, matrix = torch.randn(200, 32).relu(), torch.randn(8, 32)
    sizes = rows * matrix.norm(dim=0)
    for error in (0.0, 0.1, 0.3):
        bound = threshold_at_error(rows, matrix, sizes, error)
        assert float(truncation_errors(rows, matrix, sizes, float(bound)).mean()) <= error
        above = sizes[sizes > bound].min() * 1.0001
        assert float(truncation_errors(rows, matrix, sizes, float(above)).mean()) > error
    with pytest.raises(DataError, match="no token reaches"):
        threshold_at_error(rows[:0], matrix, sizes[:0], 0.2)


def test_without_error_a_relu_model_has_its_own_zeros():
    model = llama(hidden_act="relu")
    found = CETT(0.0).measure(model, tokens())
    rows = [seen.rows for seen in see_networks(find_networks(model, tokens()))]
    expected = [float((each == 0).float().mean()) for each in rows]
    assert found.sparsities == pytest.approx(expected)
    assert 0.2 < found.sparsity < 0.8
    assert CETT(0.0).measure(llama(), tokens()).sparsity < 0.01


def test_what_is_dropped_costs_the_error_and_is_counted():
    model, data = llama(hidden_size=64, intermediate_size=128), tokens(16)
    before = model(input_ids=data).logits
    found = CETT(0.2).measure(model, data)
    assert found.errors == pytest.approx([0.2] * 3, abs=0.01)
    assert max(found.errors) <= 0.2
    down = model.model.layers[0].mlp.down_proj
    rows = []
    handle = down.register_forward_pre_hook(lambda _, args: rows.append(args[0].detach()))
    with found.applied() as tallies, torch.no_grad():
        # The hook sees what comes before the selection.
        model(input_ids=data)
    handle.remove()
    first = tallies["model.layers.0.mlp.down_proj.sparse_inputs"]
    kept = rows[0].abs() * down.weight.norm(dim=0) >= found.thresholds[0]
    assert first.sparsity == pytest.approx(1 - float(kept.float().mean()), abs=1e-4)
    assert first.sparsity == pytest.approx(found.sparsities[0], abs=0.02)
    assert not attached(model)
    assert torch.equal(model(input_ids=data).logits, before)


def test_more_error_is_more_sparsity():
    seen = see_networks(find_networks(llama(), tokens()))
    shares = [CETT(error).of(seen).sparsity for error in (0.0, 0.1, 0.2, 0.5, 1.0)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.95


def test_the_affordable_sparsity_is_the_most_that_the_rise_allows():
    model, data = llama(), tokens(8)

    def loss(model):
        with torch.no_grad():
            return float(model(input_ids=data, labels=data).loss)

    found = [SparsingLaw(rise=p).measure(model, loss, data) for p in (1e-4, 1e-3, 1e-2)]
    shares = [each.sparsity for each in found]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    for p, each in zip((1e-4, 1e-3, 1e-2), found, strict=True):
        assert each.sparse <= each.dense + math.log1p(p)
        with CETT(each.error).measure(model, data).applied():
            assert loss(model) == pytest.approx(each.sparse)
    assert loss(model) == found[0].dense


def test_mistakes_are_named():
    with pytest.raises(OptionError, match="relative to the output"):
        CETT(1.5)
    with pytest.raises(OptionError, match="of the perplexity"):
        SparsingLaw(rise=0)
    with pytest.raises(LayerError, match="no feed-forward network is recognised in _Conv"):
        CETT().measure(cnn(), [images()])
    with pytest.raises(DataError, match="loss of the dense model is nan"):
        SparsingLaw().measure(llama(), lambda model: math.nan, tokens())
    sparse = th.activate(llama(), "teal", tokens(), sparsity=0.5, progress=False)
    with pytest.raises(LayerError, match="take the dense model"):
        CETT().measure(sparse, tokens())
