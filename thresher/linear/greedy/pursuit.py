"""Orthogonal matching pursuit: of one target, and of many signals over one dictionary."""

from __future__ import annotations

__all__ = [
    "Chosen",
    "GreedyRegressor",
    "OrthogonalMatchingPursuit",
    "batch_omp",
    "checked_count",
    "positive_weights",
]

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight, validate_data

from ...core.errors import DataError, OptionError
from ...core.options import check_boolean, check_count, check_number, check_whole
from ...solve import _solve
from ...solve.design import thread_count
from ...solve.weighted_columns import WeightedColumns, power_of_two
from ..predictor import LinearRegressor


def batch_omp(
    dictionary: Any, signals: Any, n_nonzero: int, tolerance: float = 0.0
) -> sparse.csr_array:
    """Code many signals by orthogonal matching pursuit.

    Parameters
    ----------
    dictionary : array of shape (n_atoms, n_features)
        Atoms as rows, as in scikit-learn, in any units; scaled to unit norm inside.
    signals : array of shape (n_signals, n_features)
        What is coded, in any units. Single precision is kept if both are single.
    n_nonzero : int
        Largest number of atoms per signal.
    tolerance : float, default 0
        Stop when the *squared* norm of the residual is at most this, as in scikit-learn.

    Returns
    -------
    csr_array of shape (n_signals, n_atoms)
        Codes, so that ``codes @ dictionary`` approximates `signals`.

    Raises
    ------
    OptionError
        If more atoms are asked for than there are, or than features, or `tolerance` is not a
        number of at least 0.
    DataError
        If shapes differ, values are NaN, infinite or not real, or a matrix is sparse.

    References
    ----------
    Rubinstein, Zibulevsky and Elad, Efficient implementation of the K-SVD algorithm using
    batch orthogonal matching pursuit (2008).
    """
    dictionary, signals = _real("dictionary", dictionary), _real("signals", signals)
    if dictionary.ndim != 2 or signals.ndim != 2 or dictionary.shape[1] != signals.shape[1]:
        raise DataError(
            f"dictionary {dictionary.shape} and signals {signals.shape} must be matrices with "
            "the same number of features as columns"
        )
    single = np.result_type(dictionary, signals, np.float32) == np.float32
    dtype = np.float32 if single else np.float64
    atoms = dictionary.astype(dtype, copy=False)
    signals = signals.astype(dtype, copy=False)
    check_whole("n_nonzero", n_nonzero)
    check_number("tolerance", tolerance)
    if n_nonzero > min(atoms.shape):
        raise OptionError(
            f"cannot choose {n_nonzero} of {atoms.shape[0]} atoms with {atoms.shape[1]} features; "
            f"ask for 1 to {min(atoms.shape)}"
        )
    atoms, units = _in_units("dictionary", atoms)
    norms = np.linalg.norm(atoms, axis=1)
    atoms = atoms / np.where(norms > 0, norms, 1)[:, None]
    chosen = np.empty((len(signals), n_nonzero), dtype=np.int32)
    weights = np.zeros((len(signals), n_nonzero), dtype=dtype)
    gram = atoms @ atoms.T
    # So many signals at a time that their correlations stay in the cache.
    step = max(64, 2**20 // (atoms.itemsize * len(atoms)))
    correlations = np.empty((min(step, len(signals)), len(atoms)), dtype=dtype)
    factors = np.empty(len(signals))
    for start in range(0, len(signals), step):
        some = slice(start, start + step)
        found = correlations[: len(signals[some])]
        scaled, factors[some] = _in_units("signals", signals[some])
        np.matmul(scaled, atoms.T, out=found)
        squares = np.einsum("ij,ij->i", scaled, scaled)
        with np.errstate(over="ignore"):  # an infinite tolerance stops at once
            floors = (tolerance / factors[some] / factors[some]).astype(dtype)
        _solve.batch_pursuit(
            gram, found, squares, floors, chosen[some], weights[some], thread_count()
        )
    used = chosen >= 0
    starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    columns = chosen[used]
    values = weights[used] / norms[columns] * (np.repeat(factors, np.diff(starts)) / units[columns])
    shape = (len(signals), len(atoms))
    return sparse.csr_array((values.astype(dtype), columns, starts), shape=shape)


def _real(name: str, values: Any) -> np.ndarray:
    """Return what was given as an array of real numbers."""
    if sparse.issparse(values):
        raise DataError(f"{name} is a sparse matrix; pass {name}.toarray()")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError
        return array if array.dtype.kind in "fiub" else array.astype(float)
    except (TypeError, ValueError):
        told = " ".join(repr(values).split())[:60]
        raise DataError(f"{name} must be a matrix of real numbers, got {told}") from None


def _in_units(name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows with largest entries from 1 to 2, and what each was divided by."""
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    if not np.all(np.isfinite(largest)):
        raise DataError(f"{name} hold NaN or infinite values; leave out those rows")
    units = power_of_two(largest)
    return rows / units.astype(rows.dtype)[:, None], units


def positive_weights(
    X: Any, y: np.ndarray, sample_weight: Any
) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Check sample weights, and leave out the samples that weigh nothing.

    Parameters
    ----------
    X : array or sparse matrix of shape (n, p)
        Features.
    y : array of shape (n,)
        Target.
    sample_weight : array of shape (n,) or float, optional
        Relative weights.

    Returns
    -------
    X, y, weight
        Of the samples that count; no weights if none were given.

    Raises
    ------
    DataError
        If weights are negative, not finite, or all zero.
    """
    if sample_weight is None:
        return X, y.astype(float), None
    weight = _check_sample_weight(sample_weight, X, dtype=float)
    if not (np.all(weight >= 0) and np.any(weight > 0)):
        raise DataError("sample_weight must not be negative, nor all zero")
    counts = weight > 0
    if not counts.all():
        X, y, weight = X[counts], y[counts], weight[counts]
    return X, y.astype(float), weight


def checked_count(asked: int | None, available: int) -> int:
    """Return how many columns may be chosen.

    Parameters
    ----------
    asked : int, optional
        What the user asked for; a tenth of the columns (one at least) by default, as in
        scikit-learn.
    available : int
        How many columns there are.

    Raises
    ------
    OptionError
        Unless a whole number from 1 to `available` is asked for.
    """
    if asked is None:
        return max(available // 10, 1)
    check_count("n_nonzero_coefs", asked, available)
    return asked


class Chosen(NamedTuple):
    """What was chosen for one target.

    Parameters
    ----------
    coef : array of shape (p,)
        Coefficients.
    intercept : float
        Constant.
    support : array of int
        Chosen columns, in the order of choice.
    rounds : int
        How many were chosen, one at least.
    """

    coef: np.ndarray
    intercept: float
    support: np.ndarray
    rounds: int


class GreedyRegressor(LinearRegressor):
    """What the greedy estimators share: weights, centring, unit columns, and the refit.

    Subclasses override ``_choose``.
    """

    # By this scikit-learn's SelectFromModel knows that what is not zero is to be kept.
    penalty = "l1"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags

    def _choose(self, columns: WeightedColumns, y: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return the chosen columns, in the order of choice, and their coefficients."""
        raise NotImplementedError

    def _validated(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csc",
            dtype=[np.float64, np.float32],
            y_numeric=True,
            multi_output=True,
        )
        return positive_weights(X, y, sample_weight)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> GreedyRegressor:
        """Choose columns and fit their coefficients.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features; computed with in double precision.
        y : array of shape (n_samples,) or (n_samples, n_targets)
            Target; several are fitted each alone.
        sample_weight : array of shape (n_samples,), optional
            Weights, not negative: a sample of weight two counts as two samples.

        Returns
        -------
        self
            With ``coef_``, ``intercept_``, ``n_iter_`` and ``support_`` in the order of
            choice. Of several targets ``coef_`` has a row each, ``intercept_`` an entry, and
            ``support_`` is a list.
        """
        check_boolean("fit_intercept", self.fit_intercept)
        X, y, weight = self._validated(X, y, sample_weight)
        columns = WeightedColumns(X, weight, self.fit_intercept)
        self._keep([self._fit_target(columns, target) for target in y.T.reshape(-1, len(y))], y, X)
        return self

    def _fit_target(self, columns: WeightedColumns, y: np.ndarray) -> Chosen:
        target, centring = columns.target(y)
        chosen, coefficients = self._choose(columns, target)
        support = np.array(chosen, dtype=int)
        coef = np.zeros(columns.shape[1])
        coef[support] = coefficients / columns.scale[support]
        return Chosen(coef, float(centring.intercept(coef)), support, max(len(support), 1))

    def _keep(self, fits: list[Any], y: np.ndarray, X: Any) -> None:
        """Keep what was found, of one target or of several."""
        self.n_iter_ = max(fit.rounds for fit in fits)
        coefs = np.stack([fit.coef for fit in fits]).astype(X.dtype)
        if y.ndim == 2:
            self.coef_ = coefs
            self.intercept_: Any = np.array([fit.intercept for fit in fits])
            self.support_: Any = [fit.support for fit in fits]
        else:
            self.coef_, self.intercept_ = coefs[0], fits[0].intercept
            self.support_ = fits[0].support


class OrthogonalMatchingPursuit(GreedyRegressor):
    """Least squares on columns chosen one at a time by their correlation with the residual.

    Parameters
    ----------
    n_nonzero_coefs : int, optional
        How many columns at most, and never more than samples; by default a tenth of them (one at
        least) without a `tol`, all with one, as in scikit-learn.
    tol : float, optional
        Stop when the *squared* (weighted) norm of the residual is at most this, as in
        scikit-learn and in :func:`batch_omp`. With `n_nonzero_coefs` as well, what is met first
        ends the choice.
    fit_intercept : bool, default True
        Whether to fit a constant.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients.
    intercept_ : float
        Constant.
    support_ : array of int
        Chosen columns, in the order of choice.
    n_iter_ : int
        How many were chosen, one at least.

    Raises
    ------
    OptionError
        If more columns are asked for than there are, or `tol` is negative.

    References
    ----------
    Pati, Rezaiifar and Krishnaprasad, Orthogonal matching pursuit (1993).
    """

    def __init__(
        self,
        n_nonzero_coefs: int | None = None,
        *,
        tol: float | None = None,
        fit_intercept: bool = True,
    ) -> None:
        self.n_nonzero_coefs = n_nonzero_coefs
        self.tol = tol
        self.fit_intercept = fit_intercept

    def _choose(self, columns: WeightedColumns, y: np.ndarray) -> tuple[Any, np.ndarray]:
        rows, available = columns.shape
        asked = self.n_nonzero_coefs
        if self.tol is not None:
            check_number("tol", self.tol)
            asked = available if asked is None else asked
        count = checked_count(asked, available)
        chosen = np.empty(min(count, rows), dtype=np.int64)
        coefficients = np.empty(len(chosen))
        floor = max(float(np.sqrt(self.tol or 0.0)), 1e-12 * float(np.linalg.norm(y)))
        used = _solve.orthogonal_pursuit(
            *columns.given, y.copy(), floor, chosen, coefficients, thread_count()
        )
        return chosen[:used], coefficients[:used]
