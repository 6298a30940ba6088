"""Weights that imitate the dense model's outputs, and how far they do."""

import dataclasses

import pytest
import torch
from test_updates import SALIENCY, problem

from thresher.core.errors import NumericalError
from thresher.parts import updates
from thresher.parts.moments import Cross, Gram, HeldOut
from thresher.parts.statistics import Statistics


def paired(pattern=None, seed=0):
    """Return a problem whose layer is given other inputs than the dense model gives it."""
    weight, choose, _, inputs = problem(pattern, rows=16, columns=24, score=SALIENCY, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    mixing = torch.eye(24) + 0.2 * torch.randn(24, 24, generator=generator)
    moved = inputs @ mixing + 0.3 * torch.randn(inputs.shape, generator=generator)
    statistics = Statistics("layer", {Gram, Cross, HeldOut})
    for dense, x in zip(inputs.chunk(3), moved.chunk(3), strict=True):
        statistics.update(x, dense)
    choose = dataclasses.replace(choose, statistics=statistics)
    return weight, choose, statistics, inputs, moved


def test_the_dense_target_is_ridge_regression_on_the_dense_outputs():
    weight, choose, statistics, dense, x = paired()
    choose = dataclasses.replace(choose, keep=weight.numel())
    found, _ = updates.DenseTarget(updates.Keep(), strength=1.0)(weight, choose, statistics)
    ridge = 0.01 * float((x.square().sum(0) / len(x)).mean()) * len(x)
    stacked = torch.cat([x, ridge**0.5 * torch.eye(24)]).double()
    wanted = torch.cat([dense @ weight.T, ridge**0.5 * weight.T]).double()
    exact = torch.linalg.lstsq(stacked, wanted).solution.T.float()
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-4)
    half, _ = updates.DenseTarget(updates.Keep(), strength=0.5)(weight, choose, statistics)
    torch.testing.assert_close(half, (weight + exact) / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "update", [updates.OBS(), updates.ADMM(), updates.LeastSquares()], ids=repr
)
def test_the_dense_target_brings_outputs_nearer_to_the_dense_ones(update):
    weight, choose, statistics, dense, x = paired()
    errors = []
    for each in (update, updates.DenseTarget(update)):
        pruned, mask = each(weight, choose, statistics)
        assert int(mask.sum()) == choose.keep
        errors.append(float((dense @ weight.T - x @ pruned.T).square().sum()))
    assert errors[1] < 0.9 * errors[0]


def test_the_dense_target_needs_the_dense_inputs_of_every_token():
    weight, choose, *_ = paired()
    part = Statistics("layer", {Gram, Cross})
    rows = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    part.update(rows, rows @ torch.randn(24, 24))
    for each in (part, Statistics("layer", {Gram, Cross})):
        each.update(rows[:20])
        alone = dataclasses.replace(choose, statistics=each)
        plain, _ = updates.OBS()(weight, alone, each)
        found, _ = updates.DenseTarget()(weight, alone, each)
        assert torch.equal(plain, found)
    part = Statistics("layer", {Gram, Cross})
    with pytest.raises(NumericalError):
        part.update(rows, rows * float("nan"))


@pytest.mark.parametrize("noise", [0.1, 1.0, 8.0])
def test_the_strength_is_the_best_one_for_what_was_held_out(noise):
    weight, choose, _, dense = problem(rows=16, columns=24, score=SALIENCY)
    generator = torch.Generator().manual_seed(2)
    dense = dense[:120]  # few enough to be fitted too well
    x = dense + noise * torch.randn(dense.shape, generator=generator)
    every, rest = (Statistics("layer", {Gram, Cross, HeldOut}) for _ in range(2))
    for i, (pair, own) in enumerate(zip(dense.chunk(4), x.chunk(4), strict=True)):
        every.update(own, pair, held_out=i == 3)
        if i < 3:
            rest.update(own, pair)
    full = dataclasses.replace(choose, keep=weight.numel())

    def error(strength):
        """Of what is fitted to the others, on what was held out."""
        update = updates.DenseTarget(updates.Keep(), strength=strength)
        found, _ = update(weight, full, rest)
        return float((dense[90:] @ weight.T - x[90:] @ found.T).square().sum())

    grid = torch.linspace(0, 1, 201).tolist()
    best = min(grid, key=error)
    found, _ = updates.DenseTarget(updates.Keep())(weight, full, every)
    expected, _ = updates.DenseTarget(updates.Keep(), strength=best)(weight, full, every)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    # Without any it is the one in the middle.
    found, _ = updates.DenseTarget(updates.Keep())(weight, full, rest)
    half, _ = updates.DenseTarget(updates.Keep(), strength=0.5)(weight, full, rest)
    assert torch.equal(found, half)
