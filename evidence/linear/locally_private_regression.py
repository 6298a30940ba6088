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
_NOISE = 0.2
# The powers of the paper's bounds; ours are fitted to three sizes and may exceed them by as much.
_BY_PEOPLE, _BY_FEATURES, _ALLOWED = -0.5, (1.0, 0.5, 0.5), 0.15
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Any]


def _private(protocol: str, public: bool) -> Fit:
    def fit(X: np.ndarray, y: np.ndarray, unlabelled: np.ndarray, seed: int) -> Any:
        model = LocallyPrivateRegression(
            _EPSILON, protocol=protocol, k=_NONZEROS, random_state=seed
        )
        return model.fit(X, y, unlabelled if public else None)

    return fit


_METHODS: dict[str, Fit] = {
    "non-interactive": _private("non-interactive", public=False),
    "with public rows": _private("non-interactive", public=True),
    "interactive": _private("interactive", public=False),
    "Lasso, not private": lambda X, y, unlabelled, seed: Lasso(
        _NOISE * np.sqrt(2 * np.log(X.shape[1]) / len(X))
    ).fit(X, y),
}


def _errors(people: int, features: int, seed: int) -> list[float]:
    rng = np.random.default_rng((seed, people, features))
    X = rng.standard_normal((people, features))
    truth = np.zeros(features)
    truth[:_NONZEROS] = rng.choice([-1, 1], _NONZEROS) / np.sqrt(_NONZEROS)
    y = X @ truth + _NOISE * rng.standard_normal(people)
    unlabelled = rng.standard_normal((_PUBLIC, features))
    found = [fit(X, y, unlabelled, seed).coef_ for fit in _METHODS.values()]
    return [float(np.linalg.norm(coef - truth)) for coef in found]


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    sizes = [round(n * min(1, scale)) for n in _PEOPLE]
    repeats = max(1, round(4 * scale))
    drawn = [1000 * seed + repeat for seed in seeds for repeat in range(repeats)]
    errors = [
        [np.mean([_errors(n, d, s) for s in drawn], axis=0) for d in _FEATURES] for n in sizes
    ]
    return _verdict(sizes, np.array(errors))


def _verdict(sizes: Sequence[int], errors: np.ndarray) -> Outcome:
    """Judge errors by people, features and method."""
    by_people, by_features = errors[:, 0], errors[-1]
    names = list(_METHODS)
    table: list[dict[str, Any]] = [
        {"method": m, "people": n, "features": d, "l2_error": errors[i, k, j]}
        for j, m in enumerate(names)
        for i, n in enumerate(sizes)
        for k, d in enumerate(_FEATURES)
    ]
    figure = lines(
        list(_FEATURES), {m: by_features[:, j].tolist() for j, m in enumerate(names)},
        title=f"{sizes[-1]} people, epsilon {_EPSILON:g}", x_title="features",
        y_title="l2 error", log_y=True,
    )  # fmt: skip
    summary = _summary(sizes, by_people, by_features) + _with_fewer(sizes, errors)
    return Outcome.judged(_slacks(sizes, by_people, by_features), summary, table, figure)


def _with_fewer(sizes: Sequence[int], errors: np.ndarray) -> str:
    """Return sentences on the growth with features where people are fewer."""
    powers = [[_slope(_FEATURES, each[:, j]) for j in range(len(_BY_FEATURES))] for each in errors]
    limits = np.array(_BY_FEATURES) + _ALLOWED
    enough = [str(n) for n, p in zip(sizes, powers, strict=True) if np.all(p <= limits)]
    return (
        " The powers of the features need many people: of these numbers, all three are within "
        f"their limits with {' and '.join(enough) or 'none'}. They are "
        + "; ".join(
            ", ".join(f"{power:.2f}" for power in p) + f" with {n}"
            for n, p in zip(sizes, powers, strict=True)
        )
        + "."
    )


def _summary(sizes: Sequence[int], by_people: np.ndarray, by_features: np.ndarray) -> str:
    names = list(_METHODS)
    return (
        f"Powers of the l2 error (the truth has norm 1) in the number of people, from {sizes[0]} "
        f"to {sizes[-1]} at epsilon {_EPSILON:g} and {_FEATURES[0]} features (the paper's bounds "
        f"have {_BY_PEOPLE}): "
        + ", ".join(f"{m} {_slope(sizes, by_people[:, j]):.2f}" for j, m in enumerate(names[:3]))
        + f"; in the number of features from {_FEATURES[0]} to {_FEATURES[-1]} with {sizes[-1]} "
        f"people (the bounds have {', '.join(map(str, _BY_FEATURES))}): "
        + ", ".join(
            f"{m} {_slope(_FEATURES, by_features[:, j]):.2f}" for j, m in enumerate(names[:3])
        )
        + f". Required: no power above that of the bound by more than {_ALLOWED}, and public rows "
        "and interaction both lower the error for every number of features. The margin is the "
        "least slack of the powers and of the relative gains. Every method is the class with its "
        f"defaults, told the {_NONZEROS} non-zeros where it keeps so many. The errors with "
        f"{_FEATURES[-1]} features and {sizes[-1]} people: "
        + ", ".join(f"{m} {by_features[-1, j]:.3f}" for j, m in enumerate(names))
        + "."
    )


def _slacks(
    sizes: Sequence[int], by_people: np.ndarray, by_features: np.ndarray
) -> dict[str, float]:
    """Return by how much the powers stay below their limits, and the gains above zero."""
    slacks = {}
    for j, (method, power) in enumerate(zip(_METHODS, _BY_FEATURES, strict=False)):
        limit = _BY_PEOPLE + _ALLOWED
        found = _slope(sizes, by_people[:, j])
        slacks[f"{method}: power of people at most {limit:g}"] = limit - found
        limit = power + _ALLOWED
        found = _slope(_FEATURES, by_features[:, j])
        slacks[f"{method}: power of features at most {limit:g}"] = limit - found
        if j > 0:
            gain = float(np.min(1 - by_features[:, j] / by_features[:, 0]))
            slacks[f"{method}: relative gain over {next(iter(_METHODS))}"] = gain
    return slacks


def _slope(x: Sequence[int], error: np.ndarray) -> float:
    return float(np.polyfit(np.log(x), np.log(error), 1)[0])


experiment = Experiment(
    method="locally-private-regression",
    claim="The error falls as one over the root of the number of people, and grows as the features "
    "without interaction, as their root with public unlabelled rows or with interaction.",
    baseline="the non-interactive protocol without public rows; the Lasso without privacy",
    run=_run,
)
