"""Many L1-penalised problems on one design at once, in products of matrices."""

from __future__ import annotations

__all__ = ["Batch", "State"]

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .. import _linear
from ..datafits import Datafit
from ..design import thread_count
from .duality import feasible_dual

_FIRST_SET = 50  # size of the first working sets; they grow to twice the support
_STEPS = 10  # Newton steps on a working set before the gradient of all columns is asked again
_PASSES = 1000  # of coordinate descent per Newton step
_NUMBERS = 500_000  # of gathered columns held at once: they should stay in the cache
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
class Batch:
    """Problems that differ in targets, sample weights and strength, but share the design.

    Each minimises ``datafit + l1 ||w||_1 + ridge ||w||^2 / 2``. The gradients of all
    problems are one product of matrices; Newton steps are taken on working sets of each
    problem's own, for many problems at a time. Problems that have converged leave.

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
    _rows: np.ndarray = field(init=False, repr=False)
    _gram: np.ndarray | None = field(init=False, repr=False)
    _null: State = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", np.ascontiguousarray(self.X.T))
        # With one weight for all and a quadratic loss, every working set's Gram matrix is a
        # part of one.
        alike = self.datafit.quadratic and bool(np.all(self.weights == self.weights[0]))
        gram = None
        if alike and self.X.shape[1] <= _SHARED_GRAM:
            means = self.weights[0] @ self.X if self.intercept else 0.0
            centred = self.X - means
            gram = centred.T @ (centred * self.weights[0][:, None])
        object.__setattr__(self, "_gram", gram)
        count = len(self.targets)
        null = State(np.zeros((count, 0)), np.zeros(count), np.zeros_like(self.targets))
        self._fit_constants(null, np.arange(count))
        object.__setattr__(self, "_null", null)

    def start(self) -> State:
        """Return the state of zero coefficients with the best constants."""
        shape = (len(self.targets), self.X.shape[1])
        return State(np.zeros(shape), self._null.constants.copy(), self._null.predictions.copy())

    def gradients(self, state: State, active: np.ndarray) -> np.ndarray:
        """Return the gradients of the losses of some problems, of shape (n_active, p)."""
        return self._slopes(state.predictions[active], active) @ self.X

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
        scales = np.maximum(np.abs(self._losses(self._null.predictions, active)), floors)
        for done in range(max_iter + 1):
            self._fit_constants(state, active)
            slopes = self._slopes(state.predictions[active], active)
            gradients = slopes @ self.X
            gaps[active] = self._gaps(state, active, slopes, gradients, l1, ridge) / scales[active]
            open_ = gaps[active] > tol
            active, gradients = active[open_], gradients[open_]
            if not len(active) or done == max_iter:
                break
            rounds[active] += 1
            sets = _working_sets(state.coefs[active], gradients, l1[active], ridge[active])
            for some in self._portions(sets):
                self._descend(
                    state, active[some], [sets[k] for k in some], gradients[some], l1, ridge
                )
        return gaps, rounds

    def _slopes(self, predictions: np.ndarray, index: np.ndarray) -> np.ndarray:
        return self.datafit.gradient(self.targets[index], predictions, self.weights[index])

    def _losses(self, predictions: np.ndarray, index: np.ndarray) -> np.ndarray:
        rows = zip(self.targets[index], predictions, self.weights[index], strict=True)
        return np.array([self.datafit.value(y, z, weight) for y, z, weight in rows])

    def _fit_constants(self, state: State, active: np.ndarray) -> None:
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
        shrink, price = feasible_dual(np.abs(gradients), l1[:, None], ridge)
        rows = zip(
            self.targets[active], slopes / shrink[:, None], self.weights[active], strict=True
        )
        dual = np.array([self.datafit.conjugate(*row) for row in rows])
        losses = self._losses(state.predictions[active], active)
        return losses + _penalties(coefs, l1, ridge) + dual + price

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
        portion = _Portion(self, state, index, sets, gradients, l1[index], ridge[index])
        left = portion.violations()
        goal = 0.01 * left
        for _ in range(_STEPS):
            moved = portion.step()
            before, left = left, portion.violations()
            if not moved or np.all(left <= goal):
                break
            if np.any((left > goal) & (left > 0.3 * before)):
                portion.bend()  # the old curvatures no longer lead on
        for row, (k, chosen) in enumerate(zip(index, sets, strict=True)):
            state.coefs[k, chosen] = portion.coefs[row, : len(chosen)]
        state.constants[index] = portion.constants
        state.predictions[index] = portion.predictions


class _Portion:
    """Some problems restricted to their working sets, padded to one size."""

    def __init__(
        self,
        batch: Batch,
        state: State,
        index: np.ndarray,
        sets: list[np.ndarray],
        gradients: np.ndarray,
        l1: np.ndarray,
        ridge: np.ndarray,
    ) -> None:
        self.batch, self.index, self.l1, self.ridge = batch, index, l1, ridge
        size = max(len(chosen) for chosen in sets)
        padded = np.zeros((len(sets), size), dtype=np.int64)
        self.used = np.arange(size) < np.array([len(chosen) for chosen in sets])[:, None]
        padded[self.used] = np.concatenate(sets)
        self.sets = padded
        self.columns = batch._rows[padded]  # (problems, size, n)
        self.columns[~self.used] = 0
        self.coefs = np.where(self.used, np.take_along_axis(state.coefs[index], padded, 1), 0.0)
        self.gradients = np.where(self.used, np.take_along_axis(gradients, padded, 1), 0.0)
        self.constants, self.predictions = state.constants[index], state.predictions[index]
        self.drift = np.zeros(len(index))  # sum of the slopes; the constants start at their best
        self.objectives = batch._losses(self.predictions, index)
        self.objectives += _penalties(self.coefs, l1, ridge)
        self.bend()

    def bend(self) -> None:
        """Form the quadratic model of the loss at the current predictions."""
        batch = self.batch
        targets, weights = batch.targets[self.index], batch.weights[self.index]
        self.curvatures = batch.datafit.curvature(targets, self.predictions, weights)
        self.totals = np.maximum(self.curvatures.sum(axis=1), 1e-300)
        self.gram, self.means = self._gram(self.curvatures, self.totals)

    def violations(self) -> np.ndarray:
        """Return the largest violation of optimality of every problem on its working set."""
        found = _violations(self.coefs, self.gradients, self.l1, self.ridge)
        return np.maximum(np.max(found, axis=1, initial=0.0), np.abs(self.drift))

    def step(self) -> bool:
        """Minimise the model, move towards that; return whether any problem moved."""
        batch = self.batch
        slope = self.gradients - self.means * self.drift[:, None]  # the constant minimised away
        linear = np.einsum("kij,kj->ki", self.gram, self.coefs) - slope
        proposal = self.coefs.copy()
        _linear.gram_descents(
            self.gram, linear, self.l1, self.ridge, 0.03 * self.violations(), _PASSES, proposal,
            thread_count(),
        )  # fmt: skip
        toward = np.matmul((proposal - self.coefs)[:, None, :], self.columns)[:, 0]
        shift = np.zeros(len(toward))
        if batch.intercept:
            shift = -(self.drift + np.sum(self.curvatures * toward, axis=1)) / self.totals
            toward += shift[:, None]
        moved = self._search(proposal, toward, shift)
        slopes = batch._slopes(self.predictions, self.index)
        self.gradients = np.matmul(self.columns, slopes[:, :, None])[:, :, 0]
        if batch.intercept:
            self.drift = slopes.sum(axis=1)
        return moved

    def _gram(self, bend: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the Gram matrices under the curvatures, and the columns' means, if centred."""
        if self.batch._gram is not None:
            gram = self.batch._gram[self.sets[:, :, None], self.sets[:, None, :]]
            gram[~self.used] = 0
            gram.transpose(0, 2, 1)[~self.used] = 0
            return gram, np.zeros_like(self.coefs)  # the constants of squares are always best
        weighted = self.columns * bend[:, None, :]
        gram = np.matmul(weighted, self.columns.transpose(0, 2, 1))
        if not self.batch.intercept:
            return gram, np.zeros_like(self.coefs)
        means = weighted.sum(axis=2) / total[:, None]
        gram -= total[:, None, None] * means[:, :, None] * means[:, None, :]
        return gram, means

    def _search(self, proposal: np.ndarray, toward: np.ndarray, shift: np.ndarray) -> bool:
        """Move each problem towards its proposal, halving steps until its objective falls."""
        left = np.arange(len(proposal))
        # At the end of the digits the objective cannot tell progress; a whole step may stay.
        slack = 4 * np.finfo(float).eps * np.maximum(np.abs(self.objectives), 1e-300)
        length = 1.0
        for _ in range(30):
            coefs = self.coefs[left] + length * (proposal - self.coefs)[left]
            predictions = self.predictions[left] + length * toward[left]
            reached = self.batch._losses(predictions, self.index[left])
            reached += _penalties(coefs, self.l1[left], self.ridge[left])
            fell = reached <= self.objectives[left] + (slack[left] if length == 1 else 0.0)
            some = left[fell]
            # A whole step ends at the proposal itself, whose zeros are exact.
            self.coefs[some] = proposal[some] if length == 1 else coefs[fell]
            self.predictions[some] = predictions[fell]
            self.constants[some] += length * shift[some]
            self.objectives[some] = reached[fell]
            left = left[~fell]
            if not len(left):
                break
            length /= 2
        return len(left) < len(proposal)


def _penalties(coefs: np.ndarray, l1: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    return l1 * np.abs(coefs).sum(axis=1) + ridge / 2 * np.sum(coefs**2, axis=1)


def _violations(
    coefs: np.ndarray, gradients: np.ndarray, l1: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    """Return the distance of every coefficient from optimality, for all problems at once."""
    inside = gradients + l1[:, None] * np.sign(coefs) + ridge[:, None] * coefs
    at_zero = np.maximum(np.abs(gradients) - l1[:, None], 0)
    return np.where(coefs == 0, at_zero, np.abs(inside))


def _working_sets(
    coefs: np.ndarray, gradients: np.ndarray, l1: np.ndarray, ridge: np.ndarray
) -> list[np.ndarray]:
    """Return the support and the worst violators of every problem, sorted."""
    support = coefs != 0
    violating = np.abs(gradients) > l1[:, None]
    sets = []
    for k in range(len(coefs)):
        kept = np.flatnonzero(support[k])
        others = np.flatnonzero(violating[k] & ~support[k])
        room = max(_FIRST_SET, 2 * len(kept)) - len(kept)
        if len(others) > room:
            size = np.abs(gradients[k, others])
            others = others[np.argpartition(-size, room - 1)[:room]]
        sets.append(np.sort(np.concatenate([kept, others])))
    return sets
