"""Removing the training samples that representers name, and refitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import Representers, SparseLogistic

from .._models import paired_margin
from .._plots import lines

_NAMES = ("representers", "ridge representers", "influence", "random")
_TRAIN, _NOISE = 150, 100
_SHARES = (0.05, 0.1, 0.2)
_ALPHA = 0.02


def _data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training features, labels and test features; noise makes p exceed n."""
    rng = np.random.default_rng(seed)
    X, y = load_breast_cancer(return_X_y=True)
    X = np.hstack([StandardScaler().fit_transform(X), rng.standard_normal((len(X), _NOISE))])
    order = rng.permutation(len(X))
    return X[order[:_TRAIN]], y[order[:_TRAIN]], X[order[_TRAIN:]]


def _ridge(X: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the shares of samples in ridge logistic regression: residual times product."""
    model = LogisticRegression(C=1.0).fit(X, y)
    return (points @ X.T) * (y - model.predict_proba(X)[:, 1])


def _influence(
    model: SparseLogistic, X: np.ndarray, y: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Return by how much removal lowers a prediction, to first order on the support."""
    support = np.flatnonzero(model.coef_[0])
    probability = model.predict_proba(X)[:, 1]
    used = X[:, support]
    hessian = used.T @ (used * (probability * (1 - probability))[:, None])
    hessian += 1e-6 * np.eye(len(support))
    pulls = used * (y - probability)[:, None]
    return points[:, support] @ np.linalg.solve(hessian, pulls.T)


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    count = max(3, round(12 * scale))
    drops = np.zeros((len(_NAMES), len(_SHARES), len(seeds)))
    gap = 0.0
    for s, seed in enumerate(seeds):
        X, y, test = _data(seed)
        explained = Representers(SparseLogistic(_ALPHA, tol=1e-10)).fit(X, y)
        before = explained.model_.decision_function(test)
        shares = explained.explain(test)
        total = shares.sum(axis=1) + explained.model_.intercept_
        gap = max(gap, float(np.max(np.abs(total - before))))
        rng = np.random.default_rng(seed)
        scores = (
            shares, _ridge(X, y, test), _influence(explained.model_, X, y, test),
            rng.standard_normal(shares.shape),
        )  # fmt: skip
        for point in rng.choice(len(test), count, replace=False):
            sign = np.sign(before[point])
            for i, score in enumerate(scores):
                order = np.argsort(-sign * score[point])
                for j, share in enumerate(_SHARES):
                    kept = np.sort(order[round(share * len(X)) :])
                    model = SparseLogistic(_ALPHA).fit(X[kept], y[kept])
                    after = model.decision_function(test[[point]])[0]
                    drops[i, j, s] += sign * (before[point] - after) / count
    return _verdict(drops, gap)


def _verdict(drops: np.ndarray, gap: float) -> Outcome:
    means = drops.mean(2)
    margin = paired_margin(drops[0].mean(0) - drops[[1, 3]].mean(1).max(0))
    table: list[dict[str, Any]] = [
        {"order": name, "removed": share, "drop_in_log_odds": means[i, j]}
        for i, name in enumerate(_NAMES)
        for j, share in enumerate(_SHARES)
    ]
    summary = (
        f"The shares add up to the log odds within {gap:.1e}. Mean drop of a prediction's log odds "
        f"after removing {', '.join(f'{s:.0%}' for s in _SHARES)} of the samples and refitting: "
        + "; ".join(
            f"{name} " + ", ".join(f"{d:.2f}" for d in means[i]) for i, name in enumerate(_NAMES)
        )
        + ". The margin is the advantage over ridge representers and random choice, less one "
        "standard error; influence functions, which need a Hessian, are shown beside it."
    )
    figure = lines(
        [f"{s:.0%}" for s in _SHARES], {n: means[i].tolist() for i, n in enumerate(_NAMES)},
        title="Effect of removing supporting samples", x_title="removed",
        y_title="drop in log odds",
    )  # fmt: skip
    return Outcome(margin > 0 and gap < 1e-3, margin, summary, table, figure)


experiment = Experiment(
    method="representers",
    claim="High-dimensional representers decompose predictions exactly, and removing the samples "
    "they name changes predictions more than other choices do.",
    baseline="representers of ridge logistic regression and random choice; influence functions "
    "for comparison",
    run=_run,
)
