"""Features that are chosen again and again, on one half of the samples after another."""

from __future__ import annotations

__all__ = ["StabilitySelection"]

from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.feature_selection import SelectorMixin
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils.validation import check_is_fitted, validate_data

from ...core.errors import OptionError
from ...core.options import check_number, check_whole
from .lasso import Lasso
from .model import PenalizedModel
from .parameters import check_jobs


class StabilitySelection(SelectorMixin, BaseEstimator):
    """Keep the features that a sparse model chooses on most halves of the samples.

    A path is fitted to both halves of every random division, at the same strengths. The stability
    of a feature is the share of halves on which it has a coefficient, at the strength where that
    is largest.

    Parameters
    ----------
    estimator : PenalizedModel, optional
        An estimator with a path, such as :class:`~thresher.linear.penalised.lasso.Lasso`
        (default) or :class:`~thresher.linear.penalised.glm.SparseLogistic`.
    threshold : float, default 0.6
        Least stability that is kept, above 1/2 and at most 1. The choice matters less than that
        of the strengths; 0.6 to 0.9 is usual.
    n_pairs : int, default 50
        How often the samples are divided.
    n_alphas : int, default 20
        How many strengths.
    eps : float, default 0.3
        Ratio of the smallest strength to the largest. The smaller, the more features come in, and
        the weaker the bound.
    n_jobs : int, optional
        Divisions at a time; one by default.
    random_state : int, RandomState or None, default None
        The divisions.

    Attributes
    ----------
    scores_ : array of shape (n_features,)
        Stability of every feature.
    stability_path_ : array of shape (n_alphas, n_features)
        Share of halves on which each feature is chosen, by strength.
    alphas_ : array of shape (n_alphas,)
        Strengths, decreasing.
    expected_false_ : float
        Bound of the expected number of noise features among those kept:
        ``q^2 / ((2 threshold - 1) n_features)``, with the mean number `q` of features that a half
        chooses at any of the strengths. It holds where noise features are exchangeable and the
        estimator is better than guessing.

    Raises
    ------
    OptionError
        If the estimator has no path, or an option is out of range.

    References
    ----------
    Meinshausen and Bühlmann, Stability selection (2010), theorem 1; Shah and Samworth, Variable
    selection with error control: another look at stability selection (2013), for the halves.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import StabilitySelection
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((100, 20))
    >>> y = 2 * X[:, 3] - 2 * X[:, 7] + rng.standard_normal(100)
    >>> StabilitySelection(random_state=0).fit(X, y).get_support(indices=True)
    array([3, 7])
    """

    def __init__(
        self,
        estimator: PenalizedModel | None = None,
        *,
        threshold: float = 0.6,
        n_pairs: int = 50,
        n_alphas: int = 20,
        eps: float = 0.3,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.threshold = threshold
        self.n_pairs = n_pairs
        self.n_alphas = n_alphas
        self.eps = eps
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any) -> StabilitySelection:
        """Count how often every feature is chosen.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Target, as the estimator takes it.

        Returns
        -------
        self
            Fitted.
        """
        model = Lasso() if self.estimator is None else self.estimator
        if not hasattr(model, "path"):
            raise OptionError(
                f"estimator must have a path, such as Lasso() or SparseLogistic(), got {model!r}"
            )
        check_number("threshold", self.threshold, above=0.5, most=1.0)
        check_whole("n_pairs", self.n_pairs)
        check_jobs("n_jobs", self.n_jobs)
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], multi_output=True
        )
        whole = clone(model).path(X, y, n_alphas=self.n_alphas, eps=self.eps)
        kind = StratifiedShuffleSplit if is_classifier(model) else ShuffleSplit
        splits = kind(self.n_pairs, test_size=0.5, random_state=self.random_state)
        halves = [half for pair in splits.split(X, y) for half in pair]
        chosen = np.array(
            Parallel(n_jobs=self.n_jobs, prefer="threads")(
                delayed(_chosen)(model, X[half], y[half], whole.alphas) for half in halves
            )
        )
        self.alphas_ = whole.alphas
        self.stability_path_ = chosen.mean(axis=0)
        self.scores_ = self.stability_path_.max(axis=0)
        union = float(chosen.any(axis=1).sum(axis=1).mean())
        self.expected_false_ = union**2 / ((2 * self.threshold - 1) * X.shape[1])
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(self.scores_ >= self.threshold)


def _chosen(model: PenalizedModel, X: Any, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Return which features have a coefficient, by strength: boolean, (n_alphas, n_features)."""
    coefs = clone(model).path(X, y, alphas=alphas).coefs
    return np.any(coefs.reshape(*coefs.shape[:2], -1) != 0, axis=2)
