"""Sparse regression under a compound Gaussian prior: a scale times a Gaussian, entry by entry."""

from __future__ import annotations

__all__ = ["CompoundGaussian"]

import warnings
from typing import Any

import numpy as np
from scipy.linalg import solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from ...core.card import Card, Catalogued
from ...core.errors import OptionError
from ...core.options import check_number, check_whole
from ...solve.datafits import Squares
from ...solve.penalties import L1, Penalty
from ...solve.solvers import Problem, ProximalGradient
from ..predictor import LinearRegressor
from ..standardised import Standardised


class CompoundGaussian(Catalogued, LinearRegressor):
    """Least squares with coefficients ``w = z * u``, by alternation (G-CG-LS).

    Minimises ``||y - X (z * u) - b||^2 / (2 n) + alpha (u' P^-1 u / 2 + R(z))`` over the
    Gaussian factor ``u`` (exactly, a Tikhonov problem) and the non-negative scale ``z`` (some
    proximal gradient steps) in turn. Columns and target are brought to unit mean square
    first, so that one `alpha` serves every scale. With the default ``R(z) = sum z`` and
    ``P = I``, eliminating ``z`` leaves a penalty proportional to ``sum |w|^(2/3)``.

    Parameters
    ----------
    alpha : float, default 0.01
        Strength of the prior, positive.
    penalty : Penalty, optional
        ``R``, which must keep ``z`` from falling below zero; ``L1(positive=True)`` by default.
    covariance : array of shape (n_features, n_features), optional
        ``P``, the prior covariance of ``u``, positive definite; the identity by default.
    steps : int, default 20
        Proximal gradient steps on ``z`` per round.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-6
        Stop when a round lowers the objective by less than this part of it.
    max_iter : int, default 1000
        Most rounds.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        ``z * u``, for the data as given.
    scale_, texture_ : arrays of shape (n_features,)
        ``z`` and ``u``, for the standardised data.
    intercept_ : float
        Constant.
    objective_ : array of shape (1 + number of iterations,)
        Objective at the start and after every round; it never rises.
    n_iter_ : int
        Rounds.

    Raises
    ------
    OptionError
        If a number is out of range, `penalty` admits negative scales, or `covariance` has
        another shape or is not positive definite.

    References
    ----------
    Lyons, Raj and Cheney, Deep regularized compound Gaussian network for solving linear
    inverse problems (2023), sections 2 and 3. The network that unrolls these steps is
    ``thresher.linear.recovery.unrolled.CompoundGaussianNetwork``.
    """

    card = Card(
        name="compound-gaussian",
        title="Deep Regularized Compound Gaussian Network for Solving Linear Inverse Problems",
        authors="Carter Lyons, Raghu G. Raj, Margaret Cheney",
        year=2023,
        arxiv="2311.17248",
        summary="coefficients as scale times Gaussian, by Tikhonov and proximal steps in turn",
    )

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        penalty: Penalty | None = None,
        covariance: Any = None,
        steps: int = 20,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        self.alpha = alpha
        self.penalty = penalty
        self.covariance = covariance
        self.steps = steps
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any) -> CompoundGaussian:
        """Fit the model.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features, or a measurement matrix.
        y : array of shape (n_samples,)
            Target, or what was measured.

        Returns
        -------
        self
            Fitted.

        Warns
        -----
        ConvergenceWarning
            If the objective still falls after the last round.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        check_number("alpha", self.alpha, above=0.0)
        check_number("tol", self.tol)
        check_whole("steps", self.steps)
        check_whole("max_iter", self.max_iter)
        penalty = L1(positive=True) if self.penalty is None else self.penalty
        if np.isfinite(penalty.value(-np.ones(X.shape[1]))):
            raise OptionError(f"{penalty!r} admits negative scales; give it positive=True")
        covariance = self._checked_covariance(X.shape[1])
        data = Standardised.of(X, y, self.fit_intercept)
        A, target = _reduced(data.X, data.y)
        self.scale_, self.texture_, self.objective_ = self._alternate(
            A, target, penalty.scaled(self.alpha), covariance
        )
        self.coef_ = self.scale_ * self.texture_ * data.factor
        self.intercept_ = float(data.centring.intercept(self.coef_))
        self.n_iter_ = len(self.objective_) - 1
        return self

    def _checked_covariance(self, size: int) -> np.ndarray:
        if self.covariance is None:
            return np.eye(size)
        covariance = np.asarray(self.covariance, dtype=float)
        if covariance.shape != (size, size) or np.linalg.eigvalsh(covariance)[0] <= 0:
            raise OptionError(
                f"covariance must be a positive definite matrix of shape {(size, size)}, got "
                f"shape {covariance.shape}"
            )
        return covariance

    def _alternate(
        self, A: np.ndarray, y: np.ndarray, penalty: Penalty, covariance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return scale, Gaussian factor, and the objective after every round."""
        inverse = np.linalg.inv(covariance)
        descent = ProximalGradient(tol=0.0, max_iter=self.steps)

        def objective(z: np.ndarray, u: np.ndarray) -> float:
            misfit = float(np.mean((y - A @ (z * u)) ** 2)) / 2
            return misfit + self.alpha / 2 * float(u @ inverse @ u) + penalty.value(z)

        # At a minimum of the default objective z = |w|^(2/3); the correlations stand in for w.
        z = np.abs(A.T @ y / len(y)) ** (2 / 3)
        u = _tikhonov(A * z, y, self.alpha, covariance)
        values = [objective(z, u)]
        while len(values) <= self.max_iter:
            scaled = Problem.build(A * u, y, Squares(), penalty, intercept=False)
            z = descent.solve(scaled, z).coef
            u = _tikhonov(A * z, y, self.alpha, covariance)
            values.append(objective(z, u))
            if values[-2] - values[-1] <= self.tol * values[-2]:
                break
        else:
            warnings.warn(
                f"the objective still fell by {1 - values[-1] / values[-2]:.1e} of it in round "
                f"{self.max_iter}; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return z, u, np.array(values)


def _reduced(A: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a square problem with the same mean square up to a constant, if `A` is tall."""
    n, p = A.shape
    if n <= p:
        return A, y
    orthogonal, triangular = np.linalg.qr(A)
    return triangular * np.sqrt(p / n), orthogonal.T @ y * np.sqrt(p / n)


def _tikhonov(A: np.ndarray, y: np.ndarray, ridge: float, covariance: np.ndarray) -> np.ndarray:
    """Minimise ``||y - A u||^2 / (2 n) + ridge u' P^-1 u / 2`` through an n x n system."""
    spread = covariance @ A.T
    gram = A @ spread
    gram[np.diag_indices_from(gram)] += ridge * len(y)
    return spread @ solve(gram, y, assume_a="pos")
