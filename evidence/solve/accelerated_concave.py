"""Accelerated gradient for SCAD and MCP: steps to optimality, and supports recovered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thresher.core.evidence import Experiment
from thresher.linear import datafits, penalties
from thresher.solve.problem import Solution
from thresher.solve.solvers import AcceleratedConcave, CoordinateDescent, Problem, Solver

from .. import _planted as planted
from .._statistics import lower
from .._study import (
    Draw,
    Found,
    Judged,
    Slacks,
    Study,
    ahead_overall,
    by_one_error,
    every,
    grid,
    means,
)

_ROWS, _COLUMNS, _SIGNS, _LIMIT = 200, 1000, np.array([2.0, -2, 3, -3, 1.25]), 3000
_FASTER = 1.5  # times as many steps of proximal gradient
_OURS, _PLAIN, _OTHER = "accelerated", "plain", "coordinate descent"


@dataclass(frozen=True)
class _Problem:
    problem: Problem
    used: np.ndarray


def _draw(setting: tuple[str, str, float], drawn: Draw) -> _Problem:
    """Return a problem at a fifth of the largest strength, and its true support."""
    rng, (loss, name, correlation) = drawn.rng, setting
    columns = drawn.amount(_COLUMNS, 100)
    X = planted.correlated(correlation)(rng, _ROWS, columns)
    used = np.zeros(columns, dtype=bool)
    used[np.arange(len(_SIGNS)) * (columns // len(_SIGNS))] = True
    signal = X[:, used] @ _SIGNS
    y = signal + np.std(signal) / 3 * rng.standard_normal(_ROWS)
    datafit: datafits.Datafit = datafits.Squares()
    if loss == "logistic":
        datafit, y = datafits.Logistic(), np.where(y > 0, 1.0, -1.0)
    shape: penalties.Penalty = penalties.MCP() if name == "MCP" else penalties.SCAD()
    problem = Problem.build(X, y, datafit, shape)
    largest = float(np.max(np.abs(problem.null_gradient)))
    return _Problem(problem.with_penalty(shape.scaled(0.2 * largest)), used)


def _solved(solver: Solver) -> Callable[[_Problem], Solution]:
    return lambda p: solver.solve(p.problem)


def _faster(found: Found) -> Slacks:
    ratio = found.times("steps", _OURS, _PLAIN).mean(axis=0)
    return {f"mean ratio of steps over {_FASTER:g}": float(lower(ratio - _FASTER))}


experiment = Experiment(
    method=AcceleratedConcave.card.name,
    claim="acceleration converges considerably faster on average than proximal gradient, and "
    "generally beats other methods in signal recovery.",
    baseline="proximal gradient on the same split, without momentum; coordinate descent",
    run=Judged(
        study=Study(
            over=("loss", "penalty", "correlation"),
            settings=grid(("squares", "logistic"), ("SCAD", "MCP"), (0.1, 0.5, 0.9)),
            draw=_draw,
            methods={
                _OURS: _solved(AcceleratedConcave(1e-4, _LIMIT)),
                _PLAIN: _solved(AcceleratedConcave(1e-4, _LIMIT, accelerate=False)),
                _OTHER: _solved(CoordinateDescent(1e-4)),
            },
            measures={
                "steps": lambda found, _: found.n_iter,
                "missed": lambda found, p: planted.unmatched(found.coef != 0, p.used),
                "unsettled": lambda found, _: float(not found.converged),
            },
        ),
        rule=every(_faster, ahead_overall("missed", _OURS, _PLAIN, _OTHER)),
        view=means("missed", "One less the F1 of the support", "1 - F1"),
        against={_OURS: (_PLAIN, _OTHER)},
        note=f"{_ROWS} samples, {_COLUMNS} columns of which {len(_SIGNS)} matter; all start from "
        f"zero at a fifth of the largest strength. Considerably is read as {_FASTER:g} times, of "
        f"at most {_LIMIT} steps to a violation of 1e-4. Slacks are over all settings.",
        reason="All minimise the same objective, and the stationary points that they reach from "
        "zero recover nearly alike (suspected).",
    ),
    seeds=tuple(range(4)),
    earlier=(by_one_error(False, -0.00269097),),
)
