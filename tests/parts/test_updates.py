import dataclasses

import numpy as np
import pytest
import torch
from part_examples import UPDATES, correlated_inputs, full_statistics, instances, pattern_cases

from thresher.core.errors import LayerError, NumericalError, OptionError
from thresher.parts import patterns, scores, updates
from thresher.parts.chooser import MaskChooser
from thresher.parts.column_walk import sweep
from thresher.parts.linalg import damped
from thresher.parts.moments import Gram, Norm

ALL = pytest.mark.parametrize("update", instances(updates.Update, UPDATES), ids=repr)
PATTERNS = pytest.mark.parametrize("pattern", [p for p, _ in pattern_cases()], ids=str)


WANDA = scores.Magnitude() * scores.InputNorm()
SALIENCY = scores.OBSSaliency()


def problem(pattern=None, *, rows=8, columns=24, groups=None, score=None, density=0.5, seed=0):
    """Return weight, chooser, statistics and inputs of a correlated layer."""
    pattern = pattern or patterns.Unstructured()
    inputs = correlated_inputs(400, columns, seed, groups)
    batch = () if groups is None else (groups,)
    weight = torch.randn(*batch, rows, columns, generator=torch.Generator().manual_seed(seed))
    statistics = full_statistics(inputs, weight)
    keep = pattern.count(weight.shape, density)
    score = score or WANDA
    choose = MaskChooser(score, pattern, keep, statistics, tuple(weight.shape))
    return weight, choose, statistics, inputs


def output_error(dense, pruned, inputs):
    return float((inputs @ (dense - pruned).mT).square().sum())


def fixed(mask):
    """Return a score that makes an unstructured chooser pick `mask`."""

    class Given(scores.Score):
        def __call__(self, weight, statistics):
            return mask[..., statistics.start : statistics.start + weight.shape[-1]].float()

    return Given()


@ALL
@PATTERNS
@pytest.mark.parametrize("groups", [None, 2])
def test_the_support_is_exact_allowed_and_respected(update, pattern, groups):
    if isinstance(update, updates.DSnoT) and pattern.swap_width is None:
        pytest.skip("DSnoT swaps single weights")
    weight, choose, statistics, _ = problem(pattern, groups=groups)
    untouched = weight.clone()
    pruned, mask = update(weight, choose, statistics)
    assert torch.equal(weight, untouched)
    assert mask.dtype == torch.bool
    assert pruned.shape == mask.shape == weight.shape
    assert int(mask.sum()) == choose.keep
    assert bool((pruned[~mask] == 0).all())
    allowed = {repr(p): a for p, a in pattern_cases()}[repr(pattern)]
    assert allowed(mask)


@ALL
def test_updates_are_deterministic(update):
    (first, a), (second, b) = (update(*problem()[:3]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(a, b)


@ALL
def test_keeping_all_changes_nothing(update):
    weight, choose, statistics, _ = problem(density=1.0)
    pruned, mask = update(weight, choose, statistics)
    assert bool(mask.all())
    torch.testing.assert_close(pruned, weight, rtol=1e-3, atol=1e-3)


@ALL
def test_inputs_that_are_always_zero_do_no_harm(update):
    weight, _, _, inputs = problem()
    inputs[:, [0, 7, 23]] = 0
    statistics = full_statistics(inputs, weight)
    pattern = patterns.Unstructured()
    choose = MaskChooser(WANDA, pattern, 96, statistics, tuple(weight.shape))
    pruned, mask = update(weight, choose, statistics)
    assert bool(torch.isfinite(pruned).all())
    assert int(mask.sum()) == 96
    # What is worth nothing is not kept.
    assert not bool(mask[:, [0, 7, 23]].any())


@ALL
def test_constant_inputs_do_no_harm(update):
    weight, _, _, inputs = problem()
    inputs[:, :4] = 3.0
    statistics = full_statistics(inputs, weight)
    choose = MaskChooser(
        WANDA,
        patterns.NM(2, 4),
        96,
        statistics,
        tuple(weight.shape),
    )
    pruned, _ = update(weight, choose, statistics)
    assert bool(torch.isfinite(pruned).all())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("density", [0.3, 0.5, 0.7])
def test_errors_fall_from_keep_to_obs_to_least_squares(seed, density):
    weight, choose, statistics, inputs = problem(seed=seed, density=density, score=SALIENCY)
    _, mask = updates.OBS()(weight, choose, statistics)
    same = MaskChooser(
        fixed(mask), patterns.Unstructured(), int(mask.sum()), statistics, choose.shape
    )
    least_squares, obs, keep = (
        output_error(weight, update(weight, same, statistics)[0], inputs)
        for update in (
            updates.LeastSquares(damping=1e-4),
            updates.OBS(damping=1e-4),
            updates.Keep(),
        )
    )
    assert least_squares <= obs * 1.0001
    assert obs < keep


def reference_obs(weight, mask, gram, damping):
    """Remove weights left to right, each by the exact OBS formula, in float64."""
    weight, hessian = weight.astype(np.float64).copy(), gram.astype(np.float64)
    columns = weight.shape[1]
    hessian = hessian + damping * np.mean(np.diag(hessian)) * np.eye(columns)
    for j in range(columns):
        # Columns to the left are settled; the rest may move.
        inverse = np.linalg.inv(hessian[j:, j:])
        for row in range(weight.shape[0]):
            if not mask[row, j]:
                weight[row, j:] -= weight[row, j] / inverse[0, 0] * inverse[0]
                weight[row, j] = 0.0
    return weight


@pytest.mark.parametrize("block_size", [5, 8, 128])
def test_obs_equals_the_formula_in_float64(block_size):
    weight, choose, statistics, _ = problem(patterns.Unstructured("row"), score=scores.Random())
    pruned, mask = updates.OBS(block_size=block_size)(weight, choose, statistics)
    expected = reference_obs(weight.numpy(), mask.numpy(), statistics[Gram].value.numpy(), 0.01)
    np.testing.assert_allclose(pruned.numpy(), expected, rtol=2e-3, atol=2e-4)


def reference_sparsegpt(weight, gram, n, m, damping):
    """Choose each N:M group from weights that absorbed all errors before it, in float64."""
    weight = weight.astype(np.float64).copy()
    columns = weight.shape[1]
    hessian = gram.astype(np.float64)
    hessian = hessian + damping * np.mean(np.diag(hessian)) * np.eye(columns)
    mask = np.zeros(weight.shape, dtype=bool)
    for j in range(columns):
        if j % m == 0:
            left = [np.linalg.inv(hessian[k:, k:])[0, 0] for k in range(j, j + m)]
            saliency = weight[:, j : j + m] ** 2 / left
            kept = np.argsort(-saliency, axis=1)[:, :n]
            np.put_along_axis(mask[:, j : j + m], kept, True, axis=1)
        inverse = np.linalg.inv(hessian[j:, j:])
        error = np.where(mask[:, j], 0, weight[:, j]) / inverse[0, 0]
        weight[:, j:] -= error[:, None] * inverse[0]
        weight[~mask[:, j], j] = 0.0
    return weight, mask


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 8)])
def test_obs_chooses_every_group_after_the_errors_before_it(n, m):
    weight, choose, statistics, _ = problem(patterns.NM(n, m), score=SALIENCY, density=n / m)
    pruned, mask = updates.OBS()(weight, choose, statistics)
    expected, support = reference_sparsegpt(
        weight.numpy(), statistics[Gram].value.numpy(), n, m, damping=0.01
    )
    np.testing.assert_array_equal(mask.numpy(), support)
    np.testing.assert_allclose(pruned.numpy(), expected, rtol=2e-3, atol=2e-4)


def test_least_squares_equals_lstsq():
    weight, choose, statistics, inputs = problem()
    pruned, mask = updates.LeastSquares(damping=1e-9)(weight, choose, statistics)
    x = inputs.double().numpy()
    for row in range(len(weight)):
        support = mask[row].numpy()
        target = x @ weight[row].double().numpy()
        solution = np.linalg.lstsq(x[:, support], target, rcond=None)[0]
        np.testing.assert_allclose(pruned[row].numpy()[support], solution, rtol=5e-3, atol=5e-4)


def test_least_squares_refits_the_support_of_another_update():
    weight, choose, statistics, inputs = problem(score=SALIENCY)
    obs, mask = updates.OBS()(weight, choose, statistics)
    exact, same = updates.LeastSquares(support=updates.OBS())(weight, choose, statistics)
    assert torch.equal(mask, same)
    assert output_error(weight, exact, inputs) < output_error(weight, obs, inputs)


def test_the_compiled_sweep_equals_the_tensor_sweep():
    weight, choose, statistics, _ = problem(rows=16)
    factor = statistics[Gram].inverse_factor(0.01)
    mask = choose(weight)
    compiled, batched = weight.clone(), weight.clone().unsqueeze(0)
    errors = sweep(compiled, mask, factor)
    batched_errors = sweep(batched, mask.unsqueeze(0), factor.unsqueeze(0))
    torch.testing.assert_close(compiled, batched[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(errors, batched_errors[0], rtol=1e-4, atol=1e-5)


def test_the_compiled_sweep_takes_strided_blocks():
    weight, choose, statistics, _ = problem(rows=16)
    factor, mask = statistics[Gram].inverse_factor(0.01), choose(weight)
    view, copy = weight.clone(), weight[:, 4:12].clone()
    errors = sweep(view[:, 4:12], mask[:, 4:12], factor[4:12, 4:12])
    expected = sweep(copy, mask[:, 4:12], factor[4:12, 4:12].contiguous())
    assert torch.equal(view[:, 4:12], copy)
    assert torch.equal(errors, expected)
    assert torch.equal(view[:, :4], weight[:, :4])
    assert torch.equal(view[:, 12:], weight[:, 12:])


@pytest.mark.parametrize("pattern", [patterns.Unstructured("row"), patterns.NM(2, 4)], ids=str)
@pytest.mark.parametrize(
    "score",
    [scores.Magnitude(), WANDA, SALIENCY],
    ids=repr,
)
def test_dsnot_lowers_the_expected_error_and_keeps_every_rows_count(pattern, score):
    weight, choose, statistics, _ = problem(pattern, rows=32, score=score)
    before = choose(weight)
    pruned, after = updates.DSnoT()(weight, choose, statistics)
    assert torch.equal(before.sum(-1), after.sum(-1))
    # Weights themselves never change.
    assert torch.equal(pruned, torch.where(after, weight, 0))
    contribution = weight * statistics[Norm].mean
    error = [torch.where(mask, 0, contribution).sum(-1).abs() for mask in (before, after)]
    assert bool((error[1] <= error[0] + 1e-5).all())
    assert float(error[1].sum()) < float(error[0].sum())


def swapped(scale=1.0, **options):
    """Return which columns of one row DSnoT keeps, of which the first three are chosen."""
    mean = torch.tensor([0.4, 0.2, 1.0, 1.0, 0.5, 0.1])
    deviation = torch.tensor([1.0, 2.0, 0.1, 2.0, 0.5, 1.0])
    weight = scale * torch.tensor([[-1.0, -0.5, 0.1, 1.0, 1.0, 1.0]])
    statistics = full_statistics(torch.stack([mean - deviation, mean + deviation]), weight)
    first = fixed(torch.tensor([[1, 1, 1, 0, 0, 0]]))
    choose = MaskChooser(first, patterns.Unstructured("row"), 3, statistics, (1, 6))
    _, mask = updates.DSnoT(**options)(weight, choose, statistics)
    return mask[0].nonzero().flatten().tolist()


def test_dsnot_swaps_by_hand():
    # Contributions -0.4, -0.1, 0.1 are kept and 1, 0.5, 0.1 removed: an error of 1.6. Of the
    # removed, mean over variance is largest at 4; of the kept that lower the error, Wanda's
    # score is smallest at 1. That leaves an error of 1.6 - 0.5 - 0.1.
    assert swapped(cycles=1) == [0, 2, 4]
    # Then 3 for 0, and 1.0 - 1 - 0.4; then 0 for 2, and -0.4 + 0.4 + 0.1.
    assert swapped(cycles=2) == [2, 3, 4]
    assert swapped(cycles=3) == [0, 3, 4]
    # Reviving 2 would take the removal of 0, which leaves a larger error than 0.1.
    assert swapped(cycles=50) == [0, 3, 4]


def test_dsnot_looks_at_the_threshold_before_every_swap():
    assert swapped(threshold=1.7) == [0, 1, 2]
    assert swapped(threshold=0.5) == [2, 3, 4]


def test_dsnot_compares_the_authors_threshold_with_sums_over_a_sequence():
    # Errors of 1.6e-3 and 3.2e-5 per token are 3.3 and 0.07 over 2048 tokens.
    assert swapped(1e-3) == [0, 3, 4]
    assert swapped(2e-5) == [0, 1, 2]


def test_dsnot_leaves_rows_below_the_threshold_alone():
    weight, choose, statistics, _ = problem(patterns.Unstructured("row"))
    _, mask = updates.DSnoT(threshold=1e9)(weight, choose, statistics)
    assert torch.equal(mask, choose(weight))


def test_dsnot_names_patterns_it_cannot_use():
    weight, choose, statistics, _ = problem(patterns.Block(2, 2))
    with pytest.raises(LayerError, match="'2x2'"):
        updates.DSnoT()(weight, choose, statistics)


def test_a_singular_second_moment_without_damping():
    weight, _, _, _ = problem()
    statistics = full_statistics(correlated_inputs(6, 24), weight)
    choose = MaskChooser(WANDA, patterns.Unstructured(), 96, statistics, (8, 24))
    with pytest.raises(NumericalError, match="raise the damping"):
        updates.LeastSquares(damping=0.0)(weight, choose, statistics)
    # OBS raises the damping by itself, as SparseGPT's users expect.
    pruned, _ = updates.OBS(damping=0.0)(weight, choose, statistics)
    assert bool(torch.isfinite(pruned).all())


def test_obs_chooses_at_once_what_cannot_be_scored_by_columns():
    weight, choose, statistics, _ = problem(score=scores.RelativeImportance(), density=0.4)
    _, mask = updates.OBS(block_size=4)(weight, choose, statistics)
    assert torch.equal(mask, choose(weight))


def test_nan_scores_name_the_layer():
    weight, choose, statistics, _ = problem()
    weight[0, 0] = torch.nan
    with pytest.raises(LayerError, match=r"NaN in layer 'layer'"):
        updates.Keep()(weight, choose, statistics)


def damped_error(weight, pruned, statistics, damping=0.01):
    change = (weight - pruned).double()
    hessian = damped(statistics[Gram].value, damping).double()
    return float((change * (change @ hessian)).sum())


@pytest.mark.parametrize("pattern", [patterns.Unstructured(), patterns.NM(2, 4)], ids=str)
def test_admm_beats_the_exact_weights_on_the_support_of_obs(pattern):
    """ALPS finds better supports than a sweep; by construction never worse ones."""
    gains = []
    for seed in range(6):
        args = problem(pattern, rows=24, columns=48, score=SALIENCY, seed=seed, density=0.5)
        weight, choose, statistics, _ = args
        found, _ = updates.ADMM(steps=100)(weight, choose, statistics)
        exact, _ = updates.LeastSquares(support=updates.OBS())(weight, choose, statistics)
        errors = [damped_error(weight, each, statistics) for each in (found, exact)]
        gains.append(errors[0] / errors[1])
    assert max(gains) <= 1 + 1e-4
    assert sum(gain < 0.98 for gain in gains) >= 4


def test_admm_gives_a_support_its_exact_weights():
    weight, choose, statistics, _ = problem(rows=8, columns=24, score=SALIENCY)
    found, mask = updates.ADMM(steps=100)(weight, choose, statistics)
    given = MaskChooser(fixed(mask), choose.pattern, choose.keep, statistics, tuple(weight.shape))
    exact, same = updates.LeastSquares()(weight, given, statistics)
    assert torch.equal(mask, same)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-4)


def test_admm_keeps_the_start_where_the_search_is_worse():
    """One step without a penalty to speak of chooses the largest of the dense weights."""
    weight, choose, statistics, _ = problem(rows=24, columns=48, score=SALIENCY, density=0.3)
    good = updates.ADMM(steps=100)
    _, support = good(weight, choose, statistics)
    idle = updates.ADMM(penalty=1e-6, iterations=1, steps=100, start=good)
    _, mask = idle(weight, choose, statistics)
    assert torch.equal(mask, support)
    _, alone = dataclasses.replace(idle, start=updates.Keep())(weight, choose, statistics)
    assert not torch.equal(alone, support)


@pytest.mark.parametrize("per", ["tensor", "row"])
def test_priority_sampling_is_right_on_average(per):
    pattern = patterns.Unstructured(per)
    weight, choose, statistics, _ = problem(pattern, score=scores.Magnitude(), density=0.25)
    total = torch.zeros_like(weight, dtype=torch.float64)
    draws = 4000
    for seed in range(draws):
        update = updates.PrioritySampling(considered=4.0, seed=seed)
        total += update(weight, choose, statistics)[0]
    assert float((total / draws - weight).abs().max()) < 0.12
    assert float((total / draws - weight).abs().mean()) < 0.02


def test_priority_sampling_keeps_the_largest_as_they_are_and_removes_the_smallest():
    weight, choose, statistics, _ = problem(score=scores.Magnitude(), density=0.25)
    order = weight.abs().flatten().argsort(descending=True)
    for seed in range(20):
        pruned, mask = updates.PrioritySampling(considered=2.0, seed=seed)(
            weight, choose, statistics
        )
        assert int(mask.sum()) == choose.keep
        assert not bool(mask.flatten()[order[2 * choose.keep :]].any())
        # All are enlarged to the same size, below which none is left.
        least = pruned[mask].abs().min()
        assert bool(
            (
                pruned[mask & (weight.abs() > least * 1.0001)]
                == weight[mask & (weight.abs() > least * 1.0001)]
            ).all()
        )
    alone, _ = updates.PrioritySampling(considered=1.0)(weight, choose, statistics)
    assert torch.equal(alone, torch.where(choose(weight), weight, 0))


def test_priority_sampling_out_of_range():
    with pytest.raises(OptionError, match=r"considered 0\.5 is out of range"):
        updates.PrioritySampling(considered=0.5)
