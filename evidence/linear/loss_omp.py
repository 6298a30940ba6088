"""Loss-guided OMP: noise-blind tuning of the square root, tolerance of faults of LAD."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import LossOMP

from .._plots import lines

_ROWS, _COLUMNS, _SUPPORT = 100, 300, 10
_NOISES = (1e-3, 1e-2, 1e-1)
_STRENGTHS = np.geomspace(1e-4, 1.0, 13)
_FAULTS = 0.05


def _sensing(seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((_ROWS, _COLUMNS))
    A /= np.linalg.norm(A, axis=0)
    x = np.zeros(_COLUMNS)
    x[rng.choice(_COLUMNS, _SUPPORT, replace=False)] = rng.standard_normal(_SUPPORT)
    return A, x, rng


def _error(A: np.ndarray, y: np.ndarray, x: np.ndarray, loss: str, alpha: float) -> float:
    # Twice the true support may be chosen, so that the penalty has to say when to stop.
    model = LossOMP(2 * _SUPPORT, loss=loss, alpha=alpha, fit_intercept=False).fit(A, y)
    return float(np.linalg.norm(model.coef_ - x) / np.linalg.norm(x))


def _tuning(loss: str, seeds: Sequence[int]) -> np.ndarray:
    """Return mean errors, noise levels by strengths."""
    errors = np.zeros((len(_NOISES), len(_STRENGTHS)))
    for seed in seeds:
        A, x, rng = _sensing(seed)
        noise = rng.standard_normal(_ROWS)
        for i, level in enumerate(_NOISES):
            for j, alpha in enumerate(_STRENGTHS):
                y = A @ x + level * noise
                errors[i, j] += _error(A, y, x, loss, alpha) / len(seeds)
    return errors


def _faults(loss: str, seeds: Sequence[int]) -> float:
    total = 0.0
    for seed in seeds:
        A, x, rng = _sensing(seed)
        y = A @ x + 1e-3 * rng.standard_normal(_ROWS)
        hit = rng.choice(_ROWS, int(_FAULTS * _ROWS), replace=False)
        y[hit] += 10 * rng.standard_normal(len(hit))
        model = LossOMP(_SUPPORT, loss=loss, fit_intercept=False).fit(A, y)
        total += float(np.linalg.norm(model.coef_ - x) / np.linalg.norm(x))
    return total / len(seeds)


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    draws = [100 * seed + k for seed in seeds for k in range(max(1, round(5 * scale)))]
    tuned = {loss: _tuning(loss, draws) for loss in ("lasso", "square-root")}
    # Price of one strength for all noise levels, beside the best strength for each: the largest
    # ratio over the noise levels, with the single strength chosen to make it smallest.
    price = {
        loss: float(np.min(np.max(errors / errors.min(axis=1, keepdims=True), axis=0)))
        for loss, errors in tuned.items()
    }
    faults = {
        loss: _faults(loss, draws[: max(1, len(draws) // 2)]) for loss in ("lasso", "absolute")
    }
    blind = price["lasso"] / price["square-root"]
    robust = faults["lasso"] / faults["absolute"]
    reproduced = blind > 1 and robust > 10
    table = [
        {"loss": loss, "noise": level, "alpha": float(alpha), "error": float(errors[i, j])}
        for loss, errors in tuned.items()
        for i, level in enumerate(_NOISES)
        for j, alpha in enumerate(_STRENGTHS)
    ]
    series = {
        f"{loss}, noise {level:g}": errors[i].tolist()
        for loss, errors in tuned.items()
        for i, level in enumerate(_NOISES)
    }
    figure = lines(
        [float(a) for a in _STRENGTHS], series, title="One strength for all noise levels?",
        x_title="alpha", y_title="relative error", log_y=True,
    )  # fmt: skip
    figure.update_xaxes(type="log")
    summary = (
        f"The best single strength costs a factor {price['square-root']:.2f} over the best "
        f"strength per noise level with the square-root loss, {price['lasso']:.2f} with the lasso "
        f"loss. With {_FAULTS:.0%} gross errors the relative error is {faults['absolute']:.1e} "
        f"with the absolute loss, {faults['lasso']:.1e} with the lasso loss."
    )
    return Outcome(
        reproduced, float(min(np.log10(blind), np.log10(robust / 10))), summary, table, figure
    )


experiment = Experiment(
    method="loss-omp",
    claim=(
        "OMP guided by the square-root LASSO needs no tuning to the noise, and guided by the "
        "LAD-LASSO it tolerates gross errors."
    ),
    baseline="the same OMP guided by the LASSO",
    run=_run,
)
