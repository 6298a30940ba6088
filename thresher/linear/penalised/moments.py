"""Least squares of which only the products of the columns are known."""

from __future__ import annotations

__all__ = ["design_of_moments"]

from typing import Any

import numpy as np

from ...core.errors import DataError

_ROUNDING = 1e-10  # of the largest eigenvalue: what is below is taken for zero


def design_of_moments(gram: Any, correlations: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return features and a target that have given products, to fit in place of the samples.

    Where samples are too many to hold, or may not leave the place where they are, their products
    can be summed up. A model of squares, fitted to what this returns with ``fit_intercept=False``,
    has the coefficients that it would have on the samples (centred, if they were).

    Parameters
    ----------
    gram : array of shape (p, p)
        ``X.T @ X / n``.
    correlations : array of shape (p,) or (p, outputs)
        ``X.T @ y / n``.

    Returns
    -------
    X : array of shape (rank, p)
        Features with this Gram matrix, ``X.T @ X / rank``.
    y : array of shape (rank,) or (rank, outputs)
        Target with these correlations: the part of the target that the features explain.

    Raises
    ------
    DataError
        If the Gram matrix is not symmetric, has a negative eigenvalue or another size than the
        correlations; if a correlation has no place in the span of its columns.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import Lasso, design_of_moments
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 3))
    >>> y = X @ [1.0, 0.0, -2.0]
    >>> moments = design_of_moments(X.T @ X / 1000, X.T @ y / 1000)
    >>> one = Lasso(alpha=0.1, fit_intercept=False).fit(*moments).coef_
    >>> np.allclose(one, Lasso(alpha=0.1, fit_intercept=False).fit(X, y).coef_, atol=1e-3)
    True
    """
    matrix, products = np.asarray(gram, dtype=float), np.asarray(correlations, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise DataError(f"gram must be a square matrix, got shape {matrix.shape}")
    if products.ndim not in (1, 2) or len(products) != len(matrix):
        raise DataError(
            f"correlations has shape {products.shape}, gram has {len(matrix)} columns; give one "
            "row for each"
        )
    if not (np.all(np.isfinite(matrix)) and np.all(np.isfinite(products))):
        raise DataError("gram or correlations hold NaN or infinite values")
    if not np.allclose(matrix, matrix.T, atol=_ROUNDING * np.abs(matrix).max()):
        raise DataError("gram is not symmetric; it must be X.T @ X / n")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    floor = _ROUNDING * max(float(np.abs(values).max()), 1e-300)
    if values[0] < -floor:
        raise DataError(
            f"gram has the negative eigenvalue {values[0]:.3g}, so that it is no X.T @ X / n of "
            "any samples"
        )
    kept = values > floor
    rotated = vectors.T @ products
    lost = np.abs(rotated[~kept]).max(initial=0.0)
    if lost > 1e-6 * max(float(np.abs(rotated).max()), 1e-300):
        raise DataError(
            f"correlations of {lost:.3g} lie outside the span of gram's columns; both must come "
            "from the same samples"
        )
    if not kept.any():
        return np.zeros((1, len(matrix))), np.zeros((1, *products.shape[1:]))
    roots = np.sqrt(values[kept] * kept.sum())
    X = roots[:, None] * vectors[:, kept].T
    y = (rotated[kept].T * kept.sum() / roots).T
    return X, y
