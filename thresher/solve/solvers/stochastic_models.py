"""Minimising a weakly convex mean by models of one random term at a time."""

from __future__ import annotations

__all__ = ["StochasticModels"]

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import brentq

from ...core.card import Card, Catalogued
from ...core.errors import OptionError, nearest
from ...core.options import check_number, check_whole
from ..datafits import AbsoluteError, Kinked
from ..penalties import L1, Penalty
from ..problem import Problem, Solution
from .base import Need, Solver

_MODELS = ("subgradient", "prox-linear", "prox-point")


@dataclass(frozen=True)
class StochasticModels(Catalogued, Solver):
    """Draws a sample, and minimises a model of its loss plus the penalty near the last point.

    The nearness is a square of the distance, weighted by the root of the number of steps over
    `step`, the same in all steps. The better the model, the less the step matters. What is
    returned is the last point; the guarantee of the paper, on the gradient of the Moreau
    envelope, is for a random one.

    Parameters
    ----------
    tol : float, default 1e-6
        Stop when the objective changes by less than this in an epoch, relative to the start.
    max_iter : int, default 100
        Epochs, of as many samples as there are.
    model : {"prox-linear", "prox-point", "subgradient"}, default "prox-linear"
        What stands for the loss ``|c(z) - y|`` of a sample: its kink, with `c` replaced by its
        tangent; the loss itself; or its tangent.
    step : float, default 1
        Inverse weight of the nearness, before the root of the number of steps.
    seed : int, default 0
        Which samples are drawn, and the start where zero is a stationary point.

    Raises
    ------
    OptionError
        When solving: if `model` is unknown or `step` not positive, if the loss is neither
        ``AbsoluteError`` nor ``IntensityError``, or if ``"prox-point"`` is asked for the latter
        with a penalty.

    Notes
    -----
    A sparse design is made dense. A sample counts by its weight. The model of a sample depends on
    one number, its prediction; without a penalty the step has a closed form, with one it takes a
    root in the multiplier of the kink.

    References
    ----------
    Davis and Drusvyatskiy, Stochastic model-based minimization of weakly convex functions, SIAM
    Journal on Optimization 29 (2019), arXiv:1803.06523, algorithm 4.1.
    """

    card = Card(
        name="stochastic-model-based",
        title="Stochastic model-based minimization of weakly convex functions",
        authors="Damek Davis, Dmitriy Drusvyatskiy",
        year=2018,
        arxiv="1803.06523",
        summary="stochastic subgradient, prox-linear and prox-point steps for losses with kinks",
    )

    takes_kinks: ClassVar[bool] = True
    max_iter: int = 100
    model: str = "prox-linear"
    step: float = 1.0
    seed: int = 0

    def check_options(self) -> None:
        """Raise OptionError if an option is out of range."""
        super().check_options()
        if self.model not in _MODELS:
            raise OptionError(f"there is no model {self.model!r}; {nearest(self.model, _MODELS)}")
        check_number("step", self.step, above=0.0)
        check_whole("seed", self.seed, least=0)

    needs: ClassVar = (
        Need(
            lambda _, problem: isinstance(problem.datafit, Kinked),
            "only AbsoluteError and IntensityError are taken; use ProximalGradient",
        ),
        Need(
            lambda solver, problem: (
                solver.model != "prox-point"
                or isinstance(problem.datafit, AbsoluteError)
                or _is_free(problem.penalty)
            ),
            "this loss and a penalty have no joint proximal point; use the prox-linear model",
        ),
    )

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Minimise from the given start."""
        rng = np.random.default_rng(self.seed)
        matrix = problem.design.matrix
        rows = matrix.toarray() if problem.design.is_sparse else np.ascontiguousarray(matrix)
        coef = self._away_from_zero(problem, coef.astype(float), rng)
        point = coef
        if problem.intercept:  # one more coefficient, without a penalty
            rows, point = np.column_stack([rows, np.ones(len(rows))]), np.append(coef, intercept)
        length = self.step / np.sqrt(self.max_iter * len(rows))
        values = [self._objective(problem, point)]
        for _ in range(self.max_iter):
            moved = point
            with np.errstate(over="ignore", invalid="ignore"):
                for i in rng.choice(len(rows), len(rows), p=problem.weight):
                    moved = self._following(problem, rows[i], float(problem.y[i]), moved, length)
                values.append(self._objective(problem, moved))
            if not np.isfinite(values[-1]):
                break  # too long a step; what was reached before is returned
            point = moved
            if abs(values[-1] - values[-2]) <= self.tol * values[0]:
                break
        change = abs(values[-1] - values[-2]) / max(values[0], 1e-300)
        coef, constant = _parts(problem, point)
        return Solution(
            coef.astype(problem.design.dtype),
            np.asarray(constant),
            change if np.isfinite(change) else np.inf,
            "change of the objective in the last epoch",
            len(values) - 1,
            bool(change <= self.tol),
        )

    def _away_from_zero(
        self, problem: Problem, coef: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return the start, or a random one of the target's size where zero holds all models."""
        datafit = problem.datafit
        assert isinstance(datafit, Kinked)
        if np.any(coef) or np.any(datafit.inner_slope(np.zeros(1))):
            return coef
        start = rng.standard_normal(coef.shape)
        reached = float(problem.weight @ datafit.inner(problem.design.predict(start)))
        wanted = max(float(problem.weight @ problem.y), 0.0)
        return start * np.sqrt(wanted / max(reached, 1e-300))

    def _objective(self, problem: Problem, point: np.ndarray) -> float:
        coef, constant = _parts(problem, point)
        return problem.objective(coef, problem.predict(coef, np.asarray(constant)))

    def _following(
        self, problem: Problem, row: np.ndarray, target: float, point: np.ndarray, length: float
    ) -> np.ndarray:
        """Return the minimiser of the model of one sample, the penalty and the nearness."""
        datafit = problem.datafit
        assert isinstance(datafit, Kinked)
        prediction = np.asarray(row @ point)
        residual = float(datafit.inner(prediction)) - target
        slope = float(datafit.inner_slope(prediction))
        if self.model == "subgradient":
            pull = slope * np.sign(residual)
        elif not _is_free(problem.penalty):
            pull = slope * _multiplier(problem, row, point, length, residual, slope)
        else:
            along = length * (row @ row)  # how far a unit pull moves the prediction
            if along == 0:
                return point
            if self.model == "prox-point":
                pull = (prediction - datafit.nearest(target, float(prediction), along)) / along
            else:
                pull = np.clip(residual / along, -(slope**2), slope**2) / (slope or 1.0)
        return _prox(problem, point - length * pull * row, length)


def _is_free(penalty: Penalty) -> bool:
    return isinstance(penalty, L1) and not penalty.positive and not np.any(penalty.strength)


def _parts(problem: Problem, point: np.ndarray) -> tuple[np.ndarray, float]:
    return (point[:-1], point[-1]) if problem.intercept else (point, 0.0)


def _prox(problem: Problem, point: np.ndarray, length: float) -> np.ndarray:
    if _is_free(problem.penalty):
        return point
    coef, constant = _parts(problem, point)
    moved = problem.penalty.prox(coef, length)
    return np.append(moved, constant) if problem.intercept else moved


def _multiplier(
    problem: Problem,
    row: np.ndarray,
    point: np.ndarray,
    length: float,
    residual: float,
    slope: float,
) -> float:
    """Return the subgradient in [-1, 1] of the kink at which the tangent of `c` is optimal."""

    def excess(multiplier: float) -> float:
        moved = _prox(problem, point - length * slope * multiplier * row, length)
        return float(residual + slope * (row @ (moved - point)))

    # It falls in the multiplier: the more the sample pulls, the less remains of its residual.
    if excess(1.0) >= 0:
        return 1.0
    if excess(-1.0) <= 0:
        return -1.0
    return float(brentq(excess, -1.0, 1.0, xtol=1e-9))
