"""Task selection: it finds the tasks that matter and spends its budget on them."""

import numpy as np
import pytest

from thresher.core.errors import DataError, OptionError
from thresher.linear import TaskSelection


def problem(seed, n_tasks=20, features=15, rank=3):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((features, rank)))[0]
    heads = rng.standard_normal((rank, n_tasks)) * 0.5
    heads[:, :2] *= 4
    target = basis @ (heads[:, 0] + heads[:, 1])
    X = rng.standard_normal((60, features))

    def sample(counts):
        drawn = [rng.standard_normal((count, features)) for count in counts]
        return [
            (F, F @ basis @ heads[:, i] + rng.standard_normal(len(F))) for i, F in enumerate(drawn)
        ]

    return sample, X, X @ target + 0.1 * rng.standard_normal(60), target


def test_spends_most_on_the_tasks_that_matter():
    sample, X, y, target = problem(0)
    model = TaskSelection(3, budget=8000).fit(sample, X, y, 20)
    assert model.relevance_[:2].sum() > 0.7
    assert model.sample_counts_[:2].sum() > 0.5 * model.sample_counts_.sum()
    assert np.all(model.sample_counts_ >= 4)
    assert np.linalg.norm(model.coef_ - target) < 0.15 * np.linalg.norm(target)
    np.testing.assert_allclose(
        model.representation_.T @ model.representation_, np.eye(3), atol=1e-9
    )


@pytest.mark.parametrize("relevance", ["l1", "l2", "uniform"])
def test_budget_is_kept(relevance):
    sample, X, y, _ = problem(1)
    model = TaskSelection(3, budget=4000, relevance=relevance).fit(sample, X, y, 20)
    assert abs(model.sample_counts_.sum() - 4000) <= 4 * 20
    assert model.relevance_.sum() == pytest.approx(1)


def test_bad_input():
    sample, X, y, _ = problem(2)
    with pytest.raises(OptionError, match="relevance must be"):
        TaskSelection(3, relevance="l3").fit(sample, X, y, 20)
    with pytest.raises(OptionError, match="rank 16 must lie between"):
        TaskSelection(16).fit(sample, X, y, 20)
    with pytest.raises(DataError, match="task 0 returned"):
        TaskSelection(3).fit(lambda counts: sample(counts + 1), X, y, 20)
    with pytest.raises(DataError, match="sample returned 20 tasks, n_tasks is 19"):
        TaskSelection(3).fit(lambda counts: sample(np.append(counts, 1)), X, y, 19)
    with pytest.raises(DataError, match="task 0 returned NaN"):
        TaskSelection(3).fit(lambda counts: [(F * np.nan, t) for F, t in sample(counts)], X, y, 20)
    with pytest.raises(ValueError, match="NaN"):
        TaskSelection(3).fit(sample, X * np.nan, y, 20)


@pytest.mark.parametrize(
    ("options", "n_tasks", "message"),
    [
        ({}, 0, "n_tasks must be a whole number of at least 1, got 0"),
        ({"rounds": 0}, 20, "rounds must be a whole number"),
        ({"budget": 10.5}, 20, "budget must be a whole number"),
        ({"floor": 0}, 20, "floor must be a number above 0 and at most 1, got 0"),
        ({"alpha": -1}, 20, "alpha must be a number above 0 and below 1, got -1"),
    ],
)
def test_options_out_of_range(options, n_tasks, message):
    sample, X, y, _ = problem(2)
    with pytest.raises(OptionError, match=message):
        TaskSelection(3, **options).fit(sample, X, y, n_tasks)
