"""Zero imputation as the number of features passes the root of the number of samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, RidgeCV

from thresher.core.evidence import Earlier, Experiment
from thresher.linear import ZeroImputedRegression
from thresher.linear.regimes.zero_imputation import imputation_bias

from .._statistics import least_ratio, lower
from .._study import Draw, Found, Judged, Slacks, Study, means

_SAMPLES, _TEST, _RANK, _OBSERVED, _NOISE = 400, 2000, 5, 0.7, 0.3
_FEATURES = (10, 20, 80, 320, 960)  # the root of the number of samples is 20
_BENIGN = 320  # features from which on there are far more than that root
_OURS, _RIVAL, _COMPLETE = "averaged SGD", "least squares", "averaged SGD, complete rows"
_NEAR = 2.0  # times the risk of tuned ridge, and of complete rows


@dataclass(frozen=True)
class _Problem:
    """Complete rows, which of their entries are seen, noisy targets and clean ones; the bias."""

    full: np.ndarray
    seen: np.ndarray
    y: np.ndarray
    clean: np.ndarray
    bias: float


def _draw(features: int, drawn: Draw) -> _Problem:
    rng = drawn.rng
    loadings = rng.standard_normal((_RANK, features))
    # The target is a fixed direction of the latent variables, of unit variance at any size.
    coef = np.linalg.pinv(loadings) @ (np.ones(_RANK) / np.sqrt(_RANK))
    full = rng.standard_normal((_SAMPLES + _TEST, _RANK)) @ loadings
    clean = full @ coef
    y = clean + _NOISE * rng.standard_normal(len(clean))
    bias = imputation_bias(loadings.T @ loadings, coef, _OBSERVED)
    return _Problem(full, rng.random(full.shape) < _OBSERVED, y, clean, bias)


def _risk(make: Callable[[], Any], complete: bool = False) -> Callable[[_Problem], float]:
    def run(p: _Problem) -> float:
        rows = p.full if complete else np.where(p.seen, p.full, 0.0)
        model = make().fit(rows[:_SAMPLES], p.y[:_SAMPLES])
        return float(np.mean((model.predict(rows[_SAMPLES:]) - p.clean[_SAMPLES:]) ** 2))

    return run


def _rule(found: Found) -> Slacks:
    sizes, bias = [size for (size,) in found.study.keys], found.of("bias", _OURS)
    slacks = {
        f"bias falls from {less} to {more} features, ratio less one": float(ratio - 1)
        for less, more, ratio in zip(
            sizes, sizes[1:], least_ratio(bias[:-1] / bias[1:]), strict=False
        )
    }
    for size in (size for size in sizes if size >= _BENIGN):
        at = found.where(features=size)
        slacks[f"{size}: risk below that of {_RIVAL}"] = float(
            lower(at.lead("risk", _OURS, _RIVAL))[0]
        )
        for other in ("tuned ridge", _COMPLETE):
            ratio = least_ratio(_NEAR * at.times("risk", _OURS, other))
            slacks[f"{size}: risk below {_NEAR:g} times that of {other}"] = float(ratio[0] - 1)
    return slacks


experiment = Experiment(
    method=ZeroImputedRegression.card.name,
    claim="The bias of zero imputation is controlled by a ridge bias that vanishes in high "
    "dimension, and one pass of averaged SGD on imputed rows predicts well, imputation being "
    "benign where features are far more than the root of the samples.",
    baseline="least squares and tuned ridge on the same rows, and the same pass on complete rows",
    run=Judged(
        study=Study(
            over=("features",),
            settings={size: size for size in _FEATURES},
            draw=_draw,
            methods={
                _OURS: _risk(lambda: ZeroImputedRegression(fit_intercept=False)),
                "step 1/sqrt(n)": _risk(
                    lambda: ZeroImputedRegression(1 / np.sqrt(_SAMPLES), fit_intercept=False)
                ),
                "tuned ridge": _risk(
                    lambda: RidgeCV(np.geomspace(1e-2, 1e4, 13), fit_intercept=False)
                ),
                _RIVAL: _risk(lambda: LinearRegression(fit_intercept=False)),
                _COMPLETE: _risk(lambda: ZeroImputedRegression(fit_intercept=False), True),
            },
            measures={"risk": lambda risk, _: risk, "bias": lambda _, p: p.bias},
            draws=4,
        ),
        rule=_rule,
        view=means("risk", "Excess risk, of a signal of variance 1", "risk", False),
        against={_OURS: (_RIVAL,)},
        note=f"{_SAMPLES} samples of rank {_RANK}, {_OBSERVED:.0%} of the entries observed. The "
        "bias is exact, from the covariance. Far more than the root of the samples is read as 16 "
        f"times it, benign as a risk below {_NEAR:g} times that of the pass on complete rows.",
        reason="The paper holds the bias against a rate of one over the root of the samples, 0.05 "
        "here, far above what complete rows of so low a rank leave.",
    ),
    earlier=(
        Earlier(
            rule="bias falls at least as fast as one over the features; risk within 2 of ridge",
            reproduced=True,
            margin=0.679853,
            why="by its own wording false: 0.00222 is above 0.00214; a factor of 1.5 was hidden",
        ),
        Earlier(
            rule="the same, with the factor of 1.5 named",
            reproduced=True,
            margin=0.309376,
            why="the factor was not fixed beforehand, and where imputation is benign not tested",
        ),
    ),
)
