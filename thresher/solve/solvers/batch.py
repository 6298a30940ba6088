"""Many L1-penalised problems on one design: their data, losses and constants."""

from __future__ import annotations

__all__ = ["Problems", "State"]

from dataclasses import dataclass, field

import numpy as np

from ..centring import Centring
from ..datafits import Datafit

_SHARED_GRAM = 5_500  # most columns for which the whole Gram matrix is formed, in 240 MB


@dataclass
class State:
    """Where the problems stand.

    Parameters
    ----------
    coefs : array of shape (n_problems, p)
        Coefficients.
    constants : array of shape (n_problems,)
        Intercepts.
    predictions : array of shape (n_problems, n)
        Linear predictions.
    """

    coefs: np.ndarray
    constants: np.ndarray
    predictions: np.ndarray


@dataclass(frozen=True)
class Problems:
    """Problems that differ in targets, sample weights and strength, but share the design.

    Parameters
    ----------
    X : array of shape (n, p)
        The features.
    targets : array of shape (n_problems, n)
        A target for each problem.
    datafit : Datafit
        A loss that is a sum over samples and has a conjugate.
    weights : array of shape (n_problems, n)
        Sample weights; each row sums to one.
    intercept : bool
        Whether an unpenalised constant is fitted.
    """

    X: np.ndarray
    targets: np.ndarray
    datafit: Datafit
    weights: np.ndarray
    intercept: bool
    rows: np.ndarray = field(init=False, repr=False)
    gram: np.ndarray | None = field(init=False, repr=False)
    null: State = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", np.ascontiguousarray(self.X.T))
        # With one weight for all and a quadratic loss, every working set's Gram matrix is a
        # part of one.
        alike = self.datafit.quadratic and bool(np.all(self.weights == self.weights[0]))
        gram = None
        if alike and self.X.shape[1] <= _SHARED_GRAM:
            means = self.weights[0] @ self.X if self.intercept else None
            centred = Centring(means).columns(self.X)
            gram = centred.T @ (centred * self.weights[0][:, None])
        object.__setattr__(self, "gram", gram)
        count = len(self.targets)
        null = State(np.zeros((count, 0)), np.zeros(count), np.zeros_like(self.targets))
        self.fit_constants(null, np.arange(count))
        object.__setattr__(self, "null", null)

    def slopes(self, predictions: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return the slopes of the losses of some problems, of shape (n_index, n)."""
        return self.datafit.gradient(self.targets[index], predictions, self.weights[index])

    def losses(self, predictions: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return the losses of some problems."""
        rows = zip(self.targets[index], predictions, self.weights[index], strict=True)
        return np.array([self.datafit.value(y, z, weight) for y, z, weight in rows])

    def fit_constants(self, state: State, active: np.ndarray) -> None:
        """Move the constants to where the slopes sum to zero, by Newton steps."""
        if not self.intercept:
            return
        offsets = state.predictions[active] - state.constants[active, None]
        constants = state.constants[active]

        def sums(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            arguments = (self.targets[active], offsets + at[:, None], self.weights[active])
            slope, bend = self.datafit.gradient(*arguments), self.datafit.curvature(*arguments)
            return slope.sum(axis=1), np.maximum(bend.sum(axis=1), 1e-300)

        slope, bend = sums(constants)
        length = np.ones(len(active))
        for _ in range(100):
            trial = constants - length * slope / bend
            reached, bend_there = sums(trial)
            # The slope rises with the constant: a step that leaves more of it was too long.
            better = np.abs(reached) < np.abs(slope)
            if not np.any(better) and np.all(length < 1e-8):
                break
            constants = np.where(better, trial, constants)
            slope, bend = np.where(better, reached, slope), np.where(better, bend_there, bend)
            length = np.where(better, 1.0, length / 4)
            if np.all(np.abs(slope) <= 1e-15):
                break
        state.constants[active] = constants
        state.predictions[active] = offsets + constants[:, None]
