"""ISTA and IHT as trained networks: towards the truth or towards the objective."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thresher.core import prox
from thresher.core.evidence import Experiment
from thresher.linear.recovery.unrolled import UnfoldedThresholding

from .._statistics import least_ratio
from .._study import Draw, Found, Judged, Slacks, Study, in_means, means

_ROWS, _COLUMNS, _DENSITY, _NOISE, _ALPHA, _LAYERS = 75, 150, 0.08, 0.05, 0.1, 10
_CONVERGED, _TESTS = 3000, 300
_TRUTH, _OBJECTIVE, _PLAIN, _LIMIT = "supervised", "unsupervised", "plain", "plain, converged"
_NEAR = 2.0  # times the error, or the distance to the minimum


@dataclass(frozen=True)
class _Problem:
    """Vectors to train on, and measured ones to recover."""

    penalty: str
    drawn: Draw
    A: np.ndarray
    train: np.ndarray
    X: np.ndarray
    B: np.ndarray


def _vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    shape = (count, _COLUMNS)
    return rng.standard_normal(shape) * (rng.random(shape) < _DENSITY)


def _measured(rng: np.random.Generator, A: np.ndarray, X: np.ndarray) -> np.ndarray:
    return X @ A.T + _NOISE * rng.standard_normal((len(X), len(A)))


def _draw(penalty: str, drawn: Draw) -> _Problem:
    rng = drawn.rng
    A = rng.standard_normal((_ROWS, _COLUMNS)) / np.sqrt(_ROWS)
    train, X = _vectors(rng, 5000), _vectors(rng, drawn.amount(_TESTS, 50))
    return _Problem(penalty, drawn, A, train, X, _measured(rng, A, X))


def _plain(p: _Problem, steps: int) -> np.ndarray:
    """Return an iterate of ISTA or IHT."""
    step, x = 1 / np.linalg.norm(p.A, 2) ** 2, np.zeros_like(p.X)
    for _ in range(steps):
        moved = x + step * (p.B - x @ p.A.T) @ p.A
        l1 = p.penalty == "l1"
        x = prox.soft(moved, _ALPHA * step) if l1 else prox.hard(moved, np.sqrt(2 * _ALPHA * step))
    return x


def _trained(loss: str) -> Callable[[_Problem], np.ndarray]:
    def run(p: _Problem) -> np.ndarray:
        network = UnfoldedThresholding(
            _LAYERS, penalty=p.penalty, loss=loss, alpha=_ALPHA, random_state=p.drawn.seed,
            updates=p.drawn.amount(100, 5),
        )  # fmt: skip
        measured = _measured(np.random.default_rng(p.drawn.seed), p.A, p.train)
        return network.fit(p.A, measured, p.train).predict(p.B)

    return run


def _error(x: np.ndarray, p: _Problem) -> float:
    return float(np.sum((x - p.X) ** 2) / np.sum(p.X**2))


def _objective(x: np.ndarray, p: _Problem) -> float:
    size = np.abs(x).sum(axis=1) if p.penalty == "l1" else np.count_nonzero(x, axis=1)
    return float(np.mean(np.sum((p.B - x @ p.A.T) ** 2, axis=1) / 2 + _ALPHA * size))


def _above(found: Found, method: str) -> np.ndarray:
    """Return how far objectives under L1 are above that of the converged iteration."""
    gap = found.of("objective", method) - found.of("objective", _LIMIT)
    return np.maximum(gap[0], 1e-12)


def _rule(found: Found) -> Slacks:
    l1, l0 = found.where(penalty="l1"), found.where(penalty="l0")
    alike = np.abs(np.log(l0.times("error", _TRUTH, _OBJECTIVE)))
    ratios = {
        "L1: supervised recovers better": l1.times("error", _TRUTH, _OBJECTIVE),
        f"L1: unsupervised is {_NEAR:g} times nearer to the minimum than plain": _above(l1, _PLAIN)
        / _above(l1, _OBJECTIVE)
        / _NEAR,
        "L1: supervised is further from it": _above(l1, _TRUTH) / _above(l1, _OBJECTIVE),
        "L0: supervised below converged": l0.times("objective", _TRUTH, _LIMIT),
        "L0: unsupervised below converged": l0.times("objective", _OBJECTIVE, _LIMIT),
        f"L0: errors within {_NEAR:g} times": _NEAR * np.exp(-alike),
    }
    return {
        f"{part}, ratio less one": float(np.ravel(least_ratio(ratio))[0] - 1)
        for part, ratio in ratios.items()
    }


experiment = Experiment(
    method=UnfoldedThresholding.card.name,
    claim="For L1 supervised training recovers better but does not minimise the objective, and "
    "unsupervised training reaches ISTA's solution sooner; for L0 both reach better minima than "
    "IHT and perform alike.",
    baseline="ISTA and IHT with a constant step, at as many steps and converged",
    run=Judged(
        study=Study(
            over=("penalty",),
            settings={penalty: penalty for penalty in ("l1", "l0")},
            draw=_draw,
            methods={
                _TRUTH: _trained(_TRUTH),
                _OBJECTIVE: _trained(_OBJECTIVE),
                _PLAIN: functools.partial(_plain, steps=_LAYERS),
                _LIMIT: functools.partial(_plain, steps=_CONVERGED),
            },
            measures={"error": _error, "objective": _objective},
        ),
        rule=_rule,
        view=means("error", f"Squared error after {_LAYERS} layers", "relative error"),
        against={_TRUTH: (_OBJECTIVE, _LIMIT), _OBJECTIVE: (_TRUTH, _PLAIN, _LIMIT)},
        note=f"{_ROWS} x {_COLUMNS} Gaussian, {_DENSITY:.0%} non-zeros. The converged iteration "
        f"has {_CONVERGED} steps. Slacks are geometric means of ratios, less one.",
    ),
    earlier=(in_means(True, 0.187489),),
)
