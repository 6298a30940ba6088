"""Representers: exactness, and what removing the samples they name does to a prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import Lasso, Representers

from .._plots import lines

_REMOVED = (1, 2, 5, 10, 20)


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    queries = max(2, round(10 * scale))
    changes: dict[str, np.ndarray] = {
        name: np.zeros(len(_REMOVED)) for name in ("representers", "L2 representers", "random")
    }
    worst, table = 0.0, []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((150, 400))
        truth = np.zeros(400)
        truth[:8] = rng.choice([-1.0, 1.0], 8)
        y = X @ truth + 0.5 * rng.standard_normal(150)
        model = Lasso(0.15, tol=1e-12).fit(X, y)
        new = rng.standard_normal((queries, 400))
        shares = Representers(model, X, y).explain(new)
        linear = new @ model.coef_
        worst = max(
            worst, float(np.max(np.abs(shares.sum(axis=1) - linear) / np.abs(linear).max()))
        )
        # The dense rival: in ridge regression residuals over the strength play the same part.
        ridge = Ridge(alpha=150.0).fit(X, y)
        dense = (new @ X.T) * (y - ridge.predict(X)) / 150.0
        for q in range(queries):
            orders = {
                "representers": np.argsort(-shares[q]),
                "L2 representers": np.argsort(-dense[q]),
                "random": rng.permutation(150),
            }
            for name, order in orders.items():
                for i, count in enumerate(_REMOVED):
                    kept = np.setdiff1d(np.arange(150), order[:count])
                    refit = Lasso(0.15, tol=1e-8).fit(X[kept], y[kept])
                    fall = model.predict(new[q : q + 1]) - refit.predict(new[q : q + 1])
                    changes[name][i] += float(fall[0]) / (queries * len(seeds))
    for name, falls in changes.items():
        table += [
            {"chosen by": name, "removed": count, "fall": float(fall)}
            for count, fall in zip(_REMOVED, falls, strict=True)
        ]
    mean = {name: float(falls.mean()) for name, falls in changes.items()}
    margin = mean["representers"] - max(mean["L2 representers"], mean["random"])
    summary = (
        f"Shares sum to the prediction within {worst:.1e} of its scale. Removing the samples with "
        f"the largest shares and refitting lowers the prediction by {mean['representers']:.3f} on "
        f"average, the L2 representers' choice by {mean['L2 representers']:.3f}, a random one by "
        f"{mean['random']:.3f}. The margin is the difference to the better rival."
    )
    figure = lines(
        list(_REMOVED), {name: falls.tolist() for name, falls in changes.items()},
        title="Fall of a prediction after removing samples that support it",
        x_title="samples removed", y_title="fall",
    )  # fmt: skip
    return Outcome(bool(margin > 0 and worst < 1e-6), margin, summary, table, figure)


experiment = Experiment(
    method="representers",
    claim="representers decompose a sparse model's prediction and name the samples behind it.",
    baseline="the representers of ridge regression, and random samples",
    run=_run,
)
