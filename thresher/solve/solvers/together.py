"""Many L1-penalised problems on one design at once, in products of matrices."""

from __future__ import annotations

__all__ = ["Batch"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..penalties.dual_norms import l1_like
from .batch import Problems, State
from .duality import duality_gap
from .portions import Portion, penalties, working_sets

_STEPS = 10  # Newton steps on a working set before the gradient of all columns is asked again
_NUMBERS = 500_000  # of gathered columns held at once: they should stay in the cache


@dataclass(frozen=True)
class Batch(Problems):
    """Problems on one design, and the loop that solves them.

    Each minimises ``datafit + l1 ||w||_1 + ridge ||w||^2 / 2``. The gradients of all
    problems are one product of matrices; Newton steps are taken on working sets of each
    problem's own, for many problems at a time. Problems that have converged leave.

    Parameters
    ----------
    X, targets, datafit, weights, intercept
        See :class:`~thresher.solve.solvers.batch.Problems`.
    """

    def start(self) -> State:
        """Return the state of zero coefficients with the best constants."""
        shape = (len(self.targets), self.X.shape[1])
        return State(np.zeros(shape), self.null.constants.copy(), self.null.predictions.copy())

    def gradients(self, state: State, active: np.ndarray) -> np.ndarray:
        """Return the gradients of the losses of some problems, of shape (n_active, p)."""
        return self.slopes(state.predictions[active], active) @ self.X

    def solve(
        self, state: State, l1: np.ndarray, ridge: np.ndarray, tol: float, max_iter: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Minimise every problem from `state`, which is changed.

        Parameters
        ----------
        state : State
            Where to start.
        l1, ridge : arrays of shape (n_problems,)
            Strengths; `l1` positive.
        tol : float
            Duality gap to reach, relative to the loss of the best constant.
        max_iter : int
            Most rounds of working sets.

        Returns
        -------
        gaps : array of shape (n_problems,)
            Relative duality gaps reached.
        rounds : array of int of shape (n_problems,)
            Rounds each problem took part in.
        """
        count = len(self.targets)
        gaps, rounds = np.zeros(count), np.zeros(count, dtype=int)
        active = np.arange(count)
        # A constant target leaves a loss of rounding alone, which is no scale.
        floors = (1e-10 * np.max(np.abs(self.targets), axis=1, initial=1e-100)) ** 2
        scales = np.maximum(np.abs(self.losses(self.null.predictions, active)), floors)
        for done in range(max_iter + 1):
            self.fit_constants(state, active)
            slopes = self.slopes(state.predictions[active], active)
            gradients = slopes @ self.X
            gaps[active] = self._gaps(state, active, slopes, gradients, l1, ridge) / scales[active]
            open_ = gaps[active] > tol
            active, gradients = active[open_], gradients[open_]
            if not len(active) or done == max_iter:
                break
            rounds[active] += 1
            sets = working_sets(state.coefs[active], gradients, l1[active], ridge[active])
            for some in self._portions(sets):
                self._descend(
                    state, active[some], [sets[k] for k in some], gradients[some], l1, ridge
                )
        return gaps, rounds

    def _gaps(
        self,
        state: State,
        active: np.ndarray,
        slopes: np.ndarray,
        gradients: np.ndarray,
        l1: np.ndarray,
        ridge: np.ndarray,
    ) -> np.ndarray:
        """Return the gaps at the dual points that the slopes give, shrunk to be feasible."""
        l1, ridge, coefs = l1[active], ridge[active], state.coefs[active]
        shrink, price = l1_like(np.abs(gradients), l1[:, None], ridge)
        objectives = self.losses(state.predictions[active], active)
        objectives += penalties(coefs, l1, ridge)
        rows = zip(
            self.targets[active], slopes, self.weights[active], objectives, shrink, price,
            strict=True,
        )  # fmt: skip
        return np.array([duality_gap(self.datafit, *row) for row in rows])

    def _portions(self, sets: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield groups of problems with working sets of similar size."""
        sizes = np.array([len(chosen) for chosen in sets])
        order = np.argsort(-sizes, kind="stable")
        while len(order):
            count = max(1, _NUMBERS // max(int(sizes[order[0]]) * len(self.X), 1))
            yield order[:count]
            order = order[count:]

    def _descend(
        self,
        state: State,
        index: np.ndarray,
        sets: list[np.ndarray],
        gradients: np.ndarray,
        l1: np.ndarray,
        ridge: np.ndarray,
    ) -> None:
        """Take Newton steps on working sets until little of their violation is left."""
        portion = Portion(self, state, index, sets, gradients, l1[index], ridge[index])
        left = portion.violation()
        goal = 0.01 * left
        for _ in range(_STEPS):
            moved = portion.step()
            before, left = left, portion.violation()
            if not moved or np.all(left <= goal):
                break
            if np.any((left > goal) & (left > 0.3 * before)):
                portion.bend()  # the old curvatures no longer lead on
        for row, (k, chosen) in enumerate(zip(index, sets, strict=True)):
            state.coefs[k, chosen] = portion.coefs[row, : len(chosen)]
        state.constants[index] = portion.constants
        state.predictions[index] = portion.predictions
