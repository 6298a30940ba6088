"""SLIM against an L1 logistic regression rounded to whole points, on binary questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from plotly.graph_objects import Figure, Scatter
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import ScoringSystem, SparseLogistic

_FEATURES = ("mean radius", "mean texture", "mean smoothness", "mean concavity", "mean symmetry",
             "worst area", "worst concave points", "worst texture")  # fmt: skip
_POINTS = 5


def _data() -> tuple[np.ndarray, np.ndarray]:
    """Return yes-or-no questions (is a measurement above its median?) and the diagnosis."""
    data = load_breast_cancer()
    columns = [list(data.feature_names).index(name) for name in _FEATURES]
    X = data.data[:, columns]
    return (np.median(X, axis=0) < X).astype(float), 1 - data.target


def _rounded(X: np.ndarray, y: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """Return points by rounding: select by the L1 norm, refit almost unpenalised, scale, round."""
    used = np.flatnonzero(SparseLogistic(alpha).fit(X, y).coef_[0])
    points = np.zeros(X.shape[1])
    if len(used) == 0:
        return points, float(np.sign(np.mean(y) - 0.5))
    # Without the refit the shrunk coefficients would not even move the prediction.
    model = SparseLogistic(1e-3).fit(X[:, used], y)
    factor = _POINTS / max(np.abs(model.coef_).max(), 1e-12)
    points[used] = np.round(model.coef_[0] * factor)
    return points, float(np.round(model.intercept_[0] * factor))


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    X, y = _data()
    samples = max(60, min(250, round(200 * scale)))
    table = []
    for seed in seeds:
        train, test = train_test_split(
            np.arange(len(y)), train_size=samples, stratify=y, random_state=seed
        )
        slim = ScoringSystem(
            0.01, max_points=_POINTS, max_offset=30, time_limit=max(1.0, 20 * min(scale, 2.0))
        ).fit(X[train], y[train])
        size = int(np.count_nonzero(slim.points_))
        row = {"seed": seed, "method": "SLIM", "features": size, "gap": slim.gap_}
        row |= {
            "train": 1 - slim.score(X[train], y[train]),
            "test": 1 - slim.score(X[test], y[test]),
        }
        table.append(row)
        best: dict = {}
        for alpha in np.geomspace(0.3, 0.001, 30):  # the best rounded model of no larger size
            points, offset = _rounded(X[train], y[train], alpha)
            wrong = [np.mean((X[part] @ points + offset > 0) != y[part]) for part in (train, test)]
            if np.count_nonzero(points) <= size and wrong[0] < best.get("train", np.inf):
                kept = int(np.count_nonzero(points))
                best = {"seed": seed, "method": "rounded L1", "features": kept, "gap": 0.0}
                best |= {"train": float(wrong[0]), "test": float(wrong[1])}
        table.append(best)
    errors = {
        name: [row["test"] for row in table if row["method"] == name]
        for name in ("SLIM", "rounded L1")
    }
    margin = float(np.mean(errors["rounded L1"]) - np.mean(errors["SLIM"]))
    summary = (
        f"Test error {np.mean(errors['SLIM']):.3f} for SLIM, {np.mean(errors['rounded L1']):.3f} "
        f"for rounded L1 logistic regression of no larger size, from {samples} samples. The rule "
        "asked for an error no more than half a point above the rounded model; the margin is "
        "the difference plus that half point."
    )
    figure = Figure()
    for name in errors:
        rows = [row for row in table if row["method"] == name]
        figure.add_trace(
            Scatter(
                x=[row["features"] for row in rows],
                y=[row["test"] for row in rows],
                name=name,
                mode="markers",
            )
        )
    figure.update_layout(
        title="Error against features used", xaxis_title="features", yaxis_title="test error",
        template="plotly_white",
    )  # fmt: skip
    return Outcome(margin + 0.005 >= 0, margin + 0.005, summary, table, figure)


experiment = Experiment(
    method="scoring-system",
    claim="scoring systems of a few small whole points are accurate without tuning.",
    baseline="L1 logistic regression rounded to whole points, of no larger size",
    run=_run,
)
