"""Sparse mixtures of linear regressions whose shares depend on the features."""

from __future__ import annotations

__all__ = ["LassoMixtureOfExperts"]

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...core.card import Card, Catalogued
from ...core.options import check_number, check_whole
from ...solve.centring import Centring
from ...solve.datafits import Squares
from ...solve.design import Design
from ...solve.penalties import L1
from ...solve.solvers import CoordinateDescent, Problem, Solution
from ..penalised.lasso import Lasso
from ..standardised import Standardised


class LassoMixtureOfExperts(Catalogued, RegressorMixin, BaseEstimator):
    """Mixture of Gaussian linear experts with a softmax gate, L1-penalised, fitted by EM.

    Maximises the mean log-likelihood of ``sum_k softmax_k(c + X V) N(y; b_k + X w_k, s_k^2)``
    less ``alpha (||V||_1 + sum_k ||w_k||_1 / s_k)``. Columns and target are brought to mean zero
    and unit mean square first, so that one `alpha` serves every scale.

    Parameters
    ----------
    n_experts : int, default 2
        Experts.
    alpha : float, default 0.1
        Strength, positive. Theory asks for the order ``sqrt(log(p) / n)`` up to a logarithm.
    starts : int, default 3
        Starts, of which the best is kept, as the likelihood has many local maxima. The first
        gives each expert a slice of a single Lasso's residuals; the others are random.
    smallest_variance : float, default 0.01
        Least variance of an expert relative to that of the target, positive. Without a bound,
        which the theory takes too, an expert of one sample makes the likelihood infinite. Lower
        it where the noise is known to be lower.
    tol : float, default 1e-5
        Stop when a round raises the objective by less than this.
    max_iter : int, default 500
        Most rounds of EM.
    random_state : int, RandomState or None, default None
        Starts.

    Attributes
    ----------
    coef_ : array of shape (n_experts, n_features)
        Coefficients of the experts.
    intercept_ : array of shape (n_experts,)
        Their constants.
    variances_ : array of shape (n_experts,)
        Their variances.
    gate_coef_ : array of shape (n_experts, n_features)
        Coefficients of the gate.
    gate_intercept_ : array of shape (n_experts,)
        Constants of the gate.
    objective_ : array of shape (n_rounds,)
        Penalised mean log-likelihood of the standardised data in every round; it never falls.
    n_iter_ : int
        Rounds of the start that was kept.

    Raises
    ------
    OptionError
        If an option is out of range.

    Notes
    -----
    The paper penalises ``||w_k||_1`` and asks `alpha` to grow with the bound on the precisions
    ``1 / s_k^2``: below it an expert interpolates its samples and its variance falls to the
    bound. Dividing by ``s_k``, as Städler, Bühlmann and van de Geer do for mixtures without a
    gate, leaves an `alpha` that does not depend on the noise; where variances are bounded, as
    the paper assumes, either norm is a multiple of the other at most.

    In an M-step, each expert takes a Lasso of strength ``alpha s_k / mean(share)`` and then the
    best ``s_k``; the gate's softmax is replaced by Böhning's quadratic bound, which leaves a
    Lasso for each of its columns.

    References
    ----------
    Nguyen, Nguyen, Chamroukhi and McLachlan, Non-asymptotic oracle inequalities for the Lasso
    in high-dimensional mixture of experts (2020), for the model and the estimator; Städler,
    Bühlmann and van de Geer, L1-penalization for mixture regression models (2010), for the
    penalty of scaled coefficients; Böhning, Multinomial logistic regression algorithm (1992).
    """

    card = Card(
        name="lasso-mixture-of-experts",
        title=(
            "Non-asymptotic oracle inequalities for the Lasso in high-dimensional mixture of "
            "experts"
        ),
        authors="TrungTin Nguyen, Hien D Nguyen, Faicel Chamroukhi, Geoffrey J McLachlan",
        year=2020,
        arxiv="2009.10622",
        summary="softmax-gated sparse linear experts by EM with Lasso M-steps",
    )

    def __init__(
        self,
        n_experts: int = 2,
        *,
        alpha: float = 0.1,
        starts: int = 3,
        smallest_variance: float = 0.01,
        tol: float = 1e-5,
        max_iter: int = 500,
        random_state: Any = None,
    ) -> None:
        self.n_experts = n_experts
        self.alpha = alpha
        self.starts = starts
        self.smallest_variance = smallest_variance
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> LassoMixtureOfExperts:
        """Fit the model.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target.

        Returns
        -------
        self
            Fitted.

        Warns
        -----
        ConvergenceWarning
            If the objective of the best start still rises after the last round.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        for name in ("n_experts", "starts", "max_iter"):
            check_whole(name, getattr(self, name))
        for name in ("alpha", "smallest_variance"):
            check_number(name, getattr(self, name), above=0.0)
        check_number("tol", self.tol)
        data = Standardised.of(X, y, True)
        rng = check_random_state(self.random_state)
        runs = [
            self._ascend(data.X, data.y, self._shares(data, rng, start))
            for start in range(self.starts)
        ]
        best, values = max(runs, key=lambda run: run[1][-1])
        rise = values[-1] - values[-2] if len(values) > 1 else np.inf
        if rise > self.tol:
            warnings.warn(
                f"the objective still rose by {rise:.1e} in round {self.max_iter}; raise max_iter "
                "or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.coef_ = best.coefs * data.factor
        self.intercept_ = data.centring.intercept(self.coef_.T, data.unit * best.constants)
        self.variances_ = (best.deviations * data.unit) ** 2
        self.gate_coef_ = best.gate.T * (data.factor / data.unit)
        gates = Centring(data.centring.means)  # nothing was taken from what they predict
        self.gate_intercept_ = gates.intercept(self.gate_coef_.T, best.gate_constants)
        self.objective_, self.n_iter_ = np.array(values), len(values)
        return self

    def _shares(self, data: Standardised, rng: np.random.RandomState, start: int) -> np.ndarray:
        """Return the shares of every sample at a start."""
        if start:
            return rng.dirichlet(np.ones(self.n_experts), len(data.y))
        lasso = Lasso(self.alpha, fit_intercept=False).fit(data.X, data.y)
        ranks = np.argsort(np.argsort(data.y - lasso.predict(data.X), kind="stable"))
        slices = np.eye(self.n_experts)[ranks * self.n_experts // len(ranks)]
        return 0.8 * slices + 0.2 / self.n_experts

    def _ascend(
        self, X: np.ndarray, y: np.ndarray, shares: np.ndarray
    ) -> tuple[_Mixture, list[float]]:
        """Run EM from some shares; return the mixture and the objective in every round."""
        design = Design(X)
        mixture = _Mixture.empty(self.n_experts, X.shape[1])
        values: list[float] = []
        while len(values) < self.max_iter:
            mixture = mixture.maximised(design, y, shares, self.alpha, self.smallest_variance)
            joint = mixture.log_joint(X, y)
            evidence = logsumexp(joint, axis=1)
            shares = np.exp(joint - evidence[:, None])
            values.append(float(np.mean(evidence)) - self.alpha * mixture.size())
            if len(values) > 1 and values[-1] - values[-2] <= self.tol:
                break
        return mixture, values

    def _mixture(self) -> _Mixture:
        check_is_fitted(self)
        return _Mixture(
            self.coef_,
            self.intercept_,
            np.sqrt(self.variances_),
            self.gate_coef_.T,
            self.gate_intercept_,
        )

    def predict(self, X: Any) -> np.ndarray:
        """Predict the mean of the target of every row of `X`, of shape (n_samples,)."""
        mixture = self._mixture()
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.sum(np.exp(mixture.log_gate(X)) * mixture.means(X), axis=1)

    def predict_gate(self, X: Any) -> np.ndarray:
        """Return the share of every expert at every row, of shape (n_samples, n_experts)."""
        mixture = self._mixture()
        return np.exp(mixture.log_gate(validate_data(self, X, dtype=np.float64, reset=False)))

    def log_density(self, X: Any, y: Any) -> np.ndarray:
        """Return the log density of every target given its row, of shape (n_samples,)."""
        mixture = self._mixture()
        X, y = validate_data(self, X, y, dtype=np.float64, reset=False, y_numeric=True)
        return np.asarray(logsumexp(mixture.log_joint(X, y), axis=1))


@dataclass(frozen=True)
class _Mixture:
    """The parameters; `gate` has one column per expert."""

    coefs: np.ndarray
    constants: np.ndarray
    deviations: np.ndarray
    gate: np.ndarray
    gate_constants: np.ndarray

    @classmethod
    def empty(cls, experts: int, features: int) -> _Mixture:
        return cls(
            np.zeros((experts, features)),
            np.zeros(experts),
            np.ones(experts),
            np.zeros((features, experts)),
            np.zeros(experts),
        )

    def means(self, X: np.ndarray) -> np.ndarray:
        return X @ self.coefs.T + self.constants

    def scores(self, X: np.ndarray) -> np.ndarray:
        return X @ self.gate + self.gate_constants

    def log_gate(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(log_softmax(self.scores(X), axis=1))

    def log_joint(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the log of share times density, of shape (n_samples, n_experts)."""
        residual = (y[:, None] - self.means(X)) / self.deviations
        return self.log_gate(X) - residual**2 / 2 - np.log(self.deviations) - np.log(2 * np.pi) / 2

    def size(self) -> float:
        """Return what `alpha` multiplies."""
        scaled = self.coefs / self.deviations[:, None]
        return float(np.abs(scaled).sum() + np.abs(self.gate).sum())

    def maximised(
        self, design: Design, y: np.ndarray, shares: np.ndarray, alpha: float, smallest: float
    ) -> _Mixture:
        """Return the mixture after an M-step: each part raises the expected objective."""
        experts = [
            self._expert(k, design, y, share, alpha / float(np.mean(share)), smallest)
            for k, share in enumerate(np.maximum(shares, 1e-12).T)
        ]
        # Half the identity bounds the softmax's Hessian.
        scores = self.scores(design.matrix)
        targets = scores + 2 * (shares - softmax(scores, axis=1))
        gates = [
            _lasso(design, target, 2 * alpha, None, self.gate[:, k], self.gate_constants[k])
            for k, target in enumerate(targets.T)
        ]
        return _Mixture(
            np.array([found.coef for found, _ in experts]),
            np.array([float(found.intercept) for found, _ in experts]),
            np.array([deviation for _, deviation in experts]),
            np.column_stack([found.coef for found in gates]),
            np.array([float(found.intercept) for found in gates]),
        )

    def _expert(
        self,
        k: int,
        design: Design,
        y: np.ndarray,
        share: np.ndarray,
        strength: float,
        smallest: float,
    ) -> tuple[Solution, float]:
        """Return an expert's coefficients given its deviation, then the best deviation."""
        found = _lasso(
            design, y, strength * self.deviations[k], share, self.coefs[k], self.constants[k]
        )
        residual = y - design.predict(found.coef) - found.intercept
        square = float(share @ residual**2 / share.sum())
        # Minimises log(s) + square / (2 s^2) + size / s.
        size = strength * float(np.abs(found.coef).sum())
        deviation = (size + np.sqrt(size**2 + 4 * square)) / 2
        return found, max(float(deviation), np.sqrt(smallest))


def _lasso(
    design: Design,
    y: np.ndarray,
    strength: float,
    weight: np.ndarray | None,
    coef: np.ndarray,
    constant: float,
) -> Solution:
    problem = Problem.build(design, y, Squares(), L1(strength), weight)
    return CoordinateDescent().solve(problem, coef, constant)
