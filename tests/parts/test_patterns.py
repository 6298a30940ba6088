import itertools

import pytest
import torch
from part_examples import pattern_cases

from thresher.core.errors import LayerError, OptionError
from thresher.parts import patterns
from thresher.parts.chooser import MaskChooser
from thresher.parts.scores import Magnitude
from thresher.parts.statistics import Statistics


def _name(case):
    """Name a pattern; what is allowed is a function, whose text is another in every process."""
    return "" if callable(case) else str(case)


CASES = pytest.mark.parametrize(("pattern", "allowed"), pattern_cases(), ids=_name)


def counts(pattern, shape):
    size = torch.Size(shape).numel()
    return range(0, size + 1, pattern.quantum(shape))


@CASES
@pytest.mark.parametrize("shape", [(4, 8), (3, 4, 8), (2, 12)])
def test_masks_are_allowed_and_exact(pattern, allowed, shape):
    score = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for keep in counts(pattern, shape):
        mask = pattern.mask(score, keep)
        assert mask.dtype == torch.bool
        assert mask.shape == score.shape
        assert int(mask.sum()) == keep
        assert allowed(mask)


@CASES
def test_ties_do_not_change_the_count(pattern, allowed):
    shape = (4, 8)
    for keep in counts(pattern, shape):
        mask = pattern.mask(torch.ones(shape), keep)
        assert int(mask.sum()) == keep
        assert allowed(mask)


@CASES
@pytest.mark.parametrize("seed", range(3))
def test_the_total_score_is_the_greatest_allowed(pattern, allowed, seed):
    shape = (2, 4)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    for keep in counts(pattern, shape):
        best = -1.0
        for chosen in itertools.combinations(range(8), keep):
            mask = torch.zeros(8, dtype=torch.bool)
            mask[list(chosen)] = True
            if allowed(mask.reshape(shape)):
                best = max(best, float(score.flatten()[mask].sum()))
        found = float(score[pattern.mask(score, keep)].sum())
        assert found == pytest.approx(best, abs=1e-6)


@CASES
@pytest.mark.parametrize("density", [0.0, 0.25, 0.37, 0.5, 0.81, 1.0])
def test_counts_are_allowed_and_nearest(pattern, allowed, density):
    shape = (4, 8)
    count = pattern.count(shape, density)
    assert count in counts(pattern, shape)
    assert abs(count - density * 32) <= pattern.quantum(shape) / 2 + 1e-9


@CASES
@pytest.mark.parametrize("density", [0.25, 0.5, 0.61, 1.0])
@pytest.mark.parametrize("width", [4, 8, 12])
def test_column_blocks_add_up_to_the_exact_count(pattern, allowed, density, width):
    if pattern.column_step is None:
        pytest.skip("chooses all columns at once")
    weight = torch.randn(4, 24, generator=torch.Generator().manual_seed(0))
    keep = pattern.count(weight.shape, density)
    choose = MaskChooser(Magnitude(), pattern, keep, Statistics("layer"), tuple(weight.shape))
    masks = [
        choose.columns(weight[:, start : start + width], start, min(start + width, 24))
        for start in range(0, 24, width)
    ]
    mask = torch.cat(masks, dim=-1)
    assert int(mask.sum()) == keep
    assert allowed(mask)


@CASES
def test_the_specification_names_the_same_pattern(pattern, allowed):
    assert patterns.Pattern.parse(pattern.spec) == pattern
    assert patterns.Pattern.parse(pattern) is pattern


@CASES
def test_swaps_within_the_swap_width_are_allowed(pattern, allowed):
    if pattern.swap_width is None:
        pytest.skip("weights cannot be swapped")
    score = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    keep = pattern.quantum(score.shape) * max(1, 16 // pattern.quantum(score.shape))
    mask = pattern.mask(score, keep)
    width = pattern.swap_width or 8
    for start in range(0, 8, width):
        group = mask[0, start : start + width]
        if group.any() and not group.all():
            kept, removed = int(group.nonzero()[0]), int((~group).nonzero()[0])
            group[kept], group[removed] = False, True
    assert allowed(mask)


@pytest.mark.parametrize(
    ("pattern", "shape", "words"),
    [
        (patterns.NM(2, 4), (3, 6), ["2:4", "divisible by 4", "6"]),
        (patterns.NM(2, 4, "outputs"), (6, 8), ["2:4/outputs", "outputs divisible by 4", "6"]),
        (patterns.Block(4, 2), (6, 8), ["4x2", "outputs divisible by 4", "6"]),
        (patterns.Block(2, 3), (6, 8), ["2x3", "inputs divisible by 3", "8"]),
        (patterns.SharedRows(4), (6, 8), ["shared/4", "divisible by 4", "6"]),
        (patterns.Channels(4), (6, 8), ["channels/4", "divisible by 4", "6"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(pattern, shape, words):
    with pytest.raises(LayerError) as error:
        pattern.quantum(shape)
    assert all(word in str(error.value) for word in [*words, "exclude the layer"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: patterns.NM(5, 4), ["5:4", "at most M"]),
        (lambda: patterns.NM(0, 4), ["0:4", "at least 1"]),
        (lambda: patterns.NM(2, 4, "rows"), ["'rows'", "'outputs'"]),
        (lambda: patterns.Block(0, 4), ["0x4"]),
        (lambda: patterns.Channels(0), ["0 rows"]),
        (lambda: patterns.Unstructured("column"), ["'column'", "'row'"]),
        (lambda: patterns.Pattern.parse("unstructed"), ["did you mean 'unstructured'?"]),
        (lambda: patterns.Pattern.parse("5:4"), ["5:4"]),
    ],
)
def test_bad_options_are_named(make, words):
    with pytest.raises(OptionError) as error:
        make()
    assert all(word in str(error.value) for word in words)


def test_shared_rows_find_the_groups_that_were_planted():
    generator = torch.Generator().manual_seed(0)
    supports = torch.rand(5, 60, generator=generator) < 0.3
    planted = supports.repeat_interleave(4, 0)[torch.randperm(20, generator=generator)]
    score = torch.rand(20, 60, generator=generator) * 0.1 + planted
    keep = int(planted.sum())
    shared = score[patterns.SharedRows(4).mask(score, keep)].sum()
    neighbours = score[patterns.Block(4, 1).mask(score, keep)].sum()
    everything = score[patterns.Unstructured().mask(score, keep)].sum()
    assert neighbours < 0.8 * everything
    assert shared > 0.95 * everything
