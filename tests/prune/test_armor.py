"""ARMOR: the loss never rises, and each step is the best of its kind."""

import itertools

import pytest
import torch

from thresher.core.errors import LayerError, OptionError
from thresher.parts.patterns import NM
from thresher.prune.armor import ARMOR, WrappedCore, _Search


def problem(rows=8, columns=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weight, 0.1 + torch.rand(columns, generator=generator, dtype=torch.float64)


def whole(blocks):
    return torch.block_diag(*blocks)


def test_the_product_is_that_of_the_factors():
    torch.manual_seed(0)
    left, core, right = torch.randn(2, 4, 4), torch.randn(8, 16), torch.randn(4, 4, 4)
    expected = whole(left) @ core @ whole(right)
    torch.testing.assert_close(WrappedCore(left, core, right).matrix(), expected)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_never_rises_and_the_core_keeps_its_pattern(pattern, seed):
    weight, squares = problem(seed=seed)
    found = ARMOR(pattern, block=4, sweeps=20).factor(weight, squares)
    assert len(found.losses) == 21
    assert all(after <= before for before, after in itertools.pairwise(found.losses))
    assert found.losses[-1] < 0.6 * found.losses[0]
    groups = (found.core != 0).reshape(8, 4, 4).sum(-1)
    assert bool((groups == pattern.n).all())


def test_the_first_loss_is_that_of_pruning_alone_and_the_last_that_of_the_product():
    weight, squares = problem()
    normal = weight / weight.norm(dim=0)
    rows = normal.norm(dim=1, keepdim=True)
    normal = normal / rows
    mask = NM(2, 4).mask(normal.square() * squares, 64)
    alone = float(((normal * ~mask).square() * squares).sum())
    found = ARMOR(block=4, sweeps=3).factor(weight, squares)
    assert found.losses[0] == pytest.approx(alone)
    missing = (weight - found.matrix()) / weight.norm(dim=0) / rows
    assert float((missing.square() * squares).sum()) == pytest.approx(found.losses[-1])


@pytest.mark.parametrize("name", ["left", "right"])
def test_outer_factors_are_the_best_for_the_others(name):
    search = _Search(*problem(), NM(2, 4), 4)
    search.choose_groups(torch.Generator().manual_seed(0))
    getattr(search, f"solve_{name}")()
    factor = getattr(search, name).clone().requires_grad_()
    factors = {"left": search.left, "right": search.right} | {name: factor}
    made = whole(factors["left"]) @ search.core @ whole(factors["right"])
    loss = ((search.weight - made).square() * search.squares).sum()
    (slope,) = torch.autograd.grad(loss, factor)
    assert float(slope.abs().max()) < 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_a_group_is_the_best_of_all_masks(seed):
    search = _Search(*problem(rows=4, columns=4, seed=seed), NM(2, 4), 4)
    search.solve_left()
    search.solve_right()
    state = search.core.clone()
    search.choose_groups(torch.Generator().manual_seed(seed))
    (row,) = (search.core != state).any(1).nonzero().flatten().tolist()
    found = search.loss()
    left, right = whole(search.left), whole(search.right)
    scale = search.squares.sqrt()
    others = state.clone()
    others[row] = 0
    rest = (search.weight - left @ others @ right) * scale
    best = float("inf")
    for pair in itertools.combinations(range(4), 2):
        parts = [torch.outer(left[:, row], right[k] * scale).flatten() for k in pair]
        columns, right_side = torch.stack(parts, 1), rest.flatten().unsqueeze(1)
        left_over = right_side - columns @ torch.linalg.lstsq(columns, right_side).solution
        best = min(best, float(left_over.square().sum()))
    assert found == pytest.approx(best, rel=1e-4)


def test_the_same_seed_gives_the_same_factors():
    weight, squares = problem()
    first, second = (ARMOR(block=4, sweeps=5).factor(weight, squares) for _ in range(2))
    assert torch.equal(first.core, second.core)
    assert torch.equal(first.left, second.left)


def test_columns_and_rows_of_zeros_do_no_harm():
    weight, squares = problem()
    weight[:, 3], weight[2], squares[5] = 0, 0, 0
    found = ARMOR(block=4, sweeps=5).factor(weight, squares)
    assert bool(torch.isfinite(found.matrix()).all())


def test_bad_input_is_named():
    with pytest.raises(OptionError, match=r"block 6 is no multiple of the 4"):
        ARMOR(block=6)
    with pytest.raises(OptionError, match=r"2:4/outputs is along the outputs"):
        ARMOR(NM(2, 4, "outputs"))
    with pytest.raises(LayerError, match=r"shape \(6, 16\) is not made of blocks of 4"):
        ARMOR(block=4).factor(torch.ones(6, 16), torch.ones(16))
