"""HyperLISTA against trained ALISTA and FISTA, on data as trained on and on shifted data."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from thresher.core import prox
from thresher.core.evidence import Experiment, Outcome
from thresher.linear import HyperLISTA
from thresher.linear.unrolled import UnfoldedThresholding

from .._plots import lines
from ._recovery import decibels

_ROWS, _COLUMNS, _LAYERS, _TEST = 100, 200, 16, 200
# Share of non-zeros and deviation of their entries.
_DATA = {"as trained": (0.1, 1.0), "15 % non-zeros": (0.15, 1.0), "magnitudes x 10": (0.1, 10.0)}
_LOWER = 0.7  # a factor of the threshold, tried where denser vectors are not recovered
_METHODS = ("HyperLISTA", "ALISTA", "FISTA", "ISTA")


def _draw(rng: np.random.Generator, count: int, density: float, deviation: float) -> np.ndarray:
    shape = (count, _COLUMNS)
    return deviation * rng.standard_normal(shape) * (rng.random(shape) < density)


def _iterations(A: np.ndarray, B: np.ndarray, alpha: float, accelerate: bool) -> list[np.ndarray]:
    """Return the iterates of ISTA or FISTA with the step of the Lipschitz constant."""
    step, momentum = 1 / np.linalg.norm(A, 2) ** 2, 1.0
    x = point = np.zeros((len(B), A.shape[1]))
    iterates = []
    for _ in range(_LAYERS):
        following = prox.soft(point + step * (B - point @ A.T) @ A, alpha * step)
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        weight = (momentum - 1) / grown if accelerate else 0.0
        point, x, momentum = following + weight * (following - x), following, grown
        iterates.append(x)
    return iterates


def _plain(A: np.ndarray, B: np.ndarray, X: np.ndarray, accelerate: bool) -> float:
    """Return the strength that is best on the training data."""
    strengths = np.geomspace(1e-3, 1, 10)
    return min(
        strengths, key=lambda a: float(np.sum((_iterations(A, B, a, accelerate)[-1] - X) ** 2))
    )


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    updates = max(5, round(60 * scale))
    errors = np.zeros((len(_METHODS), len(_DATA), len(seeds), _LAYERS))
    denser = np.zeros((3, len(seeds)))
    for s, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        A = rng.standard_normal((_ROWS, _COLUMNS))
        A /= np.linalg.norm(A, axis=0)
        X = _draw(rng, 2000, *_DATA["as trained"])
        B = X @ A.T
        few = X[:64]  # three numbers need few samples
        hyper = HyperLISTA(_LAYERS, max_evaluations=max(10, round(60 * scale))).fit(A, few)
        network = UnfoldedThresholding(
            _LAYERS, analytic=True, updates=updates, batch_size=64, learning_rate=0.03,
            random_state=seed,
        ).fit(A, B, X)  # fmt: skip
        alphas = [_plain(A, B[:64], few, accelerate) for accelerate in (True, False)]
        for d, shift in enumerate(_DATA.values()):
            test = _draw(rng, _TEST, *shift)
            measured = test @ A.T
            found = [
                list(hyper.layers(measured)),
                network.layers(measured),
                _iterations(A, measured, alphas[0], True),
                _iterations(A, measured, alphas[1], False),
            ]
            errors[:, d, s] = [[decibels(x, test) for x in layers] for layers in found]
            if d == 1:
                denser[:, s] = _denser(hyper, measured, test, [found[0][-1], found[1][-1]])
    return _verdict(errors.mean(axis=2), denser.mean(axis=1))


def _denser(
    hyper: HyperLISTA, measured: np.ndarray, test: np.ndarray, found: list[np.ndarray]
) -> list[float]:
    """Return the median errors, and the error of HyperLISTA with a lower threshold."""
    pairs = [zip(x, test, strict=True) for x in found]
    medians = [float(np.median([decibels(*pair) for pair in p if pair[1].any()])) for p in pairs]
    lower = copy.copy(hyper)
    lower.factors_ = hyper.factors_ * np.array([_LOWER, 1, 1])
    return [*medians, decibels(lower.predict(measured), test)]


def _verdict(errors: np.ndarray, denser: np.ndarray) -> Outcome:
    last = errors[:, :, -1]
    table = [
        {"data": data} | {name: last[m, d] for m, name in enumerate(_METHODS)}
        for d, data in enumerate(_DATA)
    ]
    lead = last[1] - last[0]
    slacks = {
        f"{data}: dB ahead of ALISTA{' plus 2' if d == 0 else ''}": lead[d] + 2 * (d == 0)
        for d, data in enumerate(_DATA)
    }
    summary = (
        f"Squared error in decibels after {_LAYERS} layers, {_ROWS} x {_COLUMNS} Gaussian: "
        + "; ".join(
            f"{data}: " + ", ".join(f"{m} {last[i, d]:.1f}" for i, m in enumerate(_METHODS))
            for d, data in enumerate(_DATA)
        )
        + ". HyperLISTA fits three numbers, ALISTA a step and a threshold a layer. Required: at "
        "most 2 dB behind ALISTA on data as trained on, and ahead on both shifts; the margin is "
        "the least lead in dB, of the first plus 2."
    )
    if lead[1] <= 0:
        summary += (
            f" Reason: of the vectors with more non-zeros the median error is {denser[0]:.1f} dB, "
            f"ALISTA's {denser[1]:.1f}; a few that are not recovered make up the mean. The fitted "
            "threshold is the highest that the training data bear, too high for the densest: with "
            f"{_LOWER:g} times its factor the mean would be {denser[2]:.1f} dB."
        )
    figure = lines(
        list(range(1, _LAYERS + 1)), {m: errors[i, 0].tolist() for i, m in enumerate(_METHODS)},
        title="Recovery by layer, on data as trained on", x_title="layer", y_title="error in dB",
    )  # fmt: skip
    return Outcome.judged(slacks, summary, table, figure)


experiment = Experiment(
    method="hyperlista",
    claim="Three tuned numbers recover almost as well as a trained network on data as seen, and "
    "better on unseen sparsity and magnitudes.",
    baseline="ALISTA trained layer after layer on the same distribution; FISTA and ISTA",
    run=_run,
)
