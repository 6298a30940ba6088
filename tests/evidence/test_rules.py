"""The rules of experiments, on findings written by hand."""

import numpy as np
import pytest
from thresher.evidence.linear import (
    sketched_regression,
)
from thresher.evidence.solve import accelerated_concave


def steps_and_supports(leads):
    """Return a table in which plain needs twice the steps, and leads in F1 differ by seed."""
    settings = [
        {"loss": loss, "penalty": penalty, "correlation": correlation}
        for loss, penalty in accelerated_concave._KINDS
        for correlation in accelerated_concave._CORRELATIONS
    ]
    found = {"accelerated": (100, 0.7), "plain": (200, 0.7), "coordinate descent": (9, 0.7)}
    return [
        {**setting, "seed": seed, "method": method, "steps": steps, "converged": True}
        | {"f1": f1 + lead * (method == "accelerated")}
        for setting in settings
        for seed, lead in enumerate(leads)
        for method, (steps, f1) in found.items()
    ]


@pytest.mark.parametrize(
    ("leads", "held"), [([0.03, -0.02, 0.0], False), ([0.03, 0.02, 0.02], True)]
)
def test_acceleration_must_recover_better_by_more_than_the_noise_between_seeds(leads, held):
    outcome = accelerated_concave._verdict(steps_and_supports(leads))
    assert outcome.reproduced == held
    assert outcome.slacks["steps of plain over accelerated, less 1.5"] == pytest.approx(0.5)
    error = np.std(leads, ddof=1) / np.sqrt(3)
    assert outcome.margin == pytest.approx(np.mean(leads) - error)


def epsilons(hadamard=(0.7, 0.5, 0.35), count=(1.0, 1.0, 1.0)):
    """Return epsilons with 512, 1024 and 2048 rows that hardly differ between trials."""
    found = (
        np.array([[hadamard, (0.8, 0.56, 0.4), count]] * 9)
        * np.linspace(0.99, 1.01, 9)[:, None, None]
    )
    return dict.fromkeys(sketched_regression._DESIGNS, found)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"hadamard": (140, 100, 70)}, "hadamard, Gaussian: epsilon below 1 with 1024 rows"),
        ({"hadamard": (0.5, 0.5, 0.5)}, "hadamard, coherent: power of the rows at most -0.4"),
        (
            {"count": (1.4, 1.0, 0.7)},
            "count, coherent: at least 0.9 of epsilon left with 2048 rows",
        ),
        (
            {"count": (0.3, 0.3, 0.3)},
            "count, coherent: epsilon over that of the worse dense sketch, less one",
        ),
    ],
)
def test_dense_sketches_must_bound_the_error_that_sparse_ones_do_not(changed, part):
    assert sketched_regression._verdict(epsilons()).reproduced
    outcome = sketched_regression._verdict(epsilons(**changed))
    assert not outcome.reproduced
    assert outcome.slacks[part] < 0
