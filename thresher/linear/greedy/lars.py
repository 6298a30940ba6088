"""Least angle regression, and the exact path of the Lasso."""

from __future__ import annotations

__all__ = ["LARS", "lars_path"]

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_X_y

from ...core.errors import OptionError
from ...core.options import check_boolean, check_count, check_number
from ...solve import _solve
from ...solve.design import thread_count
from ...solve.path import Path
from ...solve.weighted_columns import WeightedColumns
from .pursuit import Chosen, GreedyRegressor, positive_weights

# Rounding of correlations, relative to the largest at the start.
_ROUNDING = 1e-6


def lars_path(
    X: Any,
    y: Any,
    *,
    method: str = "lasso",
    n_nonzero_coefs: int | None = None,
    alpha_min: float = 0.0,
    fit_intercept: bool = True,
    sample_weight: Any = None,
) -> Path:
    """Return all knots of the path of the Lasso, or of least angle regression.

    Between two knots coefficients are linear in the strength, so that the knots give the whole
    path. For few columns in the model this is the fastest way to it; a path of
    :class:`~thresher.linear.penalised.lasso.Lasso` is where there are many.

    Parameters
    ----------
    X : array, data frame or sparse matrix of shape (n_samples, n_features)
        Features; computed with in double precision.
    y : array of shape (n_samples,)
        Target.
    method : {"lasso", "lar"}, default "lasso"
        With "lasso" coefficients that meet zero leave, and every point of the path minimises
        ``||y - X w - b||^2 / (2 n) + alpha ||w||_1``; with "lar" columns only enter.
    n_nonzero_coefs : int, optional
        Stop before more columns are active; when the samples determine no more by default.
    alpha_min : float, default 0
        Where the path ends.
    fit_intercept : bool, default True
        Whether there is a constant.
    sample_weight : array of shape (n_samples,), optional
        Relative weights, not negative.

    Returns
    -------
    Path
        One entry per knot, from the strength at which the first column enters. ``criteria``
        tells by how much any correlation with the residual misses what the strength demands,
        relative to the first strength.

    Raises
    ------
    OptionError
        If `method` is unknown, or more columns are asked for than there are.

    Warns
    -----
    ConvergenceWarning
        If columns are so nearly dependent that rounding gets in the way.

    References
    ----------
    Efron, Hastie, Johnstone and Tibshirani, Least angle regression (2004), sections 2 and 3;
    ties of several columns, which the paper excludes, are entered one by one.
    """
    X, y = check_X_y(X, y, accept_sparse="csc", dtype=[np.float64, np.float32], y_numeric=True)
    X, y, weight = positive_weights(X, y, sample_weight)
    columns = WeightedColumns(X, weight, fit_intercept, unit=False)
    total = len(y) if weight is None else float(weight.sum())
    return _follow(columns, y, total, method, n_nonzero_coefs, alpha_min)[0]


def _follow(
    columns: WeightedColumns,
    y: np.ndarray,
    total: float,
    method: str,
    count: int | None,
    alpha_min: float,
) -> tuple[Path, np.ndarray]:
    """Return the path, and the columns in the order in which they entered."""
    rows, available = columns.shape
    determined = min(rows - columns.centred, available)
    _check_options(method, count, alpha_min, available)
    target, centring = columns.target(y)
    unit = float(np.max(np.abs(target), initial=0.0)) or 1.0
    # In these units no product overflows; all columns share one scale.
    scale = float(columns.scale[0])
    levels, violations, starts, index, values, finished = _solve.angle_regression(
        *columns.given, target / unit, method == "lasso", alpha_min / scale / unit * total,
        determined if count is None else min(count, determined), 100 * (determined + 10),
        thread_count(),
    )  # fmt: skip
    alphas = levels * scale * unit / total
    if not finished:
        warnings.warn(
            f"gave up after {len(levels)} knots, at alpha {alphas[-1]:.3g}: columns are nearly "
            "dependent; use Lasso, or drop duplicates",
            ConvergenceWarning,
            stacklevel=3,
        )
    coefs = np.zeros((len(levels), available))
    coefs[np.repeat(np.arange(len(levels)), np.diff(starts)), index] = values * (unit / scale)
    criteria = violations / max(levels[0], np.finfo(float).tiny)
    intercepts = np.zeros(len(alphas)) + centring.intercept(coefs.T)
    path = Path(alphas, coefs, intercepts, criteria, criteria <= _ROUNDING)
    _, first = np.unique(index, return_index=True)
    return path, index[np.sort(first)]


def _check_options(method: str, count: int | None, alpha_min: float, available: int) -> None:
    if method not in ("lasso", "lar"):
        raise OptionError(f"method must be 'lasso' or 'lar', got {method!r}")
    check_number("alpha_min", alpha_min)
    if count is not None:
        check_count("n_nonzero_coefs", count, available)


class LARS(GreedyRegressor):
    """Least angle regression: columns enter one by one, and share the angle to the residual.

    Where matching pursuit gives all to the column that correlates most, the coefficients of
    the chosen columns move together, just far enough for the next one to correlate as much.

    Parameters
    ----------
    n_nonzero_coefs : int, optional
        How many columns; as many as the samples determine by default.
    method : {"lar", "lasso"}, default "lar"
        With "lasso", coefficients that meet zero leave: the result is the point of the Lasso's
        path just before there would be more non-zeros.
    fit_intercept : bool, default True
        Whether to fit a constant.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients at the end of the path.
    intercept_ : float
        Constant.
    path_ : Path
        All knots; see :func:`lars_path`.
    alpha_ : float
        Largest mean product of a column with the residual, the strength of the Lasso there.
    support_ : array of int
        Columns that are not zero, in the order in which they entered.
    n_iter_ : int
        Steps.

    Raises
    ------
    OptionError
        If more columns are asked for than there are.

    References
    ----------
    Efron, Hastie, Johnstone and Tibshirani, Least angle regression (2004).

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import LARS
    >>> model = LARS(2, fit_intercept=False).fit(np.eye(4), [4.0, 0.0, 1.0, 2.0])
    >>> model.coef_, model.path_.alphas
    (array([3., 0., 0., 1.]), array([1.  , 0.5 , 0.25]))
    """

    def __init__(
        self,
        n_nonzero_coefs: int | None = None,
        *,
        method: str = "lar",
        fit_intercept: bool = True,
    ) -> None:
        self.n_nonzero_coefs = n_nonzero_coefs
        self.method = method
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LARS:
        """Follow the path.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,) or (n_samples, n_targets)
            Target; several are fitted each alone.
        sample_weight : array of shape (n_samples,), optional
            Relative weights, not negative.

        Returns
        -------
        self
            Fitted. Of several targets ``path_``, ``alpha_`` and ``support_`` are lists.
        """
        check_boolean("fit_intercept", self.fit_intercept)
        X, y, weight = self._validated(X, y, sample_weight)
        columns = WeightedColumns(X, weight, self.fit_intercept, unit=False)
        total = len(y) if weight is None else float(weight.sum())
        paths, fits = [], []
        for target in y.T.reshape(-1, len(y)):
            path, order = _follow(columns, target, total, self.method, self.n_nonzero_coefs, 0.0)
            coef = path.coefs[-1]
            support, steps = order[coef[order] != 0], max(len(path.alphas) - 1, 1)
            paths.append(path)
            fits.append(Chosen(coef, float(path.intercepts[-1]), support, steps))
        self._keep(fits, y, X)
        ends = [float(path.alphas[-1]) for path in paths]
        self.path_: Any = paths if y.ndim == 2 else paths[0]
        self.alpha_: Any = ends if y.ndim == 2 else ends[0]
        return self
