"""ISTA and IHT as trained networks: towards the truth or towards the objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from thresher.core import prox
from thresher.core.evidence import Experiment, Outcome
from thresher.linear.recovery.unrolled import UnfoldedThresholding

from .._plots import lines

_ROWS, _COLUMNS, _DENSITY, _NOISE, _ALPHA, _LAYERS = 75, 150, 0.08, 0.05, 0.1, 10
_CONVERGED = 3000
_TRAINED = ("supervised", "unsupervised")


def _draw(rng: np.random.Generator, A: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sparse vectors with Gaussian entries, and their noisy measurements."""
    shape = (count, A.shape[1])
    X = rng.standard_normal(shape) * (rng.random(shape) < _DENSITY)
    return X, X @ A.T + _NOISE * rng.standard_normal((count, len(A)))


def _plain(A: np.ndarray, B: np.ndarray, penalty: str) -> list[np.ndarray]:
    """Return iterates of ISTA or IHT: one a layer, and the one it converges to."""
    step, x, iterates = 1 / np.linalg.norm(A, 2) ** 2, np.zeros((len(B), A.shape[1])), []
    for count in range(_CONVERGED):
        moved = x + step * (B - x @ A.T) @ A
        if penalty == "l1":
            x = prox.soft(moved, _ALPHA * step)
        else:
            x = prox.hard(moved, np.sqrt(2 * _ALPHA * step))
        if count < _LAYERS or count == _CONVERGED - 1:
            iterates.append(x)
    return iterates


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    updates, tests = max(5, round(100 * scale)), max(50, round(300 * scale))
    # Penalty, method, seed, layer; the last layer of the plain iteration is the converged one.
    shape = (2, 3, len(seeds), _LAYERS + 1)
    errors, objectives = np.full(shape, np.nan), np.full(shape, np.nan)
    for s, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        A = rng.standard_normal((_ROWS, _COLUMNS)) / np.sqrt(_ROWS)
        X, B = _draw(rng, A, 5000)
        test, measured = _draw(rng, A, tests)
        for p, penalty in enumerate(("l1", "l0")):
            outputs = [_plain(A, measured, penalty)]
            for loss in _TRAINED:
                network = UnfoldedThresholding(
                    _LAYERS, penalty=penalty, loss=loss, alpha=_ALPHA, updates=updates,
                    random_state=seed,
                ).fit(A, B, X)  # fmt: skip
                outputs.append(network.layers(measured))
            for m, layers in enumerate(outputs):
                for k, found in enumerate(layers):
                    errors[p, m, s, k] = np.sum((found - test) ** 2) / np.sum(test**2)
                    objectives[p, m, s, k] = network.objective(measured, found).mean()
    return _verdict(errors.mean(axis=2), objectives.mean(axis=2))


def _verdict(errors: np.ndarray, objectives: np.ndarray) -> Outcome:
    last, converged = _LAYERS - 1, _LAYERS
    names = [("ISTA", "IHT"), *((f"{loss}-ISTA", f"{loss}-IHT") for loss in _TRAINED)]
    table: list[dict[str, Any]] = [
        {"method": names[m][p], "layer": "converged" if k == converged else str(k + 1),
         "error": errors[p, m, k], "objective": objectives[p, m, k]}
        for p in (0, 1)
        for m in (0, 1, 2)
        for k in ([last, converged] if m == 0 else [last])
    ]  # fmt: skip
    above = objectives[0, :, last] - objectives[0, 0, converged]
    decades = {
        "supervised-ISTA recovers better": np.log10(errors[0, 2, last] / errors[0, 1, last]),
        "unsupervised-ISTA is nearer to the minimum than ISTA, by a factor 2": np.log10(
            above[0] / max(above[2], 1e-12) / 2
        ),
        "supervised-ISTA is further from it than unsupervised-ISTA": np.log10(
            max(above[1], 1e-12) / max(above[2], 1e-12)
        ),
        "both trained IHT end in lower objectives than converged IHT": np.log10(
            objectives[1, 0, converged] / objectives[1, 1:, last].max()
        ),
        "their errors are within a factor 2": np.log10(2)
        - abs(np.log10(errors[1, 1, last] / errors[1, 2, last])),
    }
    summary = (
        f"Relative error and objective after {_LAYERS} layers: "
        + "; ".join(
            f"{names[m][p]} {errors[p, m, last]:.4f}, {objectives[p, m, last]:.4f}"
            + (
                f" (converged {errors[p, 0, converged]:.4f}, {objectives[p, 0, converged]:.4f})"
                if m == 0
                else ""
            )
            for p in (0, 1)
            for m in (0, 1, 2)
        )
        + ". Required, with the margin of each in decades: "
        + "; ".join(f"{what} ({value:+.2f})" for what, value in decades.items())
        + ". The margin is the least of them."
    )
    series = {names[m][p]: errors[p, m, :_LAYERS].tolist() for p in (0, 1) for m in (0, 1, 2)}
    figure = lines(
        list(range(1, _LAYERS + 1)), series, title="Recovery by layer", x_title="layer",
        y_title="relative squared error", log_y=True,
    )  # fmt: skip
    return Outcome.judged(decades, summary, table, figure)


experiment = Experiment(
    method="unfolded-thresholding",
    claim="For L1 supervised training recovers better but does not minimise the objective, and "
    "unsupervised training reaches ISTA's solution sooner; for L0 both reach better minima than "
    "IHT and perform alike.",
    baseline="ISTA and IHT with a constant step, at as many steps and converged",
    run=_run,
)
