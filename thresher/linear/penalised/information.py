"""Information criteria of fits along a path."""

from __future__ import annotations

__all__ = ["CRITERIA", "information"]

import numpy as np
from scipy.special import gammaln

from ...solve.path import Path
from ...solve.problem import Problem

#: What a criterion may be called.
CRITERIA = ("aic", "bic", "ebic")


def information(problem: Problem, path: Path, criterion: str) -> np.ndarray:
    """Return an information criterion of every fit of a path.

    Parameters
    ----------
    problem : Problem
        What was fitted.
    path : Path
        The fits.
    criterion : {"aic", "bic", "ebic"}
        The charge for each of `k` coefficients that are not zero: 2; ``log n``; or ``log n`` and
        twice the logarithm of how many supports of size `k` there are.

    Returns
    -------
    array of shape (n_alphas,)
        Twice the negative log likelihood, up to a constant, plus the charge. Of squares, whose
        noise is not known, ``n log(mean square)``; of other losses `n` times twice the loss.

    References
    ----------
    Akaike, A new look at the statistical model identification (1974); Schwarz, Estimating the
    dimension of a model (1978); Chen and Chen, Extended Bayesian information criteria for model
    selection with large model spaces (2008), with gamma one; Zou, Hastie and Tibshirani, On the
    degrees of freedom of the lasso (2007), for `k`.
    """
    count = int(np.count_nonzero(problem.weight))
    losses = np.array(
        [
            problem.datafit.value(problem.y, problem.predict(coef, intercept), problem.weight)
            for coef, intercept in zip(path.coefs, path.intercepts, strict=True)
        ]
    )
    if problem.datafit.quadratic:
        # A fit that is all but perfect would win for its rounding.
        floor = 1e-14 * max(float(problem.weight @ _squares(problem)), 1e-300)
        fit = count * np.log(np.maximum(2 * losses, floor))
    else:
        fit = 2 * count * losses
    used = np.count_nonzero(path.coefs.reshape(len(path.coefs), -1), axis=1)
    if criterion == "aic":
        return fit + 2 * used
    charged = fit + np.log(count) * used
    if criterion == "bic":
        return charged
    available = int(np.prod(path.coefs.shape[1:]))
    supports = gammaln(available + 1) - gammaln(used + 1) - gammaln(available - used + 1)
    return charged + 2 * supports


def _squares(problem: Problem) -> np.ndarray:
    return (problem.y**2).reshape(len(problem.y), -1).sum(axis=1)
