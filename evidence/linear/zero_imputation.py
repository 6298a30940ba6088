"""Zero imputation as the number of features passes the root of the number of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, RidgeCV

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import ZeroImputedRegression
from thresher.linear.regimes.zero_imputation import imputation_bias

from .._plots import lines

_SAMPLES, _TEST, _RANK, _OBSERVED, _NOISE = 400, 2000, 5, 0.7, 0.3
_FEATURES = (10, 20, 80, 320, 960)  # the root of the number of samples is 20
_TOLERANCE = 1.5  # on the fall of the bias, drawn with few loadings; fixed beforehand
_NAMES = ("averaged SGD", "averaged SGD, step 1/sqrt(n)", "tuned ridge", "least squares")


def _models() -> list[Any]:
    return [
        ZeroImputedRegression(fit_intercept=False),
        ZeroImputedRegression(1 / np.sqrt(_SAMPLES), fit_intercept=False),
        RidgeCV(np.geomspace(1e-2, 1e4, 13), fit_intercept=False),
        LinearRegression(fit_intercept=False),
    ]


def _trial(features: int, seed: int) -> tuple[float, list[float]]:
    """Return the exact bias of imputation, and the excess risk of every model."""
    rng = np.random.default_rng((seed, features))
    loadings = rng.standard_normal((_RANK, features))
    covariance = loadings.T @ loadings
    # The target is a fixed direction of the latent variables, of unit variance at any d.
    signal = np.ones(_RANK) / np.sqrt(_RANK)
    coef = np.linalg.pinv(loadings) @ signal
    latent = rng.standard_normal((_SAMPLES + _TEST, _RANK))
    full = latent @ loadings
    clean = full @ coef
    holes = rng.random(full.shape) >= _OBSERVED
    y = clean + _NOISE * rng.standard_normal(len(clean))
    zeros = np.where(holes, 0.0, full)
    risks = []
    for model in _models():
        guess = model.fit(zeros[:_SAMPLES], y[:_SAMPLES]).predict(zeros[_SAMPLES:])
        risks.append(float(np.mean((guess - clean[_SAMPLES:]) ** 2)))
    return imputation_bias(covariance, coef, _OBSERVED), risks


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    sizes = _FEATURES if scale >= 0.5 else _FEATURES[:4]
    repeats = max(1, round(3 * scale))
    bias = np.zeros(len(sizes))
    risks = np.zeros((len(_NAMES), len(sizes)))
    for i, features in enumerate(sizes):
        found = [_trial(features, 100 * s + r) for s in seeds for r in range(repeats)]
        bias[i] = np.mean([b for b, _ in found])
        risks[:, i] = np.mean([r for _, r in found], axis=0)
    return _verdict(sizes, bias, risks)


def _verdict(sizes: Sequence[int], bias: np.ndarray, risks: np.ndarray) -> Outcome:
    table: list[dict[str, Any]] = [
        {"features": d, "imputation_bias": bias[i]}
        | {name: risks[k, i] for k, name in enumerate(_NAMES)}
        for i, d in enumerate(sizes)
    ]
    even = float(bias[1] * sizes[1] / sizes[-1])
    ratio = float(risks[0, -1] / risks[2, -1])
    summary = (
        f"With {_OBSERVED:.0%} of the entries observed and rank {_RANK}, the bias of imputation "
        f"falls from {bias[1]:.3f} at {sizes[1]} features, the root of the number of samples, to "
        f"{bias[-1]:.5f} at {sizes[-1]}. Excess risk there (the signal has variance 1): "
        + ", ".join(f"{name} {risks[k, -1]:.4f}" for k, name in enumerate(_NAMES))
        + f". Required: the bias falls to at most {_TOLERANCE} times what one over the features "
        f"gives ({even:.5f}), and one pass of averaged SGD with its default step comes within a "
        "factor 2 of tuned ridge; the margin is the lesser of one less the share of the first "
        "limit and 2 less the second factor."
    )
    figure = lines(
        list(sizes),
        {"bias of imputation": bias.tolist()}
        | {name: risks[k].tolist() for k, name in enumerate(_NAMES)},
        title="Excess risk on zero-imputed rows", x_title="features", y_title="excess risk",
        log_y=True,
    )  # fmt: skip
    slacks = {
        f"bias at most {_TOLERANCE} times that of one over the features: one less its share": 1
        - float(bias[-1]) / (_TOLERANCE * even),
        "averaged SGD against tuned ridge: 2 less the ratio of risks": 2 - ratio,
    }
    return Outcome.judged(slacks, summary, table, figure)


experiment = Experiment(
    method="zero-imputation",
    claim="The bias of zero imputation vanishes in high dimension, and one pass of averaged SGD "
    "on imputed rows predicts well without a penalty to tune.",
    baseline="ridge regression tuned by cross-validation, and least squares, on the same rows",
    run=_run,
)
