"""ISTA, FISTA and Frank-Wolfe on one problem, against the bounds of the monograph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.core.prox_norms import l1_ball
from thresher.linear import datafits, penalties
from thresher.linear.solvers import CoordinateDescent, FrankWolfe, Problem

from .._plots import lines

_STEPS = tuple(int(t) for t in np.unique(np.geomspace(1, 300, 25).astype(int)))


def _gradient_values(
    X: np.ndarray, y: np.ndarray, radius: float, momentum: bool, steps: int
) -> np.ndarray:
    """Return the objective after each projected gradient step, with or without momentum."""
    n = len(y)
    lipschitz = np.linalg.norm(X, 2) ** 2 / n
    point = ahead = np.zeros(X.shape[1])
    t, values = 1.0, []
    for _ in range(steps):
        following = l1_ball(ahead - X.T @ (X @ ahead - y) / n / lipschitz, radius)
        grown = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead = following + ((t - 1) / grown if momentum else 0.0) * (following - point)
        point, t = following, grown
        values.append(float(np.sum((y - X @ point) ** 2)) / (2 * n))
    return np.array(values)


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    steps = [t for t in _STEPS if t <= max(20, 300 * scale)]
    table, worst = [], {"ISTA": 0.0, "FISTA": 0.0, "Frank-Wolfe": 0.0}
    curves: dict[str, np.ndarray] = {}
    sparse = True
    for seed in seeds:
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((100, 400))
        X = X + 2 * rng.standard_normal((100, 1))  # a common factor: badly conditioned
        truth = np.zeros(400)
        truth[:10] = rng.choice([-1.0, 1.0], 10)
        y = X @ truth + 0.1 * rng.standard_normal(100)
        lasso = Problem.build(X, y, datafits.Squares(), penalties.L1(0.1), intercept=False)
        best = CoordinateDescent(1e-14).solve(lasso).coef
        radius = float(np.abs(best).sum())
        optimum = float(np.sum((y - X @ best) ** 2)) / 200
        lipschitz = np.linalg.norm(X, 2) ** 2 / 100
        gaps = {
            "ISTA": _gradient_values(X, y, radius, False, steps[-1]) - optimum,
            "FISTA": _gradient_values(X, y, radius, True, steps[-1]) - optimum,
        }
        gaps = {name: values[[t - 1 for t in steps]] for name, values in gaps.items()}
        ball = Problem.build(X, y, datafits.Squares(), penalties.L1Ball(radius), intercept=False)
        found = [FrankWolfe(0.0, t, line_search=False).solve(ball).coef for t in steps]
        sparse &= all(np.count_nonzero(w) <= t + 1 for w, t in zip(found, steps, strict=True))
        gaps["Frank-Wolfe"] = np.array([np.sum((y - X @ w) ** 2) / 200 - optimum for w in found])
        t = np.array(steps, dtype=float)
        start = float(best @ best)
        # The smoothness of Frank-Wolfe is taken in the L1 norm: the largest entry of the Gram.
        steepness = float(np.max(np.sum(X**2, axis=0))) / 100
        bounds = {
            "ISTA": lipschitz * start / (2 * t),
            "FISTA": 2 * lipschitz * start / t**2,
            "Frank-Wolfe": 2 * steepness * (2 * radius) ** 2 / (t + 2),
        }
        for name, gap in gaps.items():
            worst[name] = max(worst[name], float(np.max(gap / bounds[name])))
            curves[name] = curves.get(name, 0) + np.maximum(gap, 1e-16) / len(seeds)
            curves[f"{name}, bound"] = curves.get(f"{name}, bound", 0) + bounds[name] / len(seeds)
            table += [
                {"seed": seed, "method": name, "step": s, "gap": float(g)}
                for s, g in zip(steps, gap, strict=True)
            ]
    largest = max(worst.values())
    summary = (
        "Largest observed gap over its bound: "
        + ", ".join(f"{name} {share:.3f}" for name, share in worst.items())
        + f". Frank-Wolfe kept at most one atom more than steps: {sparse}. The margin is one "
        "less the largest share."
    )
    figure = lines(
        steps, {name: list(values) for name, values in curves.items()},
        title="Gap to the optimum against the bounds", x_title="step", y_title="gap", log_y=True,
    )  # fmt: skip
    figure.update_xaxes(type="log")
    return Outcome(bool(largest <= 1 and sparse), 1 - largest, summary, table, figure)


experiment = Experiment(
    method="frank-wolfe",
    claim="ISTA and Frank-Wolfe stay below bounds of order 1/t, FISTA below one of order 1/t^2.",
    baseline="the bounds of the monograph",
    run=_run,
)
