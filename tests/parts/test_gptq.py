"""Rounding column by column: on the grid, deterministic, and better than rounding to nearest."""

import numpy as np
import pytest
import torch
from part_examples import correlated_inputs

from thresher.parts.column_walk import Levels, sweep
from thresher.parts.gptq import GPTQ
from thresher.parts.moments import Gram
from thresher.parts.statistics import Statistics
from thresher.run.engine.quantize import FourBits


class Fixed:
    """Eight values from the least to the largest weight of each row, in groups of eight columns."""

    width = 8

    def fit(self, part, zero):
        least = part.amin(-1, keepdim=True)
        scale = (part.amax(-1, keepdim=True) - least) / 7
        if zero:
            least = -(-least / scale).round().clamp(0, 7) * scale
        return Levels(scale, least, 7)


GRIDS = pytest.mark.parametrize("grid", [Fixed(), FourBits(1.0)], ids=["eights", "four bits"])
MASKED = pytest.mark.parametrize("masked", [False, True])


def problem(rows=16, columns=72, seed=0):
    """Return weight, statistics and inputs of a correlated layer."""
    inputs = correlated_inputs(500, columns, seed)
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return weight, statistics_of(inputs), inputs


def statistics_of(inputs):
    statistics = Statistics("layer", {Gram})
    statistics.update(inputs)
    return statistics


def mask_of(weight, masked):
    return weight.abs() > 0.6 if masked else None


def nearest(weight, grid, mask):
    """Round every group to the nearest of its own values."""
    parts = []
    for part in (weight if mask is None else weight * mask).split(grid.width, 1):
        levels = grid.fit(part, mask is not None)
        parts.append(levels.values(levels.codes(part)))
    return torch.cat(parts, 1)


@GRIDS
@MASKED
def test_codes_stand_for_values_of_the_grid_and_zeros_stay(grid, masked):
    weight, statistics, _ = problem()
    untouched, mask = weight.clone(), mask_of(weight, masked)
    found = GPTQ()(weight, grid, statistics, mask)
    assert torch.equal(weight, untouched)
    assert (found.codes.dtype, found.codes.shape) == (torch.uint8, weight.shape)
    assert [levels.scale.shape for levels in found.groups] == [(16, 1)] * -(-72 // grid.width)
    for part, levels in zip(found.codes.split(grid.width, 1), found.groups, strict=True):
        assert int(part.max()) <= levels.most
    dense = found.dense()
    if masked:
        assert bool((dense[~mask] == 0).all())
        assert float((dense[mask] == 0).float().mean()) < 0.1
    assert float((dense - nearest(weight, grid, mask)).abs().max()) > 0
    again = GPTQ()(weight, grid, statistics, mask)
    assert torch.equal(found.codes, again.codes)


@GRIDS
@MASKED
@pytest.mark.parametrize("seed", range(3))
def test_outputs_change_less_than_by_rounding_to_nearest(grid, masked, seed):
    weight, statistics, inputs = problem(seed=seed)
    mask = mask_of(weight, masked)
    target = weight if mask is None else weight * mask
    found = GPTQ()(target, grid, statistics, mask).dense()
    errors = [
        float((inputs @ (target - each).T).square().sum())
        for each in (found, nearest(target, grid, mask))
    ]
    assert errors[0] < 0.9 * errors[1]


def reference(weight, gram, grid, mask, damping):
    """Round left to right, each by the exact OBS formula, in float64."""
    weight = weight.double().numpy().copy()
    hessian = gram.double().numpy()
    hessian = hessian + damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    for j in range(weight.shape[1]):
        if j % grid.width == 0:
            here = slice(j, j + grid.width)
            part = torch.from_numpy(weight[:, here]).float() * mask[:, here]
            levels = grid.fit(part, zero=True)
        column = torch.from_numpy(weight[:, j : j + 1]).float()
        value = levels.values(levels.codes(column)).double().numpy()[:, 0] * mask[:, j].numpy()
        inverse = np.linalg.inv(hessian[j:, j:])
        error = (weight[:, j] - value) / inverse[0, 0]
        weight[:, j:] -= error[:, None] * inverse[0]
        weight[:, j] = value
    return weight


@GRIDS
@pytest.mark.parametrize("block_size", [1, 32, 128])
def test_it_is_the_formula_in_float64(grid, block_size):
    weight, statistics, _ = problem(rows=6, columns=72)
    mask = mask_of(weight, True)
    found = GPTQ(block_size=block_size)(weight, grid, statistics, mask).dense()
    expected = reference(weight, statistics[Gram].value, grid, mask, 0.01)
    # A weight halfway between two values may go either way, and what follows with it.
    alike = np.isclose(found.numpy(), expected, rtol=1e-3, atol=1e-4).all(1)
    assert alike.mean() > 0.6


def test_fine_grids_change_nothing():
    class Fine(Fixed):
        def fit(self, part, zero):
            levels = super().fit(part, zero)
            return Levels(levels.scale * 7 / 65535, levels.minimum, 65535)

    weight, statistics, _ = problem()
    part, mask = weight.clone(), torch.ones_like(weight, dtype=torch.bool)
    factor = statistics[Gram].inverse_factor(0.01)
    errors = sweep(part, mask, factor, Fine().fit(weight, False))
    assert float((part - weight).abs().max()) < 1e-2
    assert float(errors.abs().max()) > 0


@MASKED
def test_the_compiled_sweep_equals_the_tensor_sweep(masked):
    weight, statistics, _ = problem(columns=32)
    factor = statistics[Gram].inverse_factor(0.01)
    mask = torch.ones_like(weight, dtype=torch.bool) if not masked else mask_of(weight, True)
    levels = FourBits(1.0).fit(weight, masked)
    stacked = Levels(levels.scale[None], levels.minimum[None], levels.most)
    compiled, batched = weight.clone(), weight.clone()[None]
    errors = sweep(compiled, mask, factor, levels)
    batched_errors = sweep(batched, mask[None], factor[None], stacked)
    rows = torch.isclose(compiled, batched[0], rtol=1e-4, atol=1e-5).all(1)
    assert float(rows.float().mean()) > 0.8
    torch.testing.assert_close(errors[rows], batched_errors[0][rows], rtol=1e-3, atol=1e-4)


def test_rows_without_a_range():
    weight, statistics, _ = problem()
    weight[3], weight[4] = 0, 0.5
    found = GPTQ()(weight, FourBits(1.0), statistics).dense()
    assert bool((found[3] == 0).all())
    torch.testing.assert_close(found[4], weight[4], rtol=0, atol=1e-3)


def test_inputs_that_are_always_zero_are_rounded_to_nearest():
    weight, _, inputs = problem(columns=32)
    inputs[:, [0, 7, 23]] = 0
    grid, statistics = FourBits(1.0), statistics_of(inputs)
    found = GPTQ()(weight, grid, statistics)
    levels = found.groups[0]
    idle = found.dense()[:, [0, 7, 23]]
    assert torch.equal(idle, levels.values(levels.codes(weight[:, [0, 7, 23]])))


@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0, 1e6])
def test_zero_is_one_of_the_values_in_sixteen_bits(size):
    """Scales and minimums of the format are in float16, multiples of a unit."""
    from thresher.run.engine.quantize import unit_of

    weight = size * torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    weight[weight.abs() < size / 2] = 0
    unit = unit_of([weight])
    levels = FourBits(unit).fit(weight, zero=True)
    assert bool((levels.values(levels.codes(torch.zeros(64, 1))) == 0).all())
    for numbers in (levels.scale, levels.minimum):
        held = (numbers / unit).half()
        assert torch.equal(held.float() * unit, numbers)
    change = levels.values(levels.codes(weight)) - weight
    assert float(change.norm() / weight.norm()) < 0.12
