"""SPIRAL-TAP against EM and against least squares, on few counts from more unknowns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import datafits, penalties
from thresher.solve.penalties import Penalty
from thresher.solve.solvers import Problem, ProximalGradient, Solver, Spiral

from .._plots import lines

_STRENGTHS = np.geomspace(1e-4, 1e-1, 8)
_PHOTONS = (500, 2000)
_ACCURACY = 1e-4  # of the violation of optimality, relative to the start
_KINDS: dict[str, tuple[str, type[Penalty]]] = {
    "sparse, L1": ("sparse", penalties.L1),
    "constant pieces, total variation": ("pieces", penalties.TotalVariation),
    "constant pieces, Haar": ("pieces", penalties.HaarL1),
    "constant pieces, dyadic partition": ("pieces", penalties.DyadicPartition),
}
_RIVALS = ("EM", "least squares")


@dataclass(frozen=True)
class _Fit:
    """The best of several fits in hindsight."""

    error: float  # of the intensities, relative
    seconds: float  # of all the fits
    violation: float = 0.0


def _signal(kind: str, rng: np.random.Generator, columns: int, photons: float) -> np.ndarray:
    signal = np.full(columns, 1e-3)
    if kind == "sparse":
        count = columns // 32
        signal[rng.choice(columns, count, replace=False)] = rng.uniform(0.5, 1.5, count)
    else:
        width = columns // 8
        for edge in rng.choice(columns - width, 3, replace=False):
            signal[edge : edge + width] += rng.uniform(0.5, 1.5)
    return signal * photons / signal.sum()


def _richardson_lucy(A: np.ndarray, y: np.ndarray, steps: int = 100) -> list[np.ndarray]:
    """Return the iterates of EM for the Poisson likelihood."""
    signal = np.full(A.shape[1], y.sum() / A.sum())
    iterates = []
    for _ in range(steps):
        signal = signal * (A.T @ (y / np.maximum(A @ signal, 1e-12))) / A.sum(axis=0)
        iterates.append(signal)
    return iterates


def _error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def _best(
    problem: Problem,
    solver: Solver,
    make: type[Penalty],
    unit: float,
    strengths: np.ndarray,
    truth: np.ndarray,
    size: float = 1.0,
) -> _Fit:
    """Return the fit of the best strength in hindsight; intensities are coefficients times size."""
    began = time.perf_counter()
    fits = [
        solver.solve(problem.with_penalty(make(unit * a, positive=True)))  # type: ignore[call-arg]
        for a in strengths
    ]
    seconds = time.perf_counter() - began
    best = min(fits, key=lambda fit: _error(size * fit.coef, truth))
    return _Fit(_error(size * best.coef, truth), seconds, best.criterion)


def _compare(name: str, photons: float, draw: int, small: bool) -> dict[str, _Fit]:
    """Return what each method makes of one draw of counts."""
    kind, make = _KINDS[name]
    columns, strengths = (64, _STRENGTHS[1::3]) if small else (256, _STRENGTHS)
    rows, rng = columns // 2, np.random.default_rng(draw)
    A = rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.2)
    A /= A.sum(axis=0)
    truth = _signal(kind, rng, columns, photons)
    y = rng.poisson(A @ truth).astype(float)
    # Least squares with a largest curvature of 1, the step at which violations are measured.
    size = np.sqrt(rows) / np.linalg.norm(A, 2)
    poisson = Problem.build(A, y, datafits.PoissonIdentity(1e-3), make(), intercept=False)
    squares = Problem.build(A * size, y, datafits.Squares(), make(), intercept=False)
    units = float(np.mean(A)) * 10, size * float(np.max(np.abs(A.T @ y))) / rows
    if make is penalties.DyadicPartition:
        # A tenth to a hundred times the log-likelihood, or the variance, of a count.
        units = 1e3 / rows, 1e3 * float(np.mean(y)) / rows
    began = time.perf_counter()
    iterates = _richardson_lucy(A, y)
    seconds = time.perf_counter() - began
    return {
        "SPIRAL-TAP": _best(poisson, Spiral(_ACCURACY, 1000), make, units[0], strengths, truth),
        "EM": _Fit(min(_error(found, truth) for found in iterates), seconds),
        "least squares": _best(
            squares, ProximalGradient(_ACCURACY, 1000), make, units[1], strengths, truth, size
        ),
    }


def _slacks(cells: dict[tuple[str, int], list[dict[str, _Fit]]]) -> dict[str, float]:
    """Return by how much every part of the rule holds."""
    slacks = {}
    for (name, photons), draws in cells.items():
        for rival in _RIVALS:
            gain = [np.log(d[rival].error / d["SPIRAL-TAP"].error) for d in draws]
            deviation = np.std(gain, ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
            slacks[f"log of {rival}'s error over ours less two SE: {name}, {photons}"] = float(
                np.mean(gain) - 2 * deviation
            )
    worst = max(
        draw["SPIRAL-TAP"].violation
        for (name, _), draws in cells.items()
        if _KINDS[name][1].convex
        for draw in draws
    )
    slacks["decades by which convex fits are nearer to optimal than a thousandth"] = float(
        -3 - np.log10(max(worst, 1e-16))
    )
    return slacks


def _row(name: str, photons: int, method: str, draws: list[dict[str, _Fit]]) -> dict[str, Any]:
    errors = [draw[method].error for draw in draws]
    spread = np.std(errors, ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else np.nan
    return {
        "signal, penalty": name,
        "photons": photons,
        "method": method,
        "error": float(np.mean(errors)),
        "standard_error": float(spread),
        "seconds": float(np.mean([draw[method].seconds for draw in draws])),
    }


def _summary(slacks: dict[str, float]) -> str:
    cells = list(product(_KINDS, _PHOTONS))
    won = sum(
        all(v > 0 for part, v in slacks.items() if part.endswith(f": {name}, {photons}"))
        for name, photons in cells
    )
    failed = [part for part, slack in slacks.items() if slack <= 0]
    summary = (
        f"SPIRAL-TAP's relative error is below that of EM and of least squares under the same "
        f"penalty, by more than two standard errors of the paired log ratio, in {won} of "
        f"{len(cells)} cells; all were asked for. Every method has its best strength (EM its best "
        f"step) in hindsight. The margin is the least slack."
        + (f" Missed: {'; '.join(failed)}." if failed else "")
    )
    if any("EM" in part and "sparse" in part for part in failed):
        summary += (
            " Suspected reason for sparse signals: the likelihood's own minimum over non-negative "
            "intensities is sparse already, so that EM stopped in time needs no penalty."
        )
    return summary


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    count = max(1, round(4 * scale))
    draws = [10 * seed + k for seed in seeds for k in range(count)]
    cells = {
        (name, photons): [_compare(name, float(photons), draw, scale < 0.5) for draw in draws]
        for name in _KINDS
        for photons in _PHOTONS
    }
    slacks = _slacks(cells)
    methods = ("SPIRAL-TAP", *_RIVALS)
    table = [_row(*cell, method, found) for cell, found in cells.items() for method in methods]
    settings = [f"{name}, {photons}" for name, photons in cells]
    figure = lines(
        settings,
        {m: [row["error"] for row in table if row["method"] == m] for m in methods},
        title="Reconstruction from counts", x_title="signal, penalty and photons",
        y_title="relative error",
        errors={m: [r["standard_error"] for r in table if r["method"] == m] for m in methods},
    )  # fmt: skip
    return Outcome.judged(slacks, _summary(slacks), table, figure)


experiment = Experiment(
    method="spiral-tap",
    claim=(
        "sparse intensities are reconstructed accurately from fewer Poisson counts than unknowns."
    ),
    baseline="EM (Richardson-Lucy) and non-negative penalised least squares",
    run=_run,
)
