"""Error of locally private regression against people and features, for both protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.linear import Lasso, LocallyPrivateRegression

from .._plots import lines

_EPSILON, _NONZEROS, _PUBLIC = 8.0, 3, 5_000
_PEOPLE = (40_000, 160_000, 640_000)
_FEATURES = (10, 20, 40)
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Any]


def _private(protocol: str, public: bool) -> Fit:
    def fit(X: np.ndarray, y: np.ndarray, unlabelled: np.ndarray, seed: int) -> Any:
        model = LocallyPrivateRegression(
            _EPSILON, protocol=protocol, threshold=0.0, k=_NONZEROS, random_state=seed
        )
        return model.fit(X, y, unlabelled if public else None)

    return fit


_METHODS: dict[str, Fit] = {
    "non-interactive": _private("non-interactive", public=False),
    "with public rows": _private("non-interactive", public=True),
    "interactive": _private("interactive", public=False),
    "Lasso, not private": lambda X, y, unlabelled, seed: Lasso(0.01).fit(X, y),
}


def _errors(people: int, features: int, seed: int) -> list[float]:
    rng = np.random.default_rng((seed, people, features))
    X = rng.standard_normal((people, features))
    truth = np.zeros(features)
    truth[:_NONZEROS] = rng.choice([-1, 1], _NONZEROS) / np.sqrt(_NONZEROS)
    y = X @ truth + 0.2 * rng.standard_normal(people)
    unlabelled = rng.standard_normal((_PUBLIC, features))
    found = [fit(X, y, unlabelled, seed).coef_ for fit in _METHODS.values()]
    return [float(np.linalg.norm(coef - truth)) for coef in found]


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    sizes = [round(n * min(1, scale)) for n in _PEOPLE]
    repeats = max(1, round(2 * scale))
    drawn = [1000 * seed + repeat for seed in seeds for repeat in range(repeats)]
    by_people = np.array(
        [np.mean([_errors(n, _FEATURES[0], s) for s in drawn], axis=0) for n in sizes]
    )
    by_features = np.array(
        [np.mean([_errors(sizes[-1], d, s) for s in drawn], axis=0) for d in _FEATURES]
    )
    return _verdict(sizes, by_people, by_features)


def _verdict(sizes: Sequence[int], by_people: np.ndarray, by_features: np.ndarray) -> Outcome:
    names = list(_METHODS)
    table: list[dict[str, Any]] = [
        {"method": m, "people": n, "features": _FEATURES[0], "l2_error": by_people[i, j]}
        for j, m in enumerate(names)
        for i, n in enumerate(sizes)
    ] + [
        {"method": m, "people": sizes[-1], "features": d, "l2_error": by_features[i, j]}
        for j, m in enumerate(names)
        for i, d in enumerate(_FEATURES)
        if i > 0
    ]
    slopes = [_slope(sizes, by_people[:, j]) for j in range(3)]
    growth = [_slope(_FEATURES, by_features[:, j]) for j in range(3)]
    gain = float(np.min(1 - by_features[:, 1:3].max(axis=1) / by_features[:, 0]))
    summary = (
        f"Exponents of the l2 error (the truth has norm 1) in the number of people, theory -0.5, "
        f"from {sizes[0]} to {sizes[-1]} at epsilon {_EPSILON:g}: "
        + ", ".join(f"{m} {s:.2f}" for m, s in zip(names, slopes, strict=False))
        + f"; in the number of features from {_FEATURES[0]} to {_FEATURES[-1]}, theory at most "
        "1, 0.5 and 0.5: "
        + ", ".join(f"{m} {g:.2f}" for m, g in zip(names, growth, strict=False))
        + ". Required: public rows and interaction both lower the error everywhere, and all "
        "exponents in people at most -0.35. The margin is the smaller relative gain of the two, "
        "at the worst number of features. The non-interactive estimates are not thresholded here, "
        "so that rates are not those of truncation; the Lasso without privacy reaches "
        f"{by_people[-1, 3]:.3f}."
    )
    figure = lines(
        list(_FEATURES), {m: by_features[:, j].tolist() for j, m in enumerate(names)},
        title=f"{sizes[-1]} people, epsilon {_EPSILON:g}", x_title="features",
        y_title="l2 error", log_y=True,
    )  # fmt: skip
    return Outcome(gain > 0 and max(slopes) <= -0.35, gain, summary, table, figure)


def _slope(x: Sequence[int], error: np.ndarray) -> float:
    return float(np.polyfit(np.log(x), np.log(error), 1)[0])


experiment = Experiment(
    method="locally-private-regression",
    claim="The error falls as one over the root of the number of people; public unlabelled rows "
    "and interaction lower it, by more the more features there are.",
    baseline="the non-interactive protocol without public rows; the Lasso without privacy",
    run=_run,
)
