"""The empirical Fisher and its inverse, against dense matrices in float64."""

import itertools

import numpy as np
import pytest
import torch
from part_examples import correlated_inputs, full_statistics

from thresher.core.errors import OptionError
from thresher.parts import patterns, updates
from thresher.parts.chooser import MaskChooser
from thresher.parts.fisher import EmpiricalFisher, FisherSaliency, GradientSamples
from thresher.parts.scores import Magnitude
from thresher.parts.statistics import Statistics
from thresher.parts.updates import hard_thresholding


def gradients(samples=7, weights=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, weights, generator=generator, dtype=torch.float64)


def dense(rows, ridge):
    return ridge * torch.eye(rows.shape[1], dtype=torch.float64) + rows.mT @ rows / len(rows)


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
@pytest.mark.parametrize("samples", [1, 7, 40])
def test_products_equal_those_of_the_dense_matrix(samples, ridge, monkeypatch):
    monkeypatch.setattr("thresher.parts.fisher._WIDTH", 8)  # several parts
    rows, vector = gradients(samples), gradients(1, seed=1)[0]
    fisher, matrix = EmpiricalFisher(rows, ridge), dense(rows, ridge)
    inverse = torch.linalg.inv(matrix)
    near = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(fisher.product(vector), matrix @ vector, **near)
    torch.testing.assert_close(fisher.solve(vector), inverse @ vector, **near)
    torch.testing.assert_close(fisher.inverse_diagonal(), inverse.diagonal(), **near)
    assert fisher.largest() == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-8)
    places = torch.tensor([2, 3, 29])
    part = torch.linalg.solve(matrix[places][:, places], vector[places])
    torch.testing.assert_close(fisher.restricted(places).solve(vector[places]), part, **near)


def test_gradients_in_float32_lose_nothing_to_differences():
    # Along the gradients 1 - explained is a billionth, which float32 cannot tell from 0.
    rows = 1e3 * gradients(3, 10)
    found = EmpiricalFisher(rows.float(), 1e-3).inverse_diagonal()
    expected = torch.linalg.inv(dense(rows.float().double(), 1e-3)).diagonal()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_ridge_is_relative_to_the_mean_diagonal():
    rows = gradients()
    mean = float(dense(rows, 0.0).diagonal().mean())
    assert EmpiricalFisher.damped(rows, 0.1).ridge == pytest.approx(0.1 * mean)
    assert EmpiricalFisher.damped(torch.zeros(3, 4), 0.1).ridge == 1
    with pytest.raises(OptionError, match=r"ridge 0\.0 is out of range"):
        EmpiricalFisher(rows, 0.0)


def test_the_gradients_are_kept_in_order_and_by_column():
    statistics = Statistics("layer", {GradientSamples})
    rows = gradients(4, 15).float().reshape(4, 3, 5)
    for row in rows:
        statistics.update_gradient(row)
        row.zero_()  # the moment holds a copy
    rows = gradients(4, 15).float().reshape(4, 3, 5)
    assert torch.equal(statistics[GradientSamples].value, rows)
    part = statistics.columns(slice(1, 3))[GradientSamples]
    assert torch.equal(part.value, rows[..., 1:3])
    assert part.inverse_diagonal(1.0).shape == (3, 2)


def layer(rows=6, columns=8, samples=5, density=0.5, pattern=None, seed=0):
    """Return weight, chooser and statistics of a layer with that many gradients."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    statistics = Statistics("layer", {GradientSamples})
    for _ in range(samples):
        statistics.update_gradient(torch.randn(rows, columns, generator=generator))
    pattern = pattern or patterns.Unstructured()
    keep = pattern.count(weight.shape, density)
    return weight, MaskChooser(FisherSaliency(), pattern, keep, statistics, (rows, columns))


def matrix_of(choose, damping=0.01):
    rows = choose.statistics[GradientSamples].value.flatten(1).double()
    mean = float(rows.square().mean())
    return dense(rows, damping * mean)


def test_saliency_and_update_equal_the_formulas():
    weight, choose = layer()
    inverse = torch.linalg.inv(matrix_of(choose))
    flat = weight.flatten().double()
    saliency = flat.square() / (2 * inverse.diagonal())
    found = FisherSaliency()(weight, choose.statistics).flatten().double()
    torch.testing.assert_close(found, saliency, rtol=1e-5, atol=1e-7)
    pruned, mask = updates.FisherOBS()(weight, choose, choose.statistics)
    change = torch.zeros_like(flat)
    for q in (~mask.flatten()).nonzero().flatten().tolist():
        change -= flat[q] / inverse[q, q] * inverse[:, q]
    expected = torch.where(mask.flatten(), flat + change, 0)
    torch.testing.assert_close(pruned.flatten().double(), expected, rtol=1e-5, atol=1e-6)


def objective(choose, dense_weight, weight):
    change = (weight - dense_weight).flatten().double()
    return float(change @ matrix_of(choose) @ change / 2)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_hard_thresholding_is_exact_on_its_support_and_ahead_of_one_by_one(density, seed):
    weight, choose = layer(density=density, seed=seed)
    found, mask = updates.HardThresholding()(weight, choose, choose.statistics)
    matrix = matrix_of(choose)
    kept = mask.flatten()
    change = torch.where(kept, 0, -weight.flatten()).double()
    right = -(matrix @ change)[kept]
    change[kept] = torch.linalg.solve(matrix[kept][:, kept], right)
    expected = weight.flatten() + change
    torch.testing.assert_close(found.flatten().double(), expected, rtol=1e-4, atol=1e-5)
    rival, _ = updates.FisherOBS()(weight, choose, choose.statistics)
    assert objective(choose, weight, found) <= objective(choose, weight, rival)


@pytest.mark.parametrize("pattern", [patterns.Unstructured(), patterns.NM(2, 4)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_rises(pattern, seed, monkeypatch):
    weight, choose = layer(pattern=pattern, seed=seed, samples=20)
    seen, original = [], hard_thresholding._Part.step

    def step(self, before):
        moved = original(self, before)
        seen.append((before, moved))
        return moved

    monkeypatch.setattr(hard_thresholding._Part, "step", step)
    found, _ = updates.HardThresholding()(weight, choose, choose.statistics)
    steps = [(before, moved) for before, moved in seen if moved is not None]
    assert steps
    values = [objective(choose, weight, seen[0][0].reshape(weight.shape))]
    for before, moved in steps:
        assert bool((moved != 0).sum() <= choose.keep)
        values.append(objective(choose, weight, before.reshape(weight.shape)))
        values.append(objective(choose, weight, moved.reshape(weight.shape)))
    assert all(after <= before + 1e-6 for before, after in itertools.pairwise(values))
    # The last is solved for exactly; the best of all supports may be another.
    assert objective(choose, weight, found) <= values[-1] + 1e-6


def test_the_active_set_grows_to_what_a_step_of_all_weights_keeps():
    # The smallest weights alone can make up for what the middle ones did.
    weight, choose = layer(rows=8, columns=16, density=0.1, samples=1)
    size = weight.abs()
    active = size >= size.flatten().topk(2 * choose.keep).values[-1]
    small = size <= size.flatten().kthvalue(20).values
    gradient = torch.where(small, 1.0, weight.sign()).masked_fill(active, 1e-7)
    statistics = Statistics("layer", {GradientSamples})
    statistics.update_gradient(gradient)
    largest = MaskChooser(Magnitude(), choose.pattern, choose.keep, statistics, (8, 16))
    _, mask = updates.HardThresholding(damping=1e-3)(weight, largest, statistics)
    assert bool((mask & ~active).any())


def test_weights_that_nothing_moves_are_not_kept():
    weight = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    inputs = correlated_inputs(64, 12)
    inputs[:, 5] = 0
    statistics = full_statistics(inputs, weight)
    choose = MaskChooser(
        FisherSaliency(), patterns.Unstructured(), 36, statistics, tuple(weight.shape)
    )
    weight[:, 5] = 100.0
    _, mask = updates.HardThresholding()(weight, choose, statistics)
    assert not bool(mask[:, 5].any())


def test_layers_stacked_in_one_weight_are_one_block():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, 4, generator=generator)
    statistics = Statistics("experts", {GradientSamples})
    for _ in range(3):
        statistics.update_gradient(torch.randn(2, 3, 4, generator=generator))
    found = FisherSaliency()(weight, statistics)
    rows = statistics[GradientSamples].value.flatten(1).double().numpy()
    matrix = 0.01 * np.mean(rows**2) * np.eye(24) + rows.T @ rows / 3
    expected = weight.flatten().numpy() ** 2 / (2 * np.diag(np.linalg.inv(matrix)))
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-5)
