"""Sharing source samples by the Lasso, by least norm, and evenly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thresher.core.evidence import Experiment
from thresher.linear import TaskSelection

from .._study import Draw, Judged, Study, in_means, means, times_ahead

_TASKS, _FEATURES, _RANK, _RELEVANT, _TARGET = 50, 40, 4, 3, 25
_BUDGETS = (2_000, 6_000, 18_000)


@dataclass(frozen=True)
class _Problem:
    """Heads of source tasks over a common basis, and a target that needs few of them."""

    basis: np.ndarray
    heads: np.ndarray
    X: np.ndarray
    y: np.ndarray
    budget: int
    seed: int

    @property
    def truth(self) -> np.ndarray:
        return self.basis @ self.heads[:, :_RELEVANT].sum(axis=1)


def _draw(budget: int, drawn: Draw) -> _Problem:
    rng = drawn.rng
    basis = np.linalg.qr(rng.standard_normal((_FEATURES, _RANK)))[0]
    heads = rng.standard_normal((_RANK, _TASKS))
    heads[:, :_RELEVANT] *= 3  # the target needs little of these, much of any others
    X = rng.standard_normal((_TARGET, _FEATURES))
    problem = _Problem(basis, heads, X, np.zeros(_TARGET), budget, int(rng.integers(2**31)))
    problem.y[:] = X @ problem.truth + 0.5 * rng.standard_normal(_TARGET)
    return problem


def _shared(rule: str) -> Callable[[_Problem], TaskSelection]:
    def fit(p: _Problem) -> TaskSelection:
        rng = np.random.default_rng(p.seed)

        def sample(counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
            drawn = [rng.standard_normal((count, _FEATURES)) for count in counts]
            return [
                (F, F @ p.basis @ p.heads[:, i] + 3 * rng.standard_normal(len(F)))
                for i, F in enumerate(drawn)
            ]

        return TaskSelection(_RANK, budget=p.budget, relevance=rule).fit(sample, p.X, p.y, _TASKS)

    return fit


def _error(model: TaskSelection, p: _Problem) -> float:
    return float(np.linalg.norm(model.coef_ - p.truth) / np.linalg.norm(p.truth))


experiment = Experiment(
    method=TaskSelection.card.name,
    claim="Sharing source samples by the Lasso's weights needs fewer samples for the same target "
    "error than sharing by the squares of the least-norm weights.",
    baseline="shares by least-norm weights (the earlier method) and even shares",
    run=Judged(
        study=Study(
            over=("budget",),
            settings={budget: budget for budget in _BUDGETS},
            draw=_draw,
            methods={rule: _shared(rule) for rule in ("l1", "l2", "uniform")},
            measures={
                "error": _error,
                "tasks": lambda model, _: float(np.sum(model.relevance_ > 0.01)),
            },
            draws=10,
        ),
        rule=times_ahead("error", "l1", "l2", "uniform"),
        view=means("error", f"Target error with {_TASKS} source tasks", "relative error"),
        against={"l1": ("l2", "uniform")},
        note=f"{_RELEVANT} tasks matter. `tasks` get over 1 % of the samples. Slacks are geometric "
        "means of ratios of errors, less one.",
        reason="With samples in plenty, few tasks no longer pin down every direction of the "
        "representation as well as many do (suspected).",
    ),
    earlier=(in_means(False, -0.317615),),
)
