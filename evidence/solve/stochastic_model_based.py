"""Three models of a sample's loss: how the gradient of the Moreau envelope falls with the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from thresher.core.evidence import Earlier, Experiment
from thresher.linear import datafits, penalties
from thresher.solve.solvers import Problem, StochasticModels

from .._statistics import lower, powers
from .._study import Draw, Found, Judged, Slacks, Study, means

_ROWS, _COLUMNS, _CORRUPTED = 200, 50, 0.2
_EPOCHS = (4, 16, 64)
_SEEN, _ROUNDS = 16, 200  # iterates that the mean is taken of; rounds of a proximal point
_MODELS = ("subgradient", "prox-linear", "prox-point")
_BOUND = -0.25
_FIXED = "subgradient, fixed step"


@dataclass(frozen=True)
class _Problem:
    """Robust phase retrieval, its start, the step that balances the bound, and epochs."""

    problem: Problem
    start: np.ndarray
    step: float
    epochs: int


def _draw(epochs: int, drawn: Draw) -> _Problem:
    rng = drawn.rng
    X, truth = rng.standard_normal((_ROWS, _COLUMNS)), rng.standard_normal(_COLUMNS)
    y = (X @ truth) ** 2
    wrong = rng.random(_ROWS) < _CORRUPTED
    y[wrong] = rng.random(wrong.sum()) * 10 * y.mean()
    away = rng.standard_normal(_COLUMNS)
    start = truth + 0.5 * np.linalg.norm(truth) * away / np.linalg.norm(away)
    slopes = 4 * (X @ truth) ** 2 * np.sum(X**2, axis=1)
    step = float(np.linalg.norm(start - truth) / np.sqrt(slopes.mean()))
    loss, none = datafits.IntensityError(), penalties.L1(0.0)
    problem = Problem.build(X, y, loss, none, intercept=False)
    return _Problem(problem, start, step, drawn.amount(epochs, 2))


def _iterates(model: str, fixed: bool = False) -> Callable[[_Problem], np.ndarray]:
    def run(p: _Problem) -> np.ndarray:
        """Return points at the ends of some epochs, evenly spread."""
        step = p.step / np.sqrt(_EPOCHS[0] if fixed else p.epochs)
        seen = np.unique(np.linspace(0, p.epochs, min(_SEEN, p.epochs + 1)).astype(int))
        points = [p.start]
        for epoch in range(p.epochs):
            solver = StochasticModels(0.0, 1, model, step, seed=epoch)
            points.append(solver.solve(p.problem, points[-1]).coef)
        return np.array(points)[seen]

    return run


def _nearest(target: np.ndarray, at: np.ndarray, length: float) -> np.ndarray:
    """Return the minimisers of ``|z^2 - target| + (z - at)^2 / (2 length)``, for short lengths."""
    size, root = np.abs(at), np.sqrt(target)
    outer, inner = size / (1 + 2 * length), size / (1 - 2 * length)
    return np.where(at >= 0, 1.0, -1.0) * np.where(outer >= root, outer, np.minimum(inner, root))


def _envelope(points: np.ndarray, p: _Problem) -> float:
    """Return the root mean square of the gradient of the Moreau envelope at the points.

    Its parameter is half the inverse of the weak convexity; proximal points are found by ADMM.
    """
    X, y = p.problem.design.matrix, p.problem.y
    gram = X.T @ X
    weight = 4 * float(np.linalg.eigvalsh(gram)[-1]) / _ROWS
    length = 0.1
    pull = 1 / (length * _ROWS)
    factor = cho_factor(weight * np.eye(_COLUMNS) + pull * gram)
    found, dual = points, np.zeros((len(points), _ROWS))
    for _ in range(_ROUNDS):
        reached = found @ X.T
        split = _nearest(y, reached + dual, length)
        dual = dual + reached - split
        target = weight * points + pull * (split - dual) @ X
        found = cho_solve(factor, target.T).T
    gradients = weight * (points - found)
    return float(np.sqrt(np.mean(np.sum(gradients**2, axis=1))))


def _rule(found: Found) -> Slacks:
    sizes = [epochs for (epochs,) in found.study.keys]
    by_model = {model: powers(sizes, found.of("gradient", model)) for model in _MODELS}
    return {
        f"{m}: {_BOUND:g} less the power of steps": float(lower(_BOUND - p))
        for m, p in by_model.items()
    }


experiment = Experiment(
    method=StochasticModels.card.name,
    claim="With any of the three models, steps that shrink with the root of their number drive "
    "the gradient of the Moreau envelope of a weakly convex function to zero as their number to "
    "the power -1/4.",
    baseline="the bound; steps of the subgradient model that do not shrink",
    run=Judged(
        study=Study(
            over=("epochs",),
            settings={epochs: epochs for epochs in _EPOCHS},
            draw=_draw,
            methods={model: _iterates(model) for model in _MODELS}
            | {_FIXED: _iterates("subgradient", fixed=True)},
            measures={"gradient": _envelope},
            draws=2,
        ),
        rule=_rule,
        view=means("gradient", "Gradient of the Moreau envelope", "norm"),
        against=dict.fromkeys(_MODELS, (_FIXED,)),
        note=f"Robust phase retrieval of {_COLUMNS} entries from {_ROWS} squares, of which "
        f"{_CORRUPTED:.0%} are wrong; started half a norm away. The norm is the root of the mean "
        f"square over up to {_SEEN} iterates spread over a run, for that of a random one. The step "
        "is the distance over the root mean square slope; a bound says nothing of fewer steps "
        "than it needs to come into force.",
        reason="What noise leaves goes as the root of the step only once steps are short: the "
        "power falls a little short of the bound's in so few epochs (suspected).",
    ),
    earlier=(
        Earlier(
            rule="the better models succeed over more steps than the subgradient's",
            reproduced=True,
            margin=1.12121,
            why="it was judged in another measure; a stricter rule followed",
        ),
        Earlier(
            rule="they succeed more than 1.5 times as often over a sweep of steps",
            reproduced=False,
            margin=-0.2,
            why="robustness to the step is another paper's claim",
        ),
    ),
)
