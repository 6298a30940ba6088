"""The bound on a pruned classifier: its parts, what they count, and that it holds."""

import math

import pytest
import torch
from small_models import mlp, vectors
from torch import nn

from thresher.core.errors import DataError, OptionError
from thresher.parts.coverage import find_layers
from thresher.prune import prune
from thresher.prune.pruning_bound import pruning_bound, sketch_size


def pair(density=0.5):
    dense, sparse = mlp(), mlp()
    prune(sparse, "magnitude", density=density, progress=False)
    return dense, sparse


def labels(count):
    return torch.randint(8, (count,), generator=torch.Generator().manual_seed(0))


def test_the_margin_covers_what_pruning_changes():
    dense, sparse = pair()
    inputs, right = vectors(300), mlp()(vectors(300)).argmax(-1)
    found = pruning_bound(dense, sparse, inputs, right)
    with torch.no_grad():
        before, after = dense(inputs), sparse(inputs)
    largest = 0.0
    for one in range(8):
        for other in range(8):
            moved = (after - before)[:, one] - (after - before)[:, other]
            largest = max(largest, float(moved.abs().max()))
    assert found.margin == pytest.approx(largest, rel=1e-5)
    # Whatever the dense model has right by more, the pruned one has right too.
    wrong = float((after.argmax(-1) != right).double().mean())
    assert 0 < wrong <= found.margin_error
    first = before.topk(2).values
    short = (first[:, 0] - first[:, 1] <= largest).double().mean()
    assert found.margin_error == pytest.approx(float(short))


def test_nothing_pruned_leaves_the_error_as_it_was():
    found = pruning_bound(mlp(), mlp(), vectors(100), labels(100))
    assert found.margin == 0
    wrong = (mlp()(vectors(100)).argmax(-1) != labels(100)).double().mean()
    assert found.margin_error == pytest.approx(float(wrong))


def test_more_samples_and_fewer_values_tighten_it():
    dense, sparse = pair()
    few, many = (pruning_bound(dense, sparse, vectors(n), labels(n)) for n in (100, 400))
    assert many.complexity == pytest.approx(few.complexity / 2)
    coarse = pruning_bound(dense, sparse, vectors(100), labels(100), values=2)
    sure = pruning_bound(dense, sparse, vectors(100), labels(100), confidence=1 - 1e-9)
    expected = math.sqrt((few.parameters * math.log(2) + math.log(20)) / 200)
    assert coarse.complexity == pytest.approx(expected)
    assert sure.complexity > few.complexity > coarse.complexity
    assert few.error == few.margin_error + few.complexity


def test_sketches_are_of_the_fullest_row_or_column():
    layer = nn.Linear(400, 300, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[torch.arange(300), torch.arange(300)] = 1.0
    sides = [math.ceil(math.sqrt(n) * math.log(n)) for n in (300, 400)]
    assert sketch_size(find_layers(layer)) == math.prod(sides) < 300 * 400
    with torch.no_grad():
        layer.weight[:4, 7] = 1.0
    sides = [math.ceil(math.sqrt(5 * n) * math.log(n)) for n in (300, 400)]
    assert sketch_size(find_layers(layer)) == math.prod(sides)
    # Never more than the layer itself.
    assert sketch_size(find_layers(nn.Linear(16, 8))) == 16 * 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"values": 1}, OptionError, "values 1"),
        ({"confidence": 1.0}, OptionError, "confidence 1.0"),
        ({"labels": labels(3)}, DataError, "4 inputs and 3 labels"),
    ],
)
def test_out_of_range(options, error, message):
    given = {"inputs": vectors(4), "labels": labels(4)} | options
    with pytest.raises(error, match=message):
        pruning_bound(*pair(), **given)
