"""Signatures of irregularly observed paths, and sparse regression on them."""

from __future__ import annotations

__all__ = ["SignatureLasso", "signature"]

from collections.abc import Sequence
from itertools import chain, product
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import check_is_fitted

from ...core.card import Card, Catalogued
from ...core.errors import DataError, OptionError
from ...core.options import check_whole
from ..penalised.cross_validation import LassoCV
from ..penalised.lasso import Lasso


def signature(increments: np.ndarray, depth: int) -> np.ndarray:
    """Return the truncated signatures of piecewise linear paths.

    The signature of one segment is the exponential of its increment, and that of a
    concatenation the tensor product of the parts (Chen's identity); a zero increment
    changes nothing, so that paths of different lengths can be padded and stacked.

    Parameters
    ----------
    increments : array of shape (..., n_segments, n_channels)
        Differences between consecutive points of the paths.
    depth : int
        Order of the highest iterated integrals, 1 or more.

    Returns
    -------
    array of shape (..., n_channels + n_channels^2 + ... + n_channels^depth)
        Iterated integrals, order by order; within one, the last channel varies fastest. The
        integral of order zero, which is one, is left out.

    Raises
    ------
    OptionError
        If `depth` is not a whole number of at least one.

    References
    ----------
    Chen, Integration of paths: a faithful representation of paths by noncommutative formal
    power series (1958).
    """
    check_whole("depth", depth)
    *batch, _, channels = increments.shape
    levels = [np.zeros((*batch, channels**order)) for order in range(1, depth + 1)]
    for step in np.moveaxis(increments, -2, 0):
        # The highest order first, as it needs the lower ones of the path so far.
        for order in range(depth, 0, -1):
            gained = step / order
            for lower in range(1, order):  # Horner's scheme, in the tensor algebra
                gained = _tensor(gained + levels[lower - 1], step / (order - lower))
            levels[order - 1] += gained
    return np.concatenate(levels, axis=-1)


def _tensor(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left[..., :, None] * right[..., None, :]).reshape(*left.shape[:-1], -1)


class SignatureLasso(Catalogued, BaseEstimator):
    """Lasso on the signatures of irregularly observed paths (SigLasso).

    The target is taken to solve a differential equation that the features drive, so that it
    is nearly linear in the signature of their path until now. Each individual's observations
    are joined by lines, from the origin on (which keeps the first values in the signature),
    with the time as one more channel; after the last observation before a time of interest
    only the time moves. Columns are scaled to unit variance.

    Parameters
    ----------
    depth : int, default 3
        Order of the highest iterated integrals. Their number is the power of the number of
        channels, time included.
    alpha : float, optional
        Strength of the L1 norm, for columns of unit variance. By default it is chosen by
        cross-validation over individuals.
    max_folds : int, default 5
        Most folds of the cross-validation.

    Attributes
    ----------
    words_ : list of tuple of int
        Which channels each coefficient's integral runs over, in order; 0 is the time.
    coef_ : array of shape (n_words,)
        Coefficients of the unscaled signature.
    intercept_ : float
        Constant.
    alpha_ : float
        The strength that was used.

    Raises
    ------
    OptionError
        If a number is out of range, or `alpha` is to be chosen from a single individual.
    DataError
        If a path is not a matrix with increasing times, or is not observed before a time at
        which the target is.

    References
    ----------
    Bleistein, Fermanian, Jannot and Guilloux, Learning the dynamics of sparsely observed
    interacting systems (2023), arXiv:2301.11647, for the regression on signatures.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import SignatureLasso
    >>> path = np.array([[0.0, 1.0], [1.0, 3.0]])  # rows: time, value
    >>> model = SignatureLasso(depth=1, alpha=1e-6).fit([path], [[0.5, 1.0]], [[2.0, 6.0]])
    >>> model.predict([path], [[1.0]])[0].round(3)
    array([6.])
    """

    card = Card(
        name="signature-lasso",
        title="Learning the Dynamics of Sparsely Observed Interacting Systems",
        authors="Linus Bleistein, Adeline Fermanian, Anne-Sophie Jannot, Agathe Guilloux",
        year=2023,
        arxiv="2301.11647",
        summary="Lasso on the truncated signatures of sparsely and irregularly observed paths",
    )

    def __init__(self, depth: int = 3, alpha: float | None = None, *, max_folds: int = 5) -> None:
        self.depth = depth
        self.alpha = alpha
        self.max_folds = max_folds

    def fit(self, paths: Sequence[Any], times: Sequence[Any], y: Sequence[Any]) -> SignatureLasso:
        """Learn how the target follows from the path of the features so far.

        Parameters
        ----------
        paths : sequence of arrays of shape (n_observations, 1 + n_features)
            One matrix an individual: the time of each observation, increasing, and what was
            observed. Lengths and times may differ.
        times : sequence of arrays of shape (n_targets,)
            When the target of each individual was observed.
        y : sequence of arrays of shape (n_targets,)
            What was observed then.

        Returns
        -------
        self
            Fitted.
        """
        check_whole("depth", self.depth)
        check_whole("max_folds", self.max_folds, least=2)
        targets = [np.asarray(values, dtype=float) for values in y]
        if [np.shape(t) for t in times] != [v.shape for v in targets] or len(paths) != len(targets):
            raise DataError(
                f"{len(paths)} paths, {len(times)} lists of times and {len(targets)} lists of "
                "targets do not match; every individual needs one of each, times as many as targets"
            )
        X = self.transform(paths, times)
        individual = np.repeat(np.arange(len(targets)), [len(values) for values in targets])
        deviation = X.std(axis=0)
        unit = np.where(deviation > 0, deviation, 1.0)
        model = self._lasso(individual).fit(X / unit, np.concatenate(targets))
        self.alpha_ = model.alpha_ if self.alpha is None else self.alpha
        self.coef_, self.intercept_ = model.coef_ / unit, model.intercept_
        channels = range(np.shape(paths[0])[1])
        self.words_ = list(
            chain.from_iterable(product(channels, repeat=k) for k in range(1, self.depth + 1))
        )
        return self

    def _lasso(self, individual: np.ndarray) -> Lasso:
        if self.alpha is not None:
            return Lasso(self.alpha)
        count = min(self.max_folds, len(np.unique(individual)))
        if count < 2:
            raise OptionError("alpha cannot be chosen from a single individual; give alpha")
        # What is observed of one individual must not be on both sides.
        folds = GroupKFold(count).split(individual, groups=individual)
        # Iterated integrals are nearly collinear: a smaller gap costs long fits for no accuracy.
        return LassoCV(cv=list(folds), eps=1e-3, tol=1e-4)

    def transform(self, paths: Sequence[Any], times: Sequence[Any]) -> np.ndarray:
        """Return the signatures, which need no fit.

        Parameters
        ----------
        paths, times
            As for :meth:`predict`.

        Returns
        -------
        array of shape (n_times of all individuals, n_words)
            The signature of the path until each time.
        """
        found = [
            _increments(np.asarray(path, dtype=float), float(time), index)
            for index, (path, at) in enumerate(zip(paths, times, strict=True))
            for time in at
        ]
        widths = {increments.shape[1] for increments in found}
        if len(widths) != 1:
            raise DataError(f"paths need equally many columns, and a time; got {sorted(widths)}")
        padded = np.zeros((len(found), max(map(len, found)), widths.pop()))
        for row, increments in zip(padded, found, strict=True):
            row[: len(increments)] = increments
        return signature(padded, self.depth)

    def predict(self, paths: Sequence[Any], times: Sequence[Any]) -> list[np.ndarray]:
        """Predict the target of every individual.

        Parameters
        ----------
        paths : sequence of arrays of shape (n_observations, 1 + n_features)
            As for :meth:`fit`. Observations after a time are not used for it.
        times : sequence of arrays of shape (n_times,)
            When, for each individual.

        Returns
        -------
        list of arrays of shape (n_times,)
            Predictions.
        """
        check_is_fitted(self)
        X = self.transform(paths, times)
        if X.shape[1] != len(self.coef_):
            raise DataError(
                f"paths have {np.shape(paths[0])[1]} columns, the fitted ones had "
                f"{1 + max(self.words_[-1])}"
            )
        values = X @ self.coef_ + self.intercept_
        return np.split(values, np.cumsum([len(at) for at in times])[:-1])


def _increments(path: np.ndarray, time: float, index: int) -> np.ndarray:
    """Return the steps of a path from the origin to a time, its last values held until then."""
    if path.ndim != 2 or not np.all(np.isfinite(path)) or np.any(np.diff(path[:, 0]) <= 0):
        raise DataError(
            f"path {index}, of shape {path.shape}, must be a finite matrix whose first column, the "
            "times, increases"
        )
    past = path[path[:, 0] <= time]
    if len(past) == 0:
        raise DataError(f"path {index} has no observation by time {time}; leave that time out")
    end = np.append(time, past[-1, 1:])
    return np.diff(np.vstack([np.zeros(path.shape[1]), past, end]), axis=0)
