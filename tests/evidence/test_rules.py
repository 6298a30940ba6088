"""The rules of experiments, on findings written by hand."""

import numpy as np
import pytest
from thresher.evidence.linear import (
    alternating_completion,
    random_supports,
    sketched_regression,
)
from thresher.evidence.solve import accelerated_concave

SAME, SLOWER = [[1.0, 1.0]] * 3, [[1.0, 4.0], [1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("errors", "seconds", "margin"),
    [
        (SAME, SLOWER, 0.1),  # four times the ratio of times; a tenth is left of the factor 1.1
        (SAME, SAME, 0.0),
        ([[1.0, 1.0], [1.0, 2.0], [1.0, 1.0]], SLOWER, -0.9),
    ],
)
def test_approximate_updates_must_be_as_good_and_relatively_faster(errors, seconds, margin):
    outcome = alternating_completion._verdict((4, 16), np.array(errors), np.array(seconds))
    assert outcome.margin == pytest.approx(margin)
    assert len(outcome.slacks) == 2


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


def errors_by_support(unlucky=0):
    """Return errors that halve as samples double; some draws of the most samples are hard."""
    errors = {}
    for setting, methods in random_supports._settings(800).items():
        error = 0.9 if setting.worst else 4.5 / setting.samples
        draws = np.full(24, error)
        if setting.samples == 200 and setting.design == "pairs":
            draws[:unlucky] = 0.97
        errors[setting] = dict.fromkeys(methods, draws) | {"condition": np.ones(24)}
    return errors


@pytest.mark.parametrize(("unlucky", "held"), [(0, True), (2, True), (13, False)])
def test_random_supports_are_judged_by_what_most_of_them_give(unlucky, held):
    outcome = random_supports._verdict(800, errors_by_support(unlucky))
    assert outcome.reproduced == held
    fall = outcome.slacks["pairs: least relative fall of the error as samples double"]
    assert fall == pytest.approx(0.5 if held else 1 - 0.97 / 0.045)


def test_hard_supports_must_be_rare_among_random_ones():
    errors = errors_by_support()
    for setting, found in errors.items():
        if setting.samples == 100 and not setting.worst:
            found["projected Lasso"] = np.repeat([0.045, 0.6], [20, 4])
    outcome = random_supports._verdict(800, errors)
    part = "half the ratio of errors on worst to nine in ten random supports, less one"
    assert outcome.margin == outcome.slacks[part] == pytest.approx(0.9 / 0.6 / 2 - 1)


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
