import math

import pytest
import torch
from part_examples import instances, pattern_cases

from thresher.core.errors import OptionError
from thresher.parts import budgets, patterns
from thresher.parts.allotment import allot
from thresher.parts.budgets import (
    ERK,
    LAMP,
    OWL,
    CoarseToFine,
    ErdosRenyi,
    Global,
    LayerSummary,
    Uniform,
    lamp_score,
    summarise,
)
from thresher.parts.progression import ArithmeticProgression

ALL = pytest.mark.parametrize("budget", instances(budgets.Budget), ids=repr)
DENSITIES = pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.9, 1.0])
SHAPES = [(8, 16), (32, 16), (16, 8, 3, 3), (4, 64), (10, 30)]


def layers(shapes=SHAPES, seed=0, heavy=True):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index, shape in enumerate(shapes):
        score = torch.rand(shape, generator=generator) * 4.0**index
        if heavy:
            score = score ** (1 + index)
        made.append(summarise(f"layer{index}", shape, index // 2, score))
    return made


def mean_density(shares, summaries):
    kept = sum(share * s.size for share, s in zip(shares, summaries, strict=True))
    return kept / sum(s.size for s in summaries)


@ALL
@DENSITIES
def test_the_weighted_mean_is_the_density(budget, density):
    summaries = layers()
    shares = budget(summaries, density)
    assert len(shares) == len(summaries)
    assert all(0 <= share <= 1 for share in shares)
    # Budgets that count whole weights may miss by one.
    total = sum(s.size for s in summaries)
    assert mean_density(shares, summaries) == pytest.approx(density, abs=1.001 / total)


@ALL
def test_one_layer_gets_the_whole_budget(budget):
    assert budget(layers([(16, 8)]), 0.25) == [pytest.approx(0.25)]


@ALL
def test_budgets_that_survey_say_so(budget):
    bare = [LayerSummary(f"layer{i}", shape) for i, shape in enumerate(SHAPES)]
    if budget.surveys:
        with pytest.raises(OptionError, match="layer0"):
            budget(bare, 0.5)
    else:
        assert mean_density(budget(bare, 0.5), bare) == pytest.approx(0.5)


def test_lamp_scores_by_hand():
    # Magnitudes 1, 2, 3: 1/14, 4/13, 9/9.
    found = lamp_score(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(found, torch.tensor([1 / 14, 4 / 13, 1.0], dtype=torch.float64))
    torch.testing.assert_close(lamp_score(torch.tensor([10.0, 20.0, 30.0])), found)
    assert lamp_score(torch.zeros(3)).tolist() == [0, 0, 0]
    # Magnitudes 2 and 5 for 1 to 6: 4 / (4 + 4 + 3 * 25), 25 / (25 + 25).
    thinned = lamp_score(torch.tensor([2.0, 5.0]), stands_for=3)
    torch.testing.assert_close(thinned, torch.tensor([4 / 83, 1 / 2], dtype=torch.float64))


def test_lamp_by_hand():
    # LAMP scores: a 1/14, 4/13, 1; b (equal magnitudes 5) 1/3, 1/2, 1.
    a = summarise("a", (3,), 0, torch.tensor([1.0, 2.0, 3.0]))
    b = summarise("b", (3,), 1, torch.tensor([5.0, 5.0, 5.0]))
    assert LAMP()([a, b], 4 / 6) == [pytest.approx(1 / 3), pytest.approx(1.0)]
    assert Global()([a, b], 3 / 6) == [0.0, 1.0]


def test_lamp_empties_no_layer():
    assert all(share > 0 for share in LAMP()(layers(), 0.01))
    assert min(Global()(layers(), 0.01)) == 0


def test_large_layers_count_by_their_size():
    # Of 3/4 of all weights the layer of larger scores takes 1/2, and leaves 1/4 of twice as many.
    size = budgets.SUMMARY_SIZE
    small = summarise("small", (size,), 0, torch.linspace(2, 3, size))
    large = summarise("large", (2, size), 1, torch.linspace(0, 1, 2 * size))
    assert Global()([small, large], 0.5) == [1.0, pytest.approx(0.25, abs=1e-4)]


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_lamp_of_thinned_scores_is_that_of_all(density):
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(n, n, generator=generator).abs() for n in (600, 256, 64)]
    exact = [lamp_score(score.flatten().sort().values) for score in scores]
    count = sum(score.numel() for score in scores)
    bound = torch.cat(exact).topk(round(density * count)).values[-1]
    expected = [float((lamp >= bound).double().mean()) for lamp in exact]
    found = [summarise(str(i), score.shape, i, score) for i, score in enumerate(scores)]
    assert LAMP()(found, density) == pytest.approx(expected, abs=1e-3)


@ALL
def test_the_weighted_mean_is_the_density_of_large_layers_too(budget):
    summaries = layers([(300, 400), (8, 16), (200, 450)], heavy=False)
    assert mean_density(budget(summaries, 0.3), summaries) == pytest.approx(0.3, abs=1e-4)


def test_erk_by_hand():
    small, large = LayerSummary("s", (4, 4)), LayerSummary("l", (8, 8, 1, 2))
    # ER-kernel: (4 + 4) / 16 = 1/2 and (8 + 8 + 1 + 2) / 128; 0.25 of 144 weights are 36.
    scale = 36 / (8 + 19)
    assert ERK()([small, large], 0.25) == [
        pytest.approx(scale / 2),
        pytest.approx(scale * 19 / 128),
    ]
    # Erdős-Rényi counts no kernels: 1/2 and 16 / 64.
    scale = 36 / (8 + 32)
    assert ErdosRenyi()([small, large], 0.25) == [
        pytest.approx(scale / 2),
        pytest.approx(scale / 4),
    ]


def test_erk_keeps_small_layers_whole():
    small, large = LayerSummary("s", (4, 4)), LayerSummary("l", (64, 64))
    shares = ERK()([small, large], 0.5)
    assert shares[0] == 1.0
    assert mean_density(shares, [small, large]) == pytest.approx(0.5)


def test_owl_by_hand():
    # Of ten scores none, one and two are above five means: ratios 0, 0.1, 0.2.
    scores = [torch.ones(10), torch.ones(10), torch.ones(10)]
    scores[1][0] = 100.0
    scores[2][:2] = 1000.0
    found = [summarise(str(i), (10,), i, score) for i, score in enumerate(scores)]
    ratios = [float((s > 4 * s.mean()).float().mean()) for s in scores]
    assert ratios == [pytest.approx(0), pytest.approx(0.1), pytest.approx(0.2)]
    shares = OWL(multiple=4, spread=0.08)(found, 0.5)
    assert shares == [pytest.approx(0.42), pytest.approx(0.5), pytest.approx(0.58)]


def test_owl_weighs_the_layers_of_a_block_by_their_size():
    # Mean (90 * 1 + 10 * 20) / 100 = 2.9, of which 5 leave 10 outliers of 100; then none.
    scores = [torch.ones(90), torch.full((10,), 20.0), torch.ones(100)]
    found = [summarise(str(i), s.shape, i // 2, s) for i, s in enumerate(scores)]
    assert OWL(multiple=5, spread=0.08)(found, 0.5) == pytest.approx([0.58, 0.58, 0.42])


def test_owl_gives_a_block_one_density_and_none_when_all_are_alike():
    shares = OWL()(layers(), 0.5)
    assert shares[0] == shares[1]
    assert shares[2] == shares[3]
    even = [summarise(str(i), (4, 4), i, torch.ones(4, 4)) for i in range(3)]
    assert OWL()(even, 0.3) == Uniform()(even, 0.3)


def test_a_progression_falls_by_equal_steps_around_the_mean():
    same = [LayerSummary(str(i), (10,), 2 * i) for i in range(3)]
    assert ArithmeticProgression(0.1)(same, 0.5) == pytest.approx([0.6, 0.5, 0.4])
    # Of 60 weights the last block has 40: (20 * 0.6 + 40 * 0.45) / 60 is a half.
    wide = [LayerSummary("0", (20,), 0), LayerSummary("1", (40,), 1)]
    shares = ArithmeticProgression(0.075)(wide, 0.5)
    assert shares == pytest.approx([0.6, 0.45])
    assert ArithmeticProgression(0.1)(same, 0.95) == pytest.approx([1.0, 0.95, 0.9])


def test_coarse_to_fine_by_hand():
    # The floor is 0.3; what is left, 0.1 of 40 weights, goes 3 : 1, 3 of 30 and 1 of 10 weights.
    summaries = [
        summarise("a", (10,), 0, torch.full((10,), 3.0)),
        summarise("b", (20,), 0, torch.full((20,), 3.0)),
        summarise("c", (10,), 1, torch.full((10,), 1.0)),
    ]
    found = CoarseToFine(room=0.1)(summaries, 0.4)
    assert found == pytest.approx([0.4, 0.4, 0.4])
    found = CoarseToFine(room=0.1)(summaries[1:], 0.4)
    assert found == pytest.approx([0.3 + 2.25 / 20, 0.3 + 0.75 / 10])
    # A block takes no more than all of its weights.
    summaries[2] = summarise("c", (10,), 1, torch.full((10,), 1e6))
    assert CoarseToFine(room=0.3)(summaries, 0.5) == pytest.approx([1 / 3, 1 / 3, 1.0])


def test_coarse_to_fine_without_any_gradient_is_uniform():
    none = [summarise(str(i), (4, 4), i, torch.zeros(4, 4)) for i in range(3)]
    assert CoarseToFine()(none, 0.3) == Uniform()(none, 0.3)


def test_summaries_thin_evenly():
    score = torch.rand(300, 1000, generator=torch.Generator().manual_seed(0))
    summary = summarise("layer", score.shape, 0, score)
    assert summary.quantiles.numel() == budgets.SUMMARY_SIZE
    assert summary.mean == pytest.approx(float(score.mean()))
    for q in (0.1, 0.5, 0.9):
        place = int(q * budgets.SUMMARY_SIZE)
        assert float(summary.quantiles[place]) == pytest.approx(q, abs=0.01)
    # Five scores for each place, of which the third stands for all.
    score = torch.arange(5.0 * budgets.SUMMARY_SIZE)
    assert torch.equal(summarise("layer", score.shape, 0, score).quantiles, score[2::5])


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in pattern_cases()], ids=str)
@pytest.mark.parametrize("density", [0.1, 0.37, 0.5, 1.0])
def test_allotted_counts_are_allowed_and_add_up(pattern, density):
    shapes = [(8, 16), (4, 24), (2, 6, 8)]
    sizes = [math.prod(shape) for shape in shapes]
    shares = [density * 0.5, min(1, density * 1.2), 0.0]
    rest = density * sum(sizes) - sum(a * b for a, b in zip(shares, sizes, strict=True))
    shares[2] = rest / sizes[2]
    if shares[2] > 1:
        shares = [density] * 3
    counts = allot(pattern, shapes, shares, density)
    quanta = [pattern.quantum(shape) for shape in shapes]
    for count, quantum, size in zip(counts, quanta, sizes, strict=True):
        assert count % quantum == 0
        assert 0 <= count <= size
    assert abs(sum(counts) - density * sum(sizes)) <= max(quanta) / 2 + 0.5


def test_the_largest_remainder_is_rounded_up():
    shares = [0.31, 0.38, 0.31]
    assert allot(patterns.Unstructured(), [(1, 10)] * 3, shares, 1 / 3) == [3, 4, 3]


@pytest.mark.parametrize("density", [0.3, 0.5, 0.7])
def test_what_large_rows_leave_over_is_not_paid_by_the_smallest_layer(density):
    # Rows of an odd length in two large layers, then the one row of a small head.
    shapes = [(64, 27), (64, 575), (1, 64)]
    pattern = patterns.Unstructured("row")
    counts = allot(pattern, shapes, [density] * 3, density)
    for count, (rows, columns) in zip(counts, shapes, strict=True):
        assert abs(count / rows - density * columns) <= 1


@pytest.mark.parametrize("error", [-0.03, 0.03])
def test_a_budget_that_is_off_moves_all_densities_alike(error):
    shapes = [(64, 270), (64, 576), (1, 64)]
    counts = allot(patterns.Unstructured("row"), shapes, [0.5 + error] * 3, 0.5)
    for count, (rows, columns) in zip(counts, shapes, strict=True):
        assert abs(count / rows - 0.5 * columns) <= 1


@pytest.mark.parametrize("error", [-0.03, 0.03])
def test_allotted_counts_are_exact_for_a_budget_that_is_off(error):
    shapes = [(10, 10), (20, 20), (7, 3)]
    counts = allot(patterns.Unstructured(), shapes, [0.5 + error] * 3, 0.5)
    assert sum(counts) == round(0.5 * 521)
    assert all(0 <= count <= math.prod(shape) for count, shape in zip(counts, shapes, strict=True))
