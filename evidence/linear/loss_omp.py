"""Loss-guided OMP: noise-blind tuning of the square root, tolerance of faults of LAD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import LossOMP

from .._plots import lines

if TYPE_CHECKING:
    from thresher.core.figure import Figure

_ROWS, _COLUMNS, _SUPPORT = 100, 300, 10
_NOISES = (1e-4, 1e-3, 1e-2, 1e-1)
_STRENGTHS = np.geomspace(1e-4, 1.0, 40)
# The rules that are tuned. Under the L0 norm the lasso's strength is in squared units.
_RULES = {
    "lasso": ("lasso", "l1", _STRENGTHS),
    "square-root": ("square-root", "l1", _STRENGTHS),
    "lasso, L0": ("lasso", "l0", _STRENGTHS**2),
    "square-root, L0": ("square-root", "l0", _STRENGTHS),
}
_NEAR = 2.0  # times the error of the best strength is near it
_FAULTS, _ORDER = 0.05, 10.0  # share of gross errors; times the error that failing means


def _sensing(seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((_ROWS, _COLUMNS))
    A /= np.linalg.norm(A, axis=0)
    x = np.zeros(_COLUMNS)
    x[rng.choice(_COLUMNS, _SUPPORT, replace=False)] = rng.standard_normal(_SUPPORT)
    return A, x, rng


def _tuning(rule: str, seeds: Sequence[int]) -> np.ndarray:
    """Return mean errors, noise levels by strengths."""
    loss, norm, strengths = _RULES[rule]
    errors = np.zeros((len(_NOISES), len(strengths)))
    for seed in seeds:
        A, x, rng = _sensing(seed)
        noise = rng.standard_normal(_ROWS)
        for i, level in enumerate(_NOISES):
            y = A @ x + level * noise
            for j, alpha in enumerate(strengths):
                # Twice the true support may be chosen: the penalty has to say when to stop.
                model = LossOMP(
                    2 * _SUPPORT, loss=loss, alpha=alpha, norm=norm, fit_intercept=False
                ).fit(A, y)
                errors[i, j] += np.linalg.norm(model.coef_ - x) / np.linalg.norm(x) / len(seeds)
    return errors


def _price(errors: np.ndarray) -> float:
    """Return what one strength for all noise levels costs beside the best for each.

    The largest ratio of errors over the levels, with the strength that makes it smallest.
    """
    return float(np.min(np.max(errors / errors.min(axis=1, keepdims=True), axis=0)))


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


def _figure(tuned: dict[str, np.ndarray]) -> Figure:
    series = {
        f"{rule}, noise {level:g}": tuned[rule][i].tolist()
        for rule in ("lasso", "square-root")
        for i, level in enumerate(_NOISES)
    }
    return lines(
        _STRENGTHS.tolist(), series, title="One strength for all noise levels?",
        x_title="alpha", y_title="relative error", log_x=True, log_y=True,
    )  # fmt: skip


def _table(tuned: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {
            "rule": rule,
            "noise": level,
            "best_alpha": float(_RULES[rule][2][np.argmin(errors[i])]),
            "best_error": float(errors[i].min()),
            "price_of_one_alpha": _price(errors),
        }
        for rule, errors in tuned.items()
        for i, level in enumerate(_NOISES)
    ]


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    draws = [100 * seed + k for seed in seeds for k in range(max(1, round(5 * scale)))]
    tuned = {rule: _tuning(rule, draws) for rule in _RULES}
    price = {rule: _price(errors) for rule, errors in tuned.items()}
    some = draws[: max(1, len(draws) // 2)]
    faults = {loss: _faults(loss, some) for loss in ("lasso", "absolute")}
    slacks = {
        f"decades by which one strength costs the square root less than a factor {_NEAR:g}": (
            np.log10(_NEAR / price["square-root"])
        ),
        "decades by which one strength costs the lasso more than the square root": np.log10(
            price["lasso"] / price["square-root"]
        ),
        f"decades beyond {_ORDER:g} by which gross errors disturb plain OMP more than LAD": (
            np.log10(faults["lasso"] / faults["absolute"] / _ORDER)
        ),
    }
    summary = (
        f"Over noise levels {_NOISES[0]:g} to {_NOISES[-1]:g} the best single strength costs at "
        f"most a factor {price['square-root']:.2f} over the best one per level with the "
        f"square-root loss, {price['lasso']:.2f} with the lasso loss; with the L0 norm, reported "
        f"beyond the rule, {price['square-root, L0']:.2f} and {price['lasso, L0']:.2f}. With "
        f"{_FAULTS:.0%} gross errors the relative error is {faults['absolute']:.1e} with the "
        f"absolute loss, {faults['lasso']:.1e} with plain OMP. Margin in decades, the least of "
        f"three: the square root near its best (factor {_NEAR:g}), the lasso dearer, and plain "
        f"OMP disturbed {_ORDER:g} times as much as the absolute loss."
    )
    return Outcome.judged(slacks, summary, _table(tuned), _figure(tuned))


experiment = Experiment(
    method="loss-omp",
    claim=(
        "OMP guided by the square-root LASSO needs no tuning to the noise, and guided by the "
        "LAD-LASSO it tolerates gross errors."
    ),
    baseline="the same OMP guided by the LASSO",
    run=_run,
)
