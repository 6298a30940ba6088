"""What every moment must do, and the numbers of each."""

import pytest
import torch
from part_examples import concrete_subclasses, correlated_inputs

from thresher.core.errors import OptionError
from thresher.parts.fisher import GradientSamples
from thresher.parts.input_rows import InputRows
from thresher.parts.moments import (
    SAMPLE_ROWS,
    Cross,
    Gradient,
    Gram,
    Moment,
    Norm,
    Sample,
    Slope,
    SquaredGradient,
    backward,
    perturbed,
)
from thresher.parts.statistics import Statistics

ALL = pytest.mark.parametrize("kind", concrete_subclasses(Moment), ids=lambda kind: kind.__name__)
SUMMED = pytest.mark.parametrize(
    "kind",
    [k for k in concrete_subclasses(Moment) if k not in (Sample, GradientSamples, InputRows)],
    ids=lambda k: k.__name__,
)
GROUPS = pytest.mark.parametrize("groups", [None, 2])


def batches(kind, columns=8, groups=None):
    """Return what four updates of a moment may be given."""
    if kind.wants == "forward":
        return correlated_inputs(300, columns, groups=groups).split([1, 100, 50, 149], dim=-2)
    shape = (4, 5, columns) if groups is None else (4, groups, 5, columns)
    shape = (4,) if kind.wants == "perturbed" else shape
    return list(torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def taken(kind, values):
    statistics = Statistics("layer", {kind})
    for value in values:
        feed(statistics, kind, value)
    return statistics


def feed(statistics, kind, value):
    if kind.wants == "forward":
        # Of other inputs than the layer's own, which is what pairs are.
        statistics.update(value, value.flip(-1), held_out=True)
    elif kind.wants == "perturbed":
        statistics.update_slope(value)
    else:
        statistics.update_gradient(value)


def readings(moment):
    """Return every tensor that a moment says of its samples."""
    names = [n for n in dir(type(moment)) if isinstance(getattr(type(moment), n), property)]
    return {name: getattr(moment, name) for name in names}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@SUMMED
@GROUPS
def test_sums_of_two_processes_merge_into_those_of_all_data(kind, groups):
    first, *rest = batches(kind, groups=groups)
    one, other = taken(kind, [first]), taken(kind, rest)
    for mine, theirs in zip(one.tensors(), other.tensors(), strict=True):
        mine += theirs
    whole = taken(kind, [first, *rest])
    assert_same(readings(one[kind]), readings(whole[kind]))
    assert one.tokens == whole.tokens


@SUMMED
def test_a_process_without_data_takes_part_in_merging(kind):
    values = batches(kind)
    nothing = Statistics("layer", {kind})
    with pytest.raises(OptionError, match=rf"'{kind.__name__}' of layer 'layer' was never updated"):
        nothing.tensors()
    nothing.reserve(torch.ones(5, 8, dtype=torch.bfloat16))
    for mine, theirs in zip(nothing.tensors(), taken(kind, values).tensors(), strict=True):
        mine += theirs
    assert_same(readings(nothing[kind]), readings(taken(kind, values)[kind]))


@ALL
@GROUPS
def test_column_views_agree_with_the_whole(kind, groups):
    statistics = taken(kind, batches(kind, groups=groups))
    view = statistics.columns(slice(2, 8)).columns(slice(1, 4))
    part, here = view[kind], slice(3, 6)
    assert view.start == 3
    for name, whole in readings(statistics[kind]).items():
        expected = (
            whole[..., here, here] if kind is Gram else whole[..., here] if whole.dim() else whole
        )
        assert torch.equal(getattr(part, name), expected)


@GROUPS
@pytest.mark.parametrize("columns", [1, 5, 16])
def test_moments_of_inputs(groups, columns):
    values = batches(Norm, columns, groups)
    norm, gram = taken(Norm, values)[Norm], taken(Gram, values)[Gram]
    exact = torch.cat(values, dim=-2).double()
    torch.testing.assert_close(norm.value, exact.square().mean(-2).sqrt().float())
    torch.testing.assert_close(norm.mean, exact.mean(-2).float())
    torch.testing.assert_close(
        norm.variance, exact.var(-2, correction=0).float(), rtol=1e-4, atol=1e-6
    )
    second = (exact.mT @ exact / 300).float()
    torch.testing.assert_close(gram.value, second, rtol=1e-4, atol=1e-5)


def test_moments_of_gradients():
    values = batches(Gradient)
    mean, squares = (taken(kind, values)[kind].value for kind in (Gradient, SquaredGradient))
    torch.testing.assert_close(mean, torch.stack(values).mean(0))
    torch.testing.assert_close(squares, torch.stack(values).square().mean(0))
    assert backward({Norm, Gradient, SquaredGradient}) == {Gradient, SquaredGradient}


def test_the_slope_is_a_root_mean_square():
    slopes = torch.tensor([1.0, -2.0, 2.0])
    assert taken(Slope, slopes)[Slope].value == pytest.approx(3**0.5)
    assert perturbed({Norm, Gradient, Slope}) == {Slope}


def test_a_constant_input_has_no_variance():
    norm = taken(Norm, [torch.full((1000, 2), 1e4)])[Norm]
    assert bool((norm.variance == 0).all())


def test_the_second_moment_is_finished_in_place_and_factored_once():
    statistics = taken(Gram, batches(Gram))
    total, factor = statistics.tensors()[1], statistics[Gram].inverse_factor(0.01)
    assert total.data_ptr() == statistics[Gram].value.data_ptr()
    shared = statistics.renamed("other").columns(slice(2, 5))[Gram].inverse_factor(0.01)
    assert shared.data_ptr() == factor[2:5, 2:5].data_ptr()
    for use in (lambda: statistics.update(torch.ones(1, 8)), statistics.tensors):
        with pytest.raises(OptionError, match="'layer' were already read"):
            use()


def test_memory_does_not_grow_with_tokens():
    statistics = taken(Norm, [torch.randn(64, 4) for _ in range(100)])
    assert statistics.sample.shape == (SAMPLE_ROWS, 4)
    assert statistics.tokens == 6400


class Peak(Moment):
    """A moment that the package does not have."""

    def zeros(self, inputs):
        return (inputs.new_zeros(inputs.shape[-1]),)

    def add(self, inputs):
        (total,) = self.sums
        total += inputs.abs().amax(-2)

    @property
    def value(self):
        return self.sums[0]


def test_a_new_moment_is_a_new_class_and_nothing_else():
    statistics = taken(Peak, [torch.tensor([[1.0, -3.0], [2.0, 0.0]])])
    assert statistics[Peak].value.tolist() == [2, 3]
    assert statistics.columns(slice(1, 2))[Peak].value.tolist() == [3]


@GROUPS
def test_the_cross_moment_is_of_pairs_alone(groups):
    values = batches(Cross, groups=groups)
    exact = torch.cat(values, dim=-2).double()
    expected = (exact.flip(-1).mT @ exact / 300).float()
    torch.testing.assert_close(taken(Cross, values)[Cross].value, expected, rtol=1e-4, atol=1e-5)
    statistics = taken(Cross, values)
    assert statistics.saw_every_token(Cross)
    statistics.update(values[1])
    assert not statistics.saw_every_token(Cross)
    torch.testing.assert_close(statistics[Cross].value, expected, rtol=1e-4, atol=1e-5)


@GROUPS
def test_rows_of_inputs_are_evenly_spaced_and_bounded(groups, monkeypatch):
    monkeypatch.setattr(InputRows, "most", 40)
    given = batches(InputRows, groups=groups)
    for some, every in ((given[:2], 4), (given, 8)):
        kept = taken(InputRows, some)[InputRows].value
        assert torch.equal(kept, torch.cat(some, dim=-2)[..., ::every, :])
        assert 20 <= kept.shape[-2] <= 40


def test_few_rows_of_inputs_are_all_kept():
    rows = batches(InputRows)
    assert torch.equal(taken(InputRows, rows)[InputRows].value, torch.cat(rows))
