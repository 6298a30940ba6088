"""The unrolled compound Gaussian network against other recovery after little training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.fft import dct
from sklearn.datasets import load_sample_image

from thresher.core import prox
from thresher.core.evidence import Earlier, Experiment
from thresher.linear import CompoundGaussian, Lasso
from thresher.linear.recovery.unrolled import (
    CompoundGaussianNetwork,
    UnfoldedThresholding,
    UnrolledNetwork,
)

from .. import _planted as planted
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, ahead, every, means

_SIDE, _RATE, _SNR = 12, 0.5, 40.0
_TRAINED = (20, 100)  # patches
_VALIDATED = 30  # further patches, by which rivals choose their settings
_STRENGTHS = tuple(np.geomspace(3e-4, 1e-2, 4))
_TUNING = 3  # training patches that a strength is chosen on
_OURS, _TESTS = "compound Gaussian network", 12

Data = tuple[np.ndarray, np.ndarray]  # measurements and the vectors that were measured


class _Lista(UnrolledNetwork):
    """LISTA with the same two matrices and thresholds in every layer (Gregor and LeCun, 2010)."""

    def __init__(self, learning_rate: float, updates: int, n_layers: int = 10) -> None:
        self.learning_rate, self.updates, self.n_layers = learning_rate, updates, n_layers
        self.batch_size = 20

    def fit(self, A: np.ndarray, B: np.ndarray, X: np.ndarray) -> _Lista:
        """Train from the matrices of ISTA."""
        step = 1 / np.linalg.norm(A, 2) ** 2
        self._matrix = torch.tensor(A, dtype=torch.float32)
        start = (step * A, np.eye(A.shape[1]) - step * A.T @ A, np.full(A.shape[1], 0.01 * step))
        tensors = [torch.tensor(a, dtype=torch.float32).requires_grad_() for a in start]
        self._inward, self._across, self._levels = tensors
        data = tuple(torch.tensor(a, dtype=torch.float32) for a in (B, X))
        self._descend(tensors, data, self._error, torch.Generator().manual_seed(0))
        self.trained_ = True
        return self

    def _error(self, measured: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        *_, found = self._layers(measured)
        return ((found - truth) ** 2).sum(dim=1).mean()

    def _layers(self, measured: torch.Tensor) -> Iterator[torch.Tensor]:
        x = torch.zeros(len(measured), self._matrix.shape[1])
        for _ in range(self.n_layers):
            moved = x @ self._across.T + measured @ self._inward
            x = prox.soft(moved, self._levels.clamp_min(0))
            yield x


@functools.cache
def _photo(name: str) -> np.ndarray:
    return load_sample_image(name).mean(axis=2)


def _matrix(rng: np.random.Generator) -> np.ndarray:
    """Return a Gaussian matrix times the inverse cosine transform in two dimensions."""
    cosines = dct(np.eye(_SIDE), norm="ortho", axis=0)
    rows = round(_RATE * _SIDE**2)
    return rng.standard_normal((rows, _SIDE**2)) / np.sqrt(rows) @ np.kron(cosines, cosines).T


def _patches(rng: np.random.Generator, photo: str, A: np.ndarray, count: int) -> Data:
    """Return measurements, of unit norm, and transforms of patches without their mean."""
    image = _photo(photo)
    cosines = dct(np.eye(_SIDE), norm="ortho", axis=0)
    B, X = [], []
    while len(X) < count:
        row, column = (rng.integers(extent - _SIDE) for extent in image.shape)
        patch = image[row : row + _SIDE, column : column + _SIDE]
        if patch.std() < 5:  # of 255: flat, hardly anything but rounding
            continue
        x = (cosines @ (patch - patch.mean()) @ cosines.T).ravel()
        b = planted.with_noise(rng, A @ x, _SNR)
        norm = np.linalg.norm(b)
        B.append(b / norm)
        X.append(x / norm)
    return np.array(B), np.array(X)


def _error(found: np.ndarray, truth: np.ndarray) -> float:
    pairs = zip(found, truth, strict=True)
    return float(np.mean([planted.decibels(row, wanted) for row, wanted in pairs]))


# By identity, so that what does not depend on the number of patches is fitted once.
@dataclass(frozen=True, eq=False)
class _World:
    """One matrix, patches to train, validate and test on, and the share of training steps."""

    A: np.ndarray
    train: Data
    valid: Data
    test: Data
    effort: float
    tuning: int


@dataclass(frozen=True)
class _Problem:
    """One number of patches to train on."""

    world: _World
    count: int

    @property
    def train(self) -> Data:
        measured, truth = self.world.train
        return measured[: self.count], truth[: self.count]

    def updates(self, full: int) -> int:
        return max(1, round(full * self.world.effort))


@functools.lru_cache(maxsize=1)
def _world(drawn: Draw) -> _World:
    rng = drawn.rng
    A = _matrix(rng)
    parts = [
        ("china.jpg", _VALIDATED),
        ("china.jpg", max(_TRAINED)),
        ("flower.jpg", drawn.amount(_TESTS, 2)),
    ]
    valid, train, test = (_patches(rng, photo, A, count) for photo, count in parts)
    return _World(A, train, valid, test, min(drawn.scale, 1.0), drawn.amount(_TUNING))


def _best(p: _Problem, made: Sequence[Any]) -> np.ndarray:
    """Return what the network that validates best, of several rates of learning, recovers."""
    measured, truth = p.world.valid
    fitted = [network.fit(p.world.A, *p.train) for network in made]
    best = min(fitted, key=lambda network: _error(network.predict(measured), truth))
    return best.predict(p.world.test[0])


def _network(p: _Problem) -> np.ndarray:
    return _best(p, [CompoundGaussianNetwork(shape=(_SIDE, _SIDE), updates=p.updates(300))])


def _lista(p: _Problem) -> np.ndarray:
    return _best(p, [_Lista(rate, p.updates(300)) for rate in (1e-4, 1e-3)])


def _trained_ista(p: _Problem) -> np.ndarray:
    options = {"alpha": 0.01, "batch_size": 20, "updates": p.updates(100)}
    return _best(p, [UnfoldedThresholding(**options, learning_rate=rate) for rate in (0.02, 0.1)])


def _wiener(p: _Problem) -> np.ndarray:
    """Return the best linear guess for the variances of the training patches."""
    A = p.world.A
    spread = np.mean(p.train[1] ** 2, axis=0)[:, None] * A.T
    noise = 10 ** (-_SNR / 10) / len(A)
    return p.world.test[0] @ np.linalg.solve(A @ spread + noise * np.eye(len(A)), spread.T)


def _per_patch(make: Callable[[float], Any]) -> Callable[[_Problem], np.ndarray]:
    """Make the method that fits every measurement, its strength chosen on training patches."""

    @functools.lru_cache(maxsize=1)
    def recovered(world: _World) -> np.ndarray:
        def fits(strength: float, measured: np.ndarray) -> np.ndarray:
            return np.array([make(strength).fit(world.A, b).coef_ for b in measured])

        measured, truth = (part[: world.tuning] for part in world.train)
        best = min(_STRENGTHS, key=lambda s: _error(fits(s, measured), truth))
        return fits(best, world.test[0])

    return lambda p: recovered(p.world)


_METHODS: dict[str, Callable[[_Problem], np.ndarray]] = {
    _OURS: _network,
    "LISTA": _lista,
    "trained ISTA": _trained_ista,
    "Wiener": _wiener,
    "alternation": _per_patch(lambda s: CompoundGaussian(s, fit_intercept=False, tol=1e-4)),
    "Lasso": _per_patch(lambda s: Lasso(s / _SIDE, fit_intercept=False, tol=1e-5)),
}
_RIVALS = tuple(_METHODS)[1:]


def _above_all_with_few(found: Found) -> Slacks:
    leads = {rival: found.lead("error_dB", _OURS, rival) for rival in _RIVALS}
    return {
        f"further ahead of {rival} with the fewest patches than with the most": float(
            lower(lead[0] - lead[-1])
        )
        for rival, lead in leads.items()
    }


experiment = Experiment(
    method=CompoundGaussianNetwork.card.name,
    claim="The unrolled network recovers better than other methods in compressive sensing, above "
    "all after little training.",
    baseline="LISTA, trained ISTA, the compound Gaussian alternation, the Lasso, and the Wiener "
    "filter, with the same training patches",
    run=Judged(
        study=Study(
            over=("patches",),
            settings={count: count for count in _TRAINED},
            draw=lambda count, drawn: _Problem(_world(drawn), count),
            methods=_METHODS,
            measures={"error_dB": lambda found, p: _error(found, p.world.test[1])},
        ),
        rule=every(ahead("error_dB", _OURS, *_RIVALS), _above_all_with_few),
        view=means("error_dB", f"Mean error of patches of {_SIDE} x {_SIDE}", "error (dB)"),
        against={_OURS: _RIVALS},
        note=f"{_RATE:.0%} as many measurements as pixels at {_SNR:g} dB; trained on patches of "
        "one photograph, tested on another. Rates of learning and strengths of the rivals were "
        "chosen on patches of the one trained on. Above all after little training is read as a "
        "lead over each that is larger with the fewest patches than with the most. The network is "
        "smaller than the paper's; tomography and its deep rivals are not rerun.",
        reason="Rivals that are not trained gain nothing from more patches, so that the network's "
        "lead over them grows with training (suspected).",
    ),
    earlier=(
        Earlier(
            rule="ahead of every rival in means, and further ahead of LISTA with fewest patches",
            reproduced=True,
            margin=0.95448,
            why="LISTA is the weakest rival; over the best one the lead grows with training",
        ),
    ),
)
