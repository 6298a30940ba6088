"""Sparse Bayesian recovery where dictionary and support are Kronecker products."""

from __future__ import annotations

__all__ = ["KroneckerBayes"]

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ...core.card import Card, Catalogued
from ...core.errors import DataError, OptionError
from ...core.options import check_number, check_whole
from ..recovery.kronecker_pursuit import checked_factors
from .em import exact_expectation, maximise_evidence


class KroneckerBayes(Catalogued, BaseEstimator):
    """Recovers ``x`` from ``y = kron(H_1, ..., H_m) x + noise`` by sparse Bayesian learning.

    The prior variances of ``x`` are themselves a Kronecker product of one non-negative
    vector per factor, so that the support is one too: the product of the sets of columns
    that the factors use.

    Parameters
    ----------
    update : {"svd", "alternating"}, default "svd"
        How the M-step finds the vectors. ``"alternating"`` minimises its objective
        ``sum(log g + d / g)`` over one vector after the other, and the evidence never
        falls. ``"svd"`` takes the nearest rank-one tensor to ``d``, the unconstrained
        minimiser: an approximation, and faster; its evidence measures what that costs.
    tol : float, default 1e-4
        Stop when the coefficients change by less than this, relative to their norm.
    max_iter : int, default 300
        Most rounds.

    Attributes
    ----------
    coef_ : array of shape (p_1 * ... * p_m,)
        Posterior mean of ``x``.
    factors_ : list of arrays of shape (p_i,)
        Prior variances per factor, of unit norm but for the first.
    noise_variance_ : float
        Variance of the noise.
    n_iter_ : int
        Rounds.

    Raises
    ------
    OptionError
        If `update` is unknown, `tol` negative, or `max_iter` not a whole number of at least one.
    DataError
        If there is no factor, the shapes do not fit, `y` is all zero, or values are NaN or
        infinite.

    Notes
    -----
    The E-step forms the whole dictionary ``kron(H_1, ..., H_m)`` and factorises the
    covariance of all measurements in every round: the structure serves recovery, not memory
    or time. The paper's extension of the alternating update to block-sparse factors is not
    built.

    References
    ----------
    He and Joseph, Bayesian algorithms for Kronecker-structured sparse vector recovery with
    application to IRS-MIMO channel estimation (2023), arXiv:2307.14719, for the alternating and
    the SVD-based M-step.
    """

    card = Card(
        name="kronecker-bayes",
        title=(
            "Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With "
            "Application to IRS-MIMO Channel Estimation"
        ),
        authors="Yanbin He, Geethu Joseph",
        year=2023,
        arxiv="2307.14719",
        summary="sparse Bayesian learning with Kronecker-structured prior variances",
    )

    def __init__(self, update: str = "svd", *, tol: float = 1e-4, max_iter: int = 300) -> None:
        self.update = update
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, factors: Sequence[Any], y: Any) -> KroneckerBayes:
        """Recover the vector.

        Parameters
        ----------
        factors : sequence of arrays of shape (n_i, p_i)
            The factors of the dictionary.
        y : array of shape (n_1 * ... * n_m,)
            What was measured.

        Returns
        -------
        self
            With the posterior in the attributes.

        Warns
        -----
        ConvergenceWarning
            If the coefficients did not settle.
        """
        if self.update not in ("svd", "alternating"):
            raise OptionError(f"update must be 'svd' or 'alternating', got {self.update!r}")
        check_number("tol", self.tol)
        check_whole("max_iter", self.max_iter)
        matrices, y = checked_factors(factors, y)
        if not np.any(y):
            raise DataError("y is all zero; there is nothing to recover")
        dictionary = functools.reduce(np.kron, matrices)
        shape = [m.shape[1] for m in matrices]
        vectors = [np.ones(size) for size in shape]

        def update(moments: np.ndarray) -> np.ndarray:
            step = _nearest_product if self.update == "svd" else _best_product
            vectors[:] = step(moments.reshape(shape), vectors)
            return functools.reduce(np.kron, vectors)

        found = maximise_evidence(
            dictionary, y, exact_expectation(dictionary, y), update, self.tol, self.max_iter
        )
        found.warn_unless_converged(self.tol)
        self.coef_, self.noise_variance_, self.n_iter_ = found.mean, found.noise, found.n_iter
        self.factors_ = vectors
        return self


def _contract(tensor: np.ndarray, vectors: Sequence[np.ndarray], skip: int) -> np.ndarray:
    """Return the tensor times every vector but one: a vector along that axis."""
    for axis in reversed(range(tensor.ndim)):
        if axis != skip:
            tensor = np.tensordot(tensor, vectors[axis], axes=(axis, 0))
    return tensor


def _nearest_product(moments: np.ndarray, vectors: list[np.ndarray]) -> list[np.ndarray]:
    """Return the factors of the nearest rank-one tensor.

    For two factors this is the leading singular pair; for more the leading left singular
    vector of every unfolding (a truncated higher-order SVD).
    """
    found = []
    for axis, size in enumerate(moments.shape):
        unfolding = np.moveaxis(moments, axis, 0).reshape(size, -1)
        # Perron and Frobenius: the leading vector of a non-negative matrix can be chosen so.
        found.append(np.abs(np.linalg.svd(unfolding, full_matrices=False)[0][:, 0]))
    found[0] = found[0] * float(_contract(moments, found, 0) @ found[0])
    return found


def _best_product(
    moments: np.ndarray, vectors: list[np.ndarray], sweeps: int = 5
) -> list[np.ndarray]:
    """Lower ``sum(log g + moments / g)`` over one factor of ``g`` after the other.

    With the others fixed, entry j of a factor is best at the mean of the moments of its
    slice, each divided by the product of the other factors.
    """
    found = [np.maximum(vector, 1e-12 * vector.max()) for vector in vectors]
    for _ in range(sweeps):
        for axis, size in enumerate(moments.shape):
            others = moments.size // size
            best = _contract(moments, [1 / vector for vector in found], axis) / others
            found[axis] = np.maximum(best, 1e-12 * best.max())
    scales = [float(np.linalg.norm(vector)) for vector in found]
    found = [vector / scale for vector, scale in zip(found, scales, strict=True)]
    found[0] = found[0] * float(np.prod(scales))
    return found
