"""Minimising a noisy black box over a ball of atoms, from values alone."""

from __future__ import annotations

__all__ = ["ZerothOrderFrankWolfe"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...core.card import Card, Catalogued
from ...core.errors import DataError, OptionError
from ...core.options import check_number, check_whole
from ...solve.penalties import Ball

# A loss of a point, evaluated on the sample that the generator draws.
Loss = Callable[[np.ndarray, np.random.Generator], float]


@dataclass(frozen=True)
class ZerothOrderFrankWolfe(Catalogued):
    """Stochastic Frank-Wolfe with directional differences in place of gradients.

    Each step compares two values of the loss, on the same random sample, along a random
    direction; averages the resulting slope with the earlier ones; and moves towards the
    atom that the average favours. After t steps the point is a combination of at most t
    atoms. No gradient and no projection are needed.

    Parameters
    ----------
    ball : Ball
        Where to minimise, such as :class:`~thresher.solve.penalties.balls.L1Ball`, or
        :class:`~thresher.solve.penalties.balls.NuclearBall` for matrices of low rank.
    max_iter : int, default 1000
        Steps; each takes two values per direction.
    directions : int, default 1
        Random directions that are averaged in a step.
    difference : float, default 1.0
        Length of the difference in the first step; it falls as ``step^(-1/3)`` divided by
        the root of the dimension.
    seed : int, default 0
        Random directions and samples.

    Raises
    ------
    OptionError
        If `ball` is none, or a number is out of range.

    References
    ----------
    Sahu, Zaheer and Kar, Towards gradient free and projection free stochastic optimization
    (2018), arXiv:1810.03233, for averaged directional differences in Frank-Wolfe.
    """

    card = Card(
        name="zeroth-order-frank-wolfe",
        title="Towards Gradient Free and Projection Free Stochastic Optimization",
        authors="Anit Kumar Sahu, Manzil Zaheer, Soummya Kar",
        year=2018,
        arxiv="1810.03233",
        summary="Frank-Wolfe on atoms from values of a noisy loss, one direction per step",
    )

    ball: Ball
    max_iter: int = 1000
    directions: int = 1
    difference: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.ball, Ball):
            raise OptionError(f"ball must be a Ball, such as penalties.L1Ball(), got {self.ball!r}")
        check_whole("max_iter", self.max_iter)
        check_whole("directions", self.directions)
        check_number("difference", self.difference, above=0.0)
        check_whole("seed", self.seed, least=0)

    def minimise(self, loss: Loss, start: np.ndarray) -> np.ndarray:
        """Minimise the expectation of a loss.

        Parameters
        ----------
        loss : callable
            ``loss(point, generator)``: the value at a point of the shape of `start`, on the
            sample that the generator draws. Two calls of one difference get generators in
            the same state.
        start : array of shape (d,), or (d, outputs)
            A point of the ball.

        Returns
        -------
        array of the shape of `start`
            The last point.

        Raises
        ------
        DataError
            If `start` lies outside the ball, or a value is NaN or infinite.
        """
        point = np.array(start, dtype=float)
        if self.ball.value(point) > 0:
            raise DataError("start lies outside the ball; start from zeros or an atom")
        rng = np.random.default_rng(self.seed)
        average = np.zeros_like(point)
        for step in range(1, self.max_iter + 1):
            # A random direction has d times the variance of the gradient: the more of it, the
            # longer the average.
            excess = 1 + point.size / self.directions
            share = min(1.0, 4 / (excess ** (1 / 3) * (step + 8) ** (2 / 3)))
            average = (1 - share) * average + share * self._slope(loss, point, step, rng)
            point = point + 2 / (step + 8) * (self.ball.atom(average) - point)
        return point

    def _slope(
        self, loss: Loss, point: np.ndarray, step: int, rng: np.random.Generator
    ) -> np.ndarray:
        length = self.difference / (np.sqrt(point.size) * step ** (1 / 3))
        total = np.zeros_like(point)
        for _ in range(self.directions):
            direction = rng.standard_normal(point.shape)
            sample = int(rng.integers(2**63))
            ahead = loss(point + length * direction, np.random.default_rng(sample))
            here = loss(point, np.random.default_rng(sample))
            change = (ahead - here) / length
            if not np.isfinite(change):
                raise DataError(f"the loss is {ahead} and {here} at step {step}; it must be finite")
            total += change * direction
        return total / self.directions
