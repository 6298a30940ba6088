"""Greedy rules, Newton steps and forest blocks of block coordinate descent: progress per step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import datafits, penalties
from thresher.solve.solvers import CoordinateDescent, GreedyBlocks, Problem
from thresher.solve.solvers.forest_blocks import forest_block, forest_solve

from .._plots import lines

_LOSSES = ("squares", "logistic")
_KINDS = (
    *(("fixed", r) for r in ("cyclic", "random", "gauss-southwell")),
    *(("fixed", r) for r in ("lipschitz", "diagonal", "quadratic")),
    *(("variable", r) for r in ("gauss-southwell", "diagonal")),
)
_STEPS, _GOAL = 500, 1e-3  # steps at most; share of the first suboptimality that is reached
_FINE = 1e-8  # violation of optimality that Newton steps are to reach
_LATTICE_RULES = ("cyclic", "random", "gauss-southwell", "diagonal")


@dataclass(frozen=True)
class _Run:
    """What was reached before the first step and after every one."""

    gaps: np.ndarray  # suboptimality, as a share of the first
    violations: np.ndarray  # of optimality, relative to that at zero
    signs: list[bytes]  # which coefficients are positive and negative
    seconds: float

    @property
    def steps(self) -> int:
        """Steps to the goal, the limit where it is not reached."""
        return int(np.argmax(self.gaps <= _GOAL)) if self.gaps.min() <= _GOAL else _STEPS

    @property
    def settled(self) -> int:
        """Steps until the signs are those of the end."""
        return max((i + 1 for i, s in enumerate(self.signs) if s != self.signs[-1]), default=0)

    @property
    def fine(self) -> int:
        """Steps until optimality is violated no more than is asked of Newton steps."""
        below = self.violations <= _FINE
        return int(np.argmax(below)) if below.any() else _STEPS


def _problem(seed: int, loss: str, columns: int) -> Problem:
    rng = np.random.default_rng(seed)
    rows = columns // 10
    # Columns of very different size, so that curvature matters.
    X = rng.standard_normal((rows, columns)) * np.exp(0.5 * rng.standard_normal(columns))
    score = X[:, rng.choice(columns, 20, replace=False)] @ rng.choice([-1.0, 1.0], 20)
    datafit: datafits.Datafit = datafits.Squares()
    y = score + rng.standard_normal(rows)
    if loss == "logistic":
        datafit = datafits.Logistic()
        y = np.where(score + 2 * rng.standard_normal(rows) > 0, 1.0, -1.0)
    problem = Problem.build(X, y, datafit, penalties.L1())
    top = float(np.max(np.abs(problem.null_gradient)))
    return problem.with_penalty(penalties.L1(top / 20))


def _follow(problem: Problem, solver: GreedyBlocks, best: float, until: str) -> _Run:
    """Step until the goal (``"gaps"``) or the fine violation (``"violations"``) is reached."""
    solver.check_options()  # as solve() does
    start = np.zeros(problem.coef_shape)
    constant = problem.best_constant
    scale = float(np.max(np.abs(problem.null_gradient)))
    gaps, violations, signs = [], [], []
    began = time.perf_counter()
    for coef, intercept, violation in islice(solver.steps(problem, start, constant), _STEPS + 1):
        gaps.append(problem.objective(coef, problem.predict(coef, intercept)) - best)
        violations.append(violation / scale)
        signs.append(np.sign(coef).astype(np.int8).tobytes())
        if gaps[-1] <= _GOAL * gaps[0] if until == "gaps" else violations[-1] <= _FINE:
            break
    seconds = time.perf_counter() - began
    return _Run(np.array(gaps) / gaps[0], np.array(violations), signs, seconds)


def _best(problem: Problem) -> float:
    """Return the least objective."""
    found = CoordinateDescent(tol=1e-14, max_iter=10_000).solve(problem)
    return problem.objective(found.coef, problem.predict(found.coef, found.intercept))


def _lattice(seed: int, side: int) -> Problem:
    """Return label propagation on a square lattice, a twentieth of whose nodes are labelled."""
    rng = np.random.default_rng(seed)
    nodes = np.arange(side * side).reshape(side, side)
    ends = np.concatenate(
        [
            np.column_stack([nodes[:, :-1].ravel(), nodes[:, 1:].ravel()]),
            np.column_stack([nodes[:-1].ravel(), nodes[1:].ravel()]),
        ]
    )
    labelled = rng.choice(side * side, max(2, side * side // 20), replace=False)
    rows = np.concatenate(
        [np.repeat(np.arange(len(ends)), 2), len(ends) + np.arange(len(labelled))]
    )
    entries = np.concatenate([np.tile([1.0, -1.0], len(ends)), np.ones(len(labelled))])
    columns = np.concatenate([ends.ravel(), labelled])
    X = sparse.csc_array((entries, (rows, columns)))
    y = np.concatenate([np.zeros(len(ends)), rng.choice([-1.0, 1.0], len(labelled))])
    return Problem.build(X, y, datafits.Squares(), penalties.L1(0.0), intercept=False)


def _compare_rules(seeds: Sequence[int], columns: int) -> tuple[dict[str, Any], list[dict]]:
    """Return the runs of every loss, kind of block and rule, and their rows of the table."""
    runs: dict[str, Any] = {}
    for loss in _LOSSES:
        for seed in seeds:
            problem = _problem(seed, loss, columns)
            best = _best(problem)
            for blocks, rule in _KINDS:
                solver = GreedyBlocks(rule=rule, blocks=blocks, newton=False)
                run = _follow(problem, solver, best, "gaps")
                runs.setdefault((loss, blocks, rule), []).append(run)
            for newton in (True, False):
                run = _follow(problem, GreedyBlocks(newton=newton), best, "violations")
                runs.setdefault((loss, "Newton" if newton else "no Newton", "diagonal"), []).append(
                    run
                )
    return runs, [_row(*key, run) for key, run in runs.items()]


def _compare_forests(seeds: Sequence[int], side: int) -> tuple[dict[str, Any], list[dict], float]:
    """Return runs and rows on the lattice, and the error of message passing."""
    runs: dict[str, Any] = {}
    error = 0.0
    for seed in seeds:
        problem = _lattice(seed, side)
        X = problem.design.matrix
        hessian = sparse.csr_array(X.T @ X)
        exact = spsolve(hessian.tocsc(), X.T @ problem.y)
        best = problem.objective(exact, problem.predict(exact, np.zeros(())))
        # The dense update of so many costs as much as the message passing over all.
        size = round(side ** (2 / 3))
        for rule in _LATTICE_RULES:
            for blocks in ("fixed", "forest"):
                solver = GreedyBlocks(rule=rule, blocks=blocks, block=size, newton=False)
                run = _follow(problem, solver, best, "gaps")
                runs.setdefault(("lattice", blocks, rule), []).append(run)
        block = forest_block(np.random.default_rng(seed).permutation(side * side), hessian)
        matrix = sparse.csr_array(hessian[block][:, block])
        target = np.random.default_rng(seed).standard_normal(len(block))
        dense = np.linalg.solve(matrix.toarray(), target)
        away = np.linalg.norm(forest_solve(matrix, target) - dense) / np.linalg.norm(dense)
        error = max(error, float(away))
    return runs, [_row(*key, run) for key, run in runs.items()], error


def _row(problem: str, blocks: str, rule: str, runs: list[_Run]) -> dict[str, Any]:
    return {
        "problem": problem,
        "blocks": blocks,
        "rule": rule,
        "steps_to_goal": _mean(runs, "steps"),
        "suboptimality": float(np.exp(np.mean([np.log(max(r.gaps[-1], 1e-16)) for r in runs]))),
        "signs_settled": _mean(runs, "settled"),
        "steps_to_fine_violation": _mean(runs, "fine"),
        "seconds": _mean(runs, "seconds"),
    }


def _mean(runs: list[_Run], what: str) -> float:
    return float(np.mean([getattr(run, what) for run in runs]))


def _saved(ours: list[_Run], rival: list[_Run], what: str = "steps") -> float:
    """Return the share of the rival's steps that ours saves, means over seeds."""
    return 1 - _mean(ours, what) / _mean(rival, what)


def _slacks(runs: dict[str, Any], forests: dict[str, Any], error: float) -> dict[str, float]:
    """Return by how much every part of the rule holds."""
    slacks = {}
    for rule in ("lipschitz", "diagonal", "quadratic"):
        slacks[f"share of steps that {rule} saves of Gauss-Southwell's, fixed blocks"] = min(
            _saved(runs[loss, "fixed", rule], runs[loss, "fixed", "gauss-southwell"])
            for loss in _LOSSES
        )
    slacks["share of steps that diagonal saves of Gauss-Southwell's, variable blocks"] = min(
        _saved(runs[loss, "variable", "diagonal"], runs[loss, "variable", "gauss-southwell"])
        for loss in _LOSSES
    )
    slacks["share of steps that Newton steps save, above a half"] = (
        min(
            _saved(runs[loss, "Newton", "diagonal"], runs[loss, "no Newton", "diagonal"], "fine")
            for loss in _LOSSES
        )
        - 0.5
    )
    last = max(
        max(run.violations[-1] / run.violations[-2], 1e-16)
        for loss in _LOSSES
        for run in runs[loss, "Newton", "diagonal"]
    )
    slacks["decades by which the last Newton step shrinks the violation, above 3"] = (
        -np.log10(last) - 3
    )
    slacks["share of steps that forests save of fixed blocks', on a lattice"] = min(
        _saved(forests["lattice", "forest", rule], forests["lattice", "fixed", rule])
        for rule in _LATTICE_RULES
    )
    slacks["decades of message passing's agreement with a dense solve, above 10"] = (
        -np.log10(max(error, 1e-16)) - 10
    )
    return slacks


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    columns = 10 * max(20, round(500 * min(scale, 2.0)))
    runs, table = _compare_rules(seeds, columns)
    forests, rows, error = _compare_forests(seeds, max(10, round(40 * min(scale, 2.0))))
    slacks = _slacks(runs, forests, error)
    parts = "; ".join(f"{part}: {slack:.2f}" for part, slack in slacks.items())
    summary = (
        f"Steps of 20 coordinates, at most {_STEPS} counted, to {_GOAL:g} of the first "
        f"suboptimality, in the worse of a lasso and an L1-logistic problem of {columns} "
        f"columns; forests against blocks that cost as much to solve densely. {parts}. All must "
        "be positive."
    )
    worst = "share of steps that diagonal saves of Gauss-Southwell's, variable blocks"
    if slacks[worst] <= 0:
        summary += (
            " Suspected reason where variable blocks lose: the gains of single coordinates ignore "
            "how the columns of a block overlap, and the diagonal bounds a block's curvature only "
            "when multiplied by the block's size."
        )
    curves = {}
    for (problem, blocks, rule), found in runs.items():
        if blocks in ("fixed", "variable"):
            curve = found[0].gaps
            curves[f"{problem}, {blocks}, {rule}"] = np.maximum(curve, 1e-16).tolist()
    longest = max(map(len, curves.values()))
    figure = lines(
        list(range(longest)),
        {name: curve + [None] * (longest - len(curve)) for name, curve in curves.items()},
        title="Objective above the least, first seed", x_title="step",
        y_title="share of the first", log_y=True,
    )  # fmt: skip
    return Outcome.judged(slacks, summary, table + rows, figure)


experiment = Experiment(
    method="greedy-blocks",
    claim=(
        "greedy rules that know the curvature make more progress per step than Gauss-Southwell, "
        "Newton steps on the active set end superlinearly, and forests are solved in linear time."
    ),
    baseline="Gauss-Southwell, cyclic and random blocks; no Newton steps; blocks of the same cost",
    run=_run,
)
