"""The rules of experiments, on findings written by hand."""

import numpy as np
import pytest
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
