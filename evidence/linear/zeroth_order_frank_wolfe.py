"""Zeroth-order Frank-Wolfe: how its gap goes with steps and dimension, beside projected descent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.core import prox_norms
from thresher.core.evidence import Earlier, Experiment
from thresher.linear import ZerothOrderFrankWolfe
from thresher.solve.penalties import L1Ball

from .._statistics import lower, powers
from .._study import Draw, Found, Judged, Slacks, Study, grid, means

_NONZEROS, _NOISE = 4, 0.1
_DIMENSIONS, _STEPS = (50, 100, 200), (500, 2_000, 8_000)
_RATES = (0.1, 0.3, 1.0)
_OURS, _RIVAL = "Frank-Wolfe", "projected, best rate"
_THIRD = 1 / 3


@dataclass(frozen=True)
class _Problem:
    """One sample of planted sparse least squares per call."""

    truth: np.ndarray
    steps: int
    seed: int

    def loss(self, point: np.ndarray, rng: np.random.Generator) -> float:
        miss = rng.standard_normal(point.size) @ (self.truth - point)
        return float(miss + _NOISE * rng.standard_normal()) ** 2

    def gap(self, point: np.ndarray) -> float:
        """Return the exact excess of the expected loss, relative to that of zero."""
        return float(np.sum((point - self.truth) ** 2) / np.sum(self.truth**2))


def _draw(setting: tuple[int, int], drawn: Draw) -> _Problem:
    rng, (dimension, steps) = drawn.rng, setting
    truth = np.zeros(dimension)
    chosen = rng.choice(dimension, _NONZEROS, replace=False)
    truth[chosen] = rng.choice([-1, 1], _NONZEROS) / _NONZEROS
    return _Problem(truth, drawn.amount(steps, 30), drawn.seed)


def _frank_wolfe(p: _Problem) -> np.ndarray:
    solver = ZerothOrderFrankWolfe(L1Ball(1.0), max_iter=p.steps, seed=p.seed)
    return solver.minimise(p.loss, np.zeros_like(p.truth))


def _projected(p: _Problem, rate: float) -> np.ndarray:
    """Descend along directional differences, with steps ``rate / (d sqrt(t))``, and project."""
    rng, point, size = np.random.default_rng(p.seed), np.zeros_like(p.truth), p.truth.size
    for step in range(1, p.steps + 1):
        direction, sample = rng.standard_normal(size), int(rng.integers(2**63))
        ahead = p.loss(point + 1e-4 * direction, np.random.default_rng(sample))
        here = p.loss(point, np.random.default_rng(sample))
        slope = (ahead - here) / 1e-4 * direction
        point = prox_norms.l1_ball(point - rate / (size * np.sqrt(step)) * slope, 1.0)
    return point


def _best(p: _Problem) -> np.ndarray:
    """Return the end of projected descent with the rate that is best in hindsight."""
    return min((_projected(p, rate) for rate in _RATES), key=p.gap)


def _by_dimension(found: Found, method: str) -> np.ndarray:
    """Return the power of the dimension in the gap after the most steps, by draw."""
    at = found.where(steps=found.study.keys[-1][1])
    return powers([dimension for dimension, _ in at.study.keys], at.of("gap", method))


def _rule(found: Found) -> Slacks:
    ours, rival = (_by_dimension(found, method) for method in (_OURS, _RIVAL))
    slacks = {
        "1/3 less the power of the dimension": float(lower(_THIRD - ours)),
        f"power of the dimension below that of {_RIVAL}": float(lower(rival - ours)),
    }
    for dimension in dict.fromkeys(dimension for dimension, _ in found.study.keys):
        at = found.where(dimension=dimension)
        late = powers([steps for _, steps in at.study.keys[-2:]], at.of("gap", _OURS)[-2:])
        slacks[f"{dimension}: -1/3 less the power of the last steps"] = float(lower(-_THIRD - late))
    return slacks


def _say(found: Found) -> str:
    said = (f"{method} {_by_dimension(found, method).mean():.2f}" for method in (_OURS, _RIVAL))
    return f"Power of the dimension after the most steps: {', '.join(said)}."


experiment = Experiment(
    method=ZerothOrderFrankWolfe.card.name,
    claim="From two values per step the gap falls as steps to the power -1/3, and grows with the "
    "dimension as its power 1/3, the best of methods with one directional derivative per step.",
    baseline="the bound; projected descent along the same differences, with the best of three "
    "rates in hindsight",
    run=Judged(
        study=Study(
            over=("dimension", "steps"),
            settings=grid(_DIMENSIONS, _STEPS),
            draw=_draw,
            methods={_OURS: _frank_wolfe, _RIVAL: _best},
            measures={"gap": lambda point, p: p.gap(point)},
        ),
        rule=_rule,
        view=means("gap", "Gap to the optimum, relative to the start", "gap"),
        against={_OURS: (_RIVAL,)},
        say=_say,
        note="The power of the steps is that from the last but one to the last number of them, in "
        "every dimension; that of the dimension is after the most steps.",
        reason="In the larger dimensions so few steps are still in the stretch where averaged "
        "slopes are mostly noise, which the constant of the bound allows for (suspected).",
    ),
    earlier=(
        Earlier(
            rule="the mean gap falls as steps to -1/3 or faster in every dimension, from 1,000 "
            "to 16,000 steps",
            reproduced=False,
            margin=-0.22836,
            why="it had been yes (0.176) and no (-0.106) with other numbers of steps; the early "
            "stretch cannot contradict an upper bound, and growth with dimension was not tested",
        ),
    ),
)
