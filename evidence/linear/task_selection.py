"""Sharing source samples by the Lasso, by least norm, and evenly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import TaskSelection

from .._plots import lines

_TASKS, _FEATURES, _RANK, _RELEVANT, _TARGET = 50, 40, 4, 3, 25
_BUDGETS = (2_000, 6_000, 18_000)
_RULES = ("l1", "l2", "uniform")


def _problem(seed: int) -> tuple[Callable[[np.ndarray], Any], np.ndarray, np.ndarray, np.ndarray]:
    """Return a sampler of source tasks, target data, and the target's true coefficients."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((_FEATURES, _RANK)))[0]
    heads = rng.standard_normal((_RANK, _TASKS))
    heads[:, :_RELEVANT] *= 3  # the target needs little of these, much of any others
    truth = basis @ heads[:, :_RELEVANT].sum(axis=1)
    X = rng.standard_normal((_TARGET, _FEATURES))

    def sample(counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        drawn = [rng.standard_normal((count, _FEATURES)) for count in counts]
        return [
            (F, F @ basis @ heads[:, i] + 3 * rng.standard_normal(len(F)))
            for i, F in enumerate(drawn)
        ]

    return sample, X, X @ truth + 0.5 * rng.standard_normal(_TARGET), truth


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    trials = max(2, round(10 * scale))
    errors = np.zeros((len(_RULES), len(_BUDGETS), len(seeds) * trials))
    used = np.zeros_like(errors)
    for b, budget in enumerate(_BUDGETS):
        for t, (seed, trial) in enumerate((s, k) for s in seeds for k in range(trials)):
            for r, rule in enumerate(_RULES):
                sample, X, y, truth = _problem(1000 * seed + trial)
                model = TaskSelection(_RANK, budget=budget, relevance=rule)
                model.fit(sample, X, y, _TASKS)
                gap = np.linalg.norm(model.coef_ - truth) / np.linalg.norm(truth)
                errors[r, b, t] = gap
                used[r, b, t] = np.sum(model.relevance_ > 0.01)
    return _verdict(errors, used)


def _verdict(errors: np.ndarray, used: np.ndarray) -> Outcome:
    median, tasks = np.median(errors, axis=2), used.mean(2)
    table: list[dict[str, Any]] = [
        {"rule": rule, "budget": b, "median_error": median[i, j], "tasks": tasks[i, j]}
        for i, rule in enumerate(_RULES)
        for j, b in enumerate(_BUDGETS)
    ]
    gains = 1 - median[0] / median[1:].min(0)
    slacks = {
        f"relative gain over the better of the others with {budget} samples": gain
        for budget, gain in zip(_BUDGETS, gains, strict=True)
    }
    figure = lines(
        list(_BUDGETS), {rule: median[i].tolist() for i, rule in enumerate(_RULES)},
        title=f"Target error with {_TASKS} source tasks", x_title="source samples",
        y_title="median relative error", log_y=True,
    )  # fmt: skip
    return Outcome.judged(slacks, _summary(median, tasks, gains), table, figure)


def _summary(median: np.ndarray, tasks: np.ndarray, gains: np.ndarray) -> str:
    summary = (
        f"Median relative error of the target with budgets {', '.join(map(str, _BUDGETS))}: "
        + "; ".join(
            f"{rule} " + ", ".join(f"{e:.3f}" for e in median[i]) for i, rule in enumerate(_RULES)
        )
        + f". The Lasso ends with {tasks[0].mean():.1f} tasks that get over 1 % of the samples, "
        f"least norm with {tasks[1].mean():.1f} of {_TASKS}. The margin is the relative gain of "
        "the Lasso over the better of the others at the budget where it is least."
    )
    if gains.min() <= 0 < gains.max():
        summary += (
            " The Lasso leads only at some budgets: with samples in plenty, few tasks no longer "
            "pin down every direction of the representation as well as many do."
        )
    return summary


experiment = Experiment(
    method="task-selection",
    claim="Sharing source samples by the Lasso's weights needs fewer samples for the same target "
    "error than sharing by the squares of the least-norm weights.",
    baseline="shares by least-norm weights (the earlier method) and even shares",
    run=_run,
)
