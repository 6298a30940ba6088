"""Twins: what is said of a population is what its models do."""

import math

import pytest
import torch
from small_models import mlp, vectors

from thresher.core.errors import DataError
from thresher.prune import prune
from thresher.prune.twins import Twins, compare_twins


def test_accuracies_and_agreement_are_those_of_each_pair():
    dense, sparse = ([mlp(seed) for seed in range(3)] for _ in "ab")
    for model in sparse:
        prune(model, "magnitude", density=0.2, progress=False)
    inputs = vectors(200)
    labels = torch.randint(8, (200,), generator=torch.Generator().manual_seed(0))
    found = compare_twins(dense, sparse, inputs, labels)
    for at, (one, other) in enumerate(zip(dense, sparse, strict=True)):
        first, second = (model(inputs).argmax(-1) for model in (one, other))
        assert found.dense_accuracy[at] == pytest.approx(float((first == labels).double().mean()))
        assert found.sparse_accuracy[at] == pytest.approx(float((second == labels).double().mean()))
        assert found.agreement[at] == pytest.approx(float((first == second).double().mean()))
        assert found.dense_accuracy[at] != found.sparse_accuracy[at]


def test_models_are_compared_as_they_are_used_and_stay_as_they_were():
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), mlp()).train()
    found = compare_twins([model], [mlp()], vectors(50), torch.zeros(50))
    assert found.agreement == (1.0,)
    assert model.training


def test_correlation_is_of_ranks():
    assert Twins((0.9, 0.8, 0.7), (0.5, 0.6, 0.99), (1, 1, 1)).correlation == -1.0
    assert Twins((0.1, 0.2, 0.9), (0.5, 0.6, 0.7), (1, 1, 1)).correlation == 1.0
    assert math.isnan(Twins((0.9, 0.8), (0.5, 0.5), (1, 1)).correlation)


@pytest.mark.parametrize(
    ("sparse", "inputs", "labels", "message"),
    [
        (1, 9, 9, "2 dense and 1 sparse"),
        (2, 9, 8, "9 inputs and 8 labels"),
        (2, 0, 0, "0 inputs"),
    ],
)
def test_what_does_not_pair_is_refused(sparse, inputs, labels, message):
    models = [mlp(), mlp()]
    with pytest.raises(DataError, match=message):
        compare_twins(models, models[:sparse], vectors(9)[:inputs], torch.zeros(labels))
