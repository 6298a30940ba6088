"""Newton steps on the working sets of several L1-penalised problems at a time."""

from __future__ import annotations

__all__ = ["Portion", "penalties", "violations", "working_sets"]

import numpy as np

from .. import _solve
from ..design import thread_count
from ..line_search import falls
from .batch import Problems, State

_FIRST_SET = 50  # size of the first working sets; they grow to twice the support
_PASSES = 1000  # of coordinate descent per Newton step


class Portion:
    """Some problems of a batch restricted to their working sets, padded to one size.

    Parameters
    ----------
    batch : Problems
        All problems.
    state : State
        Where they stand.
    index : array of int
        Which problems.
    sets : list of arrays of int
        The working set of each.
    gradients : array of shape (n_index, p)
        Gradients of their losses.
    l1, ridge : arrays of shape (n_index,)
        Strengths of their penalties.
    """

    def __init__(
        self,
        batch: Problems,
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
        self.columns = batch.rows[padded]  # (problems, size, n)
        self.columns[~self.used] = 0
        self.coefs = np.where(self.used, np.take_along_axis(state.coefs[index], padded, 1), 0.0)
        self.gradients = np.where(self.used, np.take_along_axis(gradients, padded, 1), 0.0)
        self.constants, self.predictions = state.constants[index], state.predictions[index]
        self.drift = np.zeros(len(index))  # sum of the slopes; the constants start at their best
        self.objectives = batch.losses(self.predictions, index)
        self.objectives += penalties(self.coefs, l1, ridge)
        self.bend()

    def bend(self) -> None:
        """Form the quadratic model of the loss at the current predictions."""
        batch = self.batch
        targets, weights = batch.targets[self.index], batch.weights[self.index]
        self.curvatures = batch.datafit.curvature(targets, self.predictions, weights)
        self.totals = np.maximum(self.curvatures.sum(axis=1), 1e-300)
        self.gram, self.means = self._gram(self.curvatures, self.totals)

    def violation(self) -> np.ndarray:
        """Return the largest violation of optimality of every problem on its working set."""
        found = violations(self.coefs, self.gradients, self.l1, self.ridge)
        return np.maximum(np.max(found, axis=1, initial=0.0), np.abs(self.drift))

    def step(self) -> bool:
        """Minimise the model, move towards that; return whether any problem moved."""
        batch = self.batch
        slope = self.gradients - self.means * self.drift[:, None]  # the constant minimised away
        linear = np.einsum("kij,kj->ki", self.gram, self.coefs) - slope
        proposal = self.coefs.copy()
        _solve.gram_descents(
            self.gram, linear, self.l1, self.ridge, 0.03 * self.violation(), _PASSES, proposal,
            thread_count(),
        )  # fmt: skip
        toward = np.matmul((proposal - self.coefs)[:, None, :], self.columns)[:, 0]
        shift = np.zeros(len(toward))
        if batch.intercept:
            shift = -(self.drift + np.sum(self.curvatures * toward, axis=1)) / self.totals
            toward += shift[:, None]
        moved = self._search(proposal, toward, shift)
        slopes = batch.slopes(self.predictions, self.index)
        self.gradients = np.matmul(self.columns, slopes[:, :, None])[:, :, 0]
        if batch.intercept:
            self.drift = slopes.sum(axis=1)
        return moved

    def _gram(self, bend: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the Gram matrices under the curvatures, and the columns' means, if centred."""
        if self.batch.gram is not None:
            gram = self.batch.gram[self.sets[:, :, None], self.sets[:, None, :]]
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
        length = 1.0
        for _ in range(30):
            coefs = self.coefs[left] + length * (proposal - self.coefs)[left]
            predictions = self.predictions[left] + length * toward[left]
            reached = self.batch.losses(predictions, self.index[left])
            reached += penalties(coefs, self.l1[left], self.ridge[left])
            fell = falls(reached, self.objectives[left], length == 1)
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


def penalties(coefs: np.ndarray, l1: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Return the penalty of every problem."""
    return l1 * np.abs(coefs).sum(axis=1) + ridge / 2 * np.sum(coefs**2, axis=1)


def violations(
    coefs: np.ndarray, gradients: np.ndarray, l1: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    """Return the distance of every coefficient from optimality, for all problems at once."""
    inside = gradients + l1[:, None] * np.sign(coefs) + ridge[:, None] * coefs
    at_zero = np.maximum(np.abs(gradients) - l1[:, None], 0)
    return np.where(coefs == 0, at_zero, np.abs(inside))


def working_sets(
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
