"""Sparse Bayesian regression without matrix inversion."""

from __future__ import annotations

__all__ = ["GAMPBayes"]

import numpy as np

from ...core.card import Card, Catalogued
from ...core.errors import NumericalError
from ...core.options import check_number, check_whole
from ..standardised import Standardised
from .em import EMRegressor, EMResult, GAMPExpectation, maximise_evidence


class GAMPBayes(Catalogued, EMRegressor):
    """Sparse Bayesian learning by expectation-maximisation with message passing (GGAMP-SBL).

    Learns the prior variance of every coefficient and that of the noise. The posterior, for
    which :class:`~thresher.linear.bayes.sparse_bayes.SparseBayes` inverts matrices, comes from
    damped Gaussian approximate message passing: products with ``X`` and ``X.T`` only. The paper's
    second algorithm, GGAMP-TSBL, for several measurement vectors whose supports agree and whose
    values are correlated in time, is not part of this class.

    Parameters
    ----------
    damping : float, default 0.5
        Share of a new message that is taken, in (0, 1]. Lower it for correlated columns.
    passes : int, default 20
        Message passes per round.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-4
        Stop when the coefficients change by less than this, relative to their norm.
    max_iter : int, default 500
        Most rounds.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Posterior mean.
    intercept_ : float
        Constant.
    posterior_variances_ : array of shape (n_features,)
        Posterior variances; approximate, as the messages treat columns as unrelated.
    variances_ : array of shape (n_features,)
        Prior variances; zero for those that left.
    noise_variance_ : float
        Variance of the noise.
    n_iter_ : int
        Rounds.

    Raises
    ------
    OptionError
        If `damping` is out of range, `passes` or `max_iter` not a whole number of at least one,
        or `tol` negative.
    NumericalError
        If the messages diverge; lower `damping`.

    References
    ----------
    Al-Shoukairi, Schniter and Rao, A GAMP based low complexity sparse Bayesian learning
    algorithm, IEEE Transactions on Signal Processing 66 (2018), arXiv:1703.03044, for GGAMP-SBL.
    """

    card = Card(
        name="gamp-bayes",
        title="A GAMP Based Low Complexity Sparse Bayesian Learning Algorithm",
        authors="Maher Al-Shoukairi, Philip Schniter, Bhaskar D. Rao",
        year=2017,
        arxiv="1703.03044",
        summary="sparse Bayesian learning whose E-step is damped message passing, no inversion",
    )

    def __init__(
        self,
        *,
        damping: float = 0.5,
        passes: int = 20,
        fit_intercept: bool = True,
        tol: float = 1e-4,
        max_iter: int = 500,
    ) -> None:
        self.damping = damping
        self.passes = passes
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    _remedy = "raise max_iter or lower damping"

    def _check_options(self) -> None:
        super()._check_options()
        check_whole("passes", self.passes)
        check_number("damping", self.damping, above=0.0, most=1.0)

    def _posterior(self, X: np.ndarray, y: np.ndarray) -> EMResult:
        # Within a round a tenth of the outer tolerance is enough: the next round starts there.
        expectation = GAMPExpectation(X, y, self.damping, self.passes, 0.1 * self.tol)
        with np.errstate(over="ignore", invalid="ignore"):
            found = maximise_evidence(X, y, expectation, tol=self.tol, max_iter=self.max_iter)
        missed = np.linalg.norm(y - X @ found.mean)
        if not missed <= 10 * np.linalg.norm(y):  # NaN included
            raise NumericalError(
                f"the messages diverged with damping {self.damping}; try {self.damping / 4:g}"
            )
        return found

    def _keep(self, found: EMResult, data: Standardised) -> None:
        super()._keep(found, data)
        self.variances_ = found.prior * data.factor**2
