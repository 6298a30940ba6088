"""Features that beat their knockoffs: selection at a false discovery rate."""

from __future__ import annotations

__all__ = ["KnockoffSelection", "knockoff_threshold", "maximum_entropy"]

import warnings
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import LedoitWolf
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from ...core.errors import DataError, OptionError
from ...core.options import check_number
from .cross_validation import LassoCV

_SWEEPS, _TOLERANCE = 50, 1e-6
#: The least eigenvalue of a correlation matrix, below which there is no room for knockoffs.
_SINGULAR = 1e-8


class KnockoffSelection(SelectorMixin, BaseEstimator):
    """Keep features whose coefficients are larger than those of fakes made to look like them.

    A knockoff of every feature has the correlations of the feature with all others, and is made
    without a look at the target. A sparse model is fitted to features and knockoffs together; as
    many features are expected to beat their knockoffs by chance as the other way round, which says
    how many of those kept are false.

    Parameters
    ----------
    estimator : estimator, optional
        With ``coef_`` after a fit, such as ``LassoCV()`` (default) or ``SparseLogisticCV()``. It
        must treat all columns alike: no groups or weights of features.
    fdr : float, default 0.1
        Rate of false discoveries that is allowed: the expected share of noise features among those
        kept. At least ``1 / fdr`` features must be found, or none are kept.
    covariance : estimator, optional
        Of scikit-learn, with ``covariance_`` after a fit, for the features' correlations.
        [default: ``LedoitWolf()``]
    random_state : int, RandomState or None, default None
        The knockoffs.

    Attributes
    ----------
    statistic_ : array of shape (n_features,)
        The size of the feature's coefficient less that of its knockoff; 0 for constant features.
    threshold_ : float
        Least statistic that is kept; infinite if none is.
    separation_ : array of shape (n_features,)
        How far knockoffs are from copies: one less the correlation of each with its feature.

    Raises
    ------
    OptionError
        If the rate is not between 0 and 1, or the estimator has no coefficients.
    DataError
        If the features' correlation matrix is singular, as with repeated columns.

    Warns
    -----
    UserWarning
        If nothing is kept.

    Notes
    -----
    The rate holds, for any relation of target and features, where the features are normal with the
    correlations that are estimated; in practice nearly so for other distributions if there are
    several times as many samples as features, or a `covariance` that is known. Knockoffs are drawn
    anew for every `random_state`: other draws keep others of the weak features.

    References
    ----------
    Candès, Fan, Janson and Lv, Panning for gold: model-X knockoffs for high-dimensional controlled
    variable selection (2018); Gimenez and Zou, Improving the
    stability of the knockoff procedure (2019), for correlations of most entropy.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import KnockoffSelection
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 30))
    >>> y = X[:, :12].sum(axis=1) + rng.standard_normal(300)
    >>> KnockoffSelection(random_state=0).fit(X, y).get_support(indices=True)
    array([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 15, 24, 27])

    The rate is one of many draws; of this one three of fifteen are false.
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        fdr: float = 0.1,
        covariance: Any = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.fdr = fdr
        self.covariance = covariance
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any) -> KnockoffSelection:
        """Make knockoffs, fit features beside them, and find the threshold.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Target, as the estimator takes it.

        Returns
        -------
        self
            Fitted.
        """
        check_number("fdr", self.fdr, above=0.0, below=1.0)
        model = LassoCV() if self.estimator is None else self.estimator
        if not hasattr(model, "fit"):
            raise OptionError(f"estimator must be one with coef_, such as LassoCV(), got {model!r}")
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, ensure_min_samples=2)
        rng = check_random_state(self.random_state)
        spread = X.std(axis=0)
        varies = np.flatnonzero(spread > 0)
        self.statistic_ = np.zeros(X.shape[1])
        self.separation_ = np.zeros(X.shape[1])
        if varies.size:
            scaled = (X[:, varies] - X[:, varies].mean(axis=0)) / spread[varies]
            correlation = self._correlation(scaled)
            self.separation_[varies] = separation = maximum_entropy(correlation)
            fakes = _knockoffs(scaled, correlation, separation, rng)
            self.statistic_[varies] = _statistic(clone(model), scaled, fakes, y, rng)
        self.threshold_ = knockoff_threshold(self.statistic_, self.fdr)
        if np.isinf(self.threshold_):
            warnings.warn(
                f"no features are kept at fdr={self.fdr:g}, for which at least "
                f"{int(np.ceil(1 / self.fdr))} must beat their knockoffs; allow a higher rate, or "
                "use StabilitySelection for few features",
                stacklevel=2,
            )
        return self

    def _correlation(self, scaled: np.ndarray) -> np.ndarray:
        kind = LedoitWolf(assume_centered=True) if self.covariance is None else self.covariance
        found = np.asarray(clone(kind).fit(scaled).covariance_, dtype=float)
        deviation = np.sqrt(found.diagonal())
        return found / deviation / deviation[:, None]

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(self.statistic_ >= self.threshold_)


def maximum_entropy(correlation: np.ndarray) -> np.ndarray:
    """Return how far knockoffs are to be from their features, for the most entropy of both.

    With the correlations C of features, those of features and knockoffs together are
    ``[[C, C - S], [C - S, C]]`` for a diagonal S, of which ``log det (2 C - S) + log det S`` is
    made largest, one entry after another: each has a closed form given the others.

    Parameters
    ----------
    correlation : array of shape (n_features, n_features)

    Returns
    -------
    array of shape (n_features,)
        The diagonal of S, positive.

    Raises
    ------
    DataError
        If the matrix is singular.
    """
    least = float(np.linalg.eigvalsh(correlation)[0])
    if least < _SINGULAR:
        raise DataError(
            f"the features' correlation matrix is singular (least eigenvalue {least:.1e}), so that "
            "no knockoff could differ from its feature; leave out repeated columns, or pass a "
            "covariance that shrinks, such as LedoitWolf()"
        )
    s = np.full(len(correlation), min(1.0, least))
    for _ in range(_SWEEPS):
        inverse = np.linalg.inv(2 * correlation - np.diag(s))
        before = s.copy()
        for j in range(len(s)):
            # Without entry j the determinant is linear in it: (room - s) times a constant.
            room = s[j] + 1 / inverse[j, j]
            change = room / 2 - s[j]
            column = inverse[:, j].copy()
            inverse += np.outer(column, column * (change / (1 - change * column[j])))
            s[j] += change
        if np.abs(s - before).max() <= _TOLERANCE * s.max():
            break
    return s


def knockoff_threshold(statistic: np.ndarray, fdr: float) -> float:
    """Return the least value at which at most a share `fdr` is estimated to be false.

    Parameters
    ----------
    statistic : array of shape (n_features,)
        Positive where a feature is ahead of its knockoff.
    fdr : float
        Estimated as ``(1 + number at most -t) / number at least t``.

    Returns
    -------
    float
        Infinite if there is none.
    """
    for t in np.unique(np.abs(statistic[statistic != 0])):
        if (1 + np.sum(statistic <= -t)) <= fdr * max(1, np.sum(statistic >= t)):
            return float(t)
    return float("inf")


def _knockoffs(
    scaled: np.ndarray, correlation: np.ndarray, separation: np.ndarray, rng: Any
) -> np.ndarray:
    """Draw knockoffs of standardised features, given these."""
    towards = cho_solve(cho_factor(correlation), np.diag(separation))
    spread = 2 * np.diag(separation) - separation[:, None] * towards
    values, vectors = np.linalg.eigh((spread + spread.T) / 2)
    noise = rng.standard_normal(scaled.shape) * np.sqrt(values.clip(min=0))
    return np.asarray(scaled - scaled @ towards + noise @ vectors.T)


def _statistic(model: Any, scaled: np.ndarray, fakes: np.ndarray, y: Any, rng: Any) -> np.ndarray:
    """Return by how much coefficients of features are larger than those of their knockoffs."""
    count = scaled.shape[1]
    # Which one comes first must not matter, not even where a solver breaks a tie.
    swapped = rng.random_sample(count) < 0.5
    pair = np.where(swapped, fakes, scaled), np.where(swapped, scaled, fakes)
    coef = getattr(model.fit(np.hstack(pair), y), "coef_", None)
    if coef is None:
        raise OptionError(f"estimator must have coef_ after a fit, which {model!r} has not")
    sizes = np.linalg.norm(np.atleast_2d(coef), axis=0)
    first, second = sizes[:count], sizes[count:]
    return np.where(swapped, second - first, first - second)
