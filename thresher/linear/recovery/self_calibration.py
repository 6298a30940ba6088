"""Gains of the sensors and the signal at once, by one linear least squares problem."""

from __future__ import annotations

__all__ = ["SelfCalibration"]

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ...core.card import Card, Catalogued
from ...core.errors import DataError, NumericalError, OptionError


class SelfCalibration(Catalogued, BaseEstimator):
    """Recovers gains ``d`` and signals ``x`` from ``y_l = diag(d) A_l x + noise``.

    With the inverse gains ``s = 1 / d`` the equations ``diag(y_l) s = A_l x`` are linear.
    They fix ``s`` and ``x`` up to a common factor, which is chosen such that the inverse
    gains have mean one.

    Parameters
    ----------
    method : {"least-squares", "spectral"}, default "least-squares"
        Least squares adds the row ``mean(s) = 1`` to the equations; the spectral method takes
        their right singular vector of the smallest singular value instead, which needs no
        row but costs more.
    shared_signal : bool, default True
        Whether all measurements see one signal (repeated measurements); otherwise every
        ``y_l`` has an ``x_l`` of its own (several snapshots, or blind deconvolution with
        diverse inputs).
    basis : array of shape (n, k), optional
        Its columns span the inverse gains; by default every gain is free.

    Attributes
    ----------
    gains_ : array of shape (n,)
        The gains ``d``.
    coef_ : array of shape (p,) or (n_measurements, p)
        The signal, or one signal per measurement.

    Raises
    ------
    OptionError
        If `method` is unknown, or `basis` has another number of rows than a measurement.
    DataError
        If shapes do not fit, values are not finite, or there are fewer equations than unknowns.
    NumericalError
        If the equations leave more free than the common factor, or the mean inverse gain is
        zero.

    References
    ----------
    Ling and Strohmer, Self-calibration and bilinear inverse problems via linear least squares
    (2016), sections 2 and 3; Balzano and Nowak, Blind calibration of sensor networks (2007),
    for the inverse gains as unknowns.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import SelfCalibration
    >>> rng = np.random.default_rng(0)
    >>> A, x = rng.standard_normal((3, 20, 4)), np.array([1.0, -2.0, 0.5, 3.0])
    >>> gains = 1 / rng.uniform(0.5, 1.5, 20)
    >>> model = SelfCalibration().fit(A, gains * (A @ x))
    >>> (model.coef_ / model.coef_[0]).round(6)
    array([ 1. , -2. ,  0.5,  3. ])
    """

    card = Card(
        name="self-calibration",
        title="Self-Calibration and Bilinear Inverse Problems via Linear Least Squares",
        authors="Shuyang Ling, Thomas Strohmer",
        year=2016,
        arxiv="1611.04196",
        summary="unknown gains and signal from one linear least squares problem",
    )

    def __init__(
        self,
        method: str = "least-squares",
        *,
        shared_signal: bool = True,
        basis: Any = None,
    ) -> None:
        self.method = method
        self.shared_signal = shared_signal
        self.basis = basis

    def fit(self, A: Any, Y: Any) -> SelfCalibration:
        """Recover gains and signals.

        Parameters
        ----------
        A : array of shape (n, p) or (n_measurements, n, p)
            The known part of the sensing, real or complex: one matrix for all measurements
            or one for each.
        Y : array of shape (n,) or (n_measurements, n)
            What was measured.

        Returns
        -------
        self
            Fitted.
        """
        if self.method not in ("least-squares", "spectral"):
            raise OptionError(f"method must be 'least-squares' or 'spectral', got {self.method!r}")
        A, Y = _checked(A, Y)
        count, n = Y.shape
        basis = np.eye(n) if self.basis is None else np.asarray(self.basis)
        if basis.ndim != 2 or len(basis) != n:
            raise OptionError(f"basis has shape {basis.shape}, a measurement has {n} entries")
        # In these units both blocks of columns have the same size, so that the spectral
        # method, which weighs unknowns alike, does not depend on the units of A and y.
        units = float(np.sqrt(np.mean(np.abs(Y) ** 2))), float(np.sqrt(np.mean(np.abs(A) ** 2)))
        system = _equations(A / units[1], Y / units[0], basis, self.shared_signal)
        if len(system) < system.shape[1] - 1:
            raise DataError(
                f"{len(system)} equations for {system.shape[1]} unknowns; measure more often, or "
                "give a basis of the gains"
            )
        mean = np.concatenate(
            [basis.mean(axis=0), np.zeros(system.shape[1] - basis.shape[1])]
        )  # of the inverse gains, as a function of the unknowns
        solve = _least_squares if self.method == "least-squares" else _smallest_singular_vector
        found = solve(system, mean)
        total = mean @ found
        if abs(total) < 1e-12 * np.linalg.norm(found):
            raise NumericalError(
                "the inverse gains found have mean zero, so that they cannot be normalised"
            )
        found = found / total
        self.gains_ = 1 / (basis @ found[: basis.shape[1]])
        signals = found[basis.shape[1] :] * (units[0] / units[1])
        self.coef_ = signals if self.shared_signal else signals.reshape(count, -1)
        return self


def _checked(A: Any, Y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return one matrix and one row of measurements for each measurement."""
    A, Y = np.asarray(A), np.atleast_2d(np.asarray(Y))
    if A.ndim == 2:
        A = np.broadcast_to(A, (len(Y), *A.shape))
    if A.ndim != 3 or Y.ndim != 2 or A.shape[:2] != Y.shape:
        raise DataError(
            f"A of shape {A.shape} does not fit Y of shape {Y.shape}; need (n_measurements, n, p) "
            "and (n_measurements, n)"
        )
    if not (np.all(np.isfinite(A)) and np.all(np.isfinite(Y))):
        raise DataError("A or Y hold NaN or infinite values; remove them")
    silent = np.flatnonzero(~np.any(Y, axis=0))
    if len(silent):
        raise DataError(f"sensor {silent[0]} measured nothing but zeros; leave it out")
    return A, Y


def _equations(A: np.ndarray, Y: np.ndarray, basis: np.ndarray, shared: bool) -> np.ndarray:
    """Return the matrix of ``diag(y_l) B s - A_l x_l = 0`` for the unknowns ``(s, x)``."""
    count, n, p = A.shape
    gains = (Y[:, :, None] * basis).reshape(count * n, -1)
    if shared:
        return np.hstack([gains, -A.reshape(count * n, p)])
    signals = np.zeros((count, n, count, p), dtype=A.dtype)
    signals[np.arange(count), :, np.arange(count)] = -A
    return np.hstack([gains, signals.reshape(count * n, count * p)])


def _least_squares(system: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Solve the equations with the row ``mean @ unknowns = 1``.

    The weight of the row changes the length of the solution, but not its direction.
    """
    weight = np.linalg.norm(system)
    target = np.zeros(len(system) + 1)
    target[-1] = weight
    found, _, rank, _ = np.linalg.lstsq(np.vstack([system, weight * mean]), target, rcond=None)
    if rank < system.shape[1]:
        raise NumericalError(_UNDETERMINED)
    return found


def _smallest_singular_vector(system: np.ndarray, mean: np.ndarray) -> np.ndarray:
    rows = system if len(system) >= system.shape[1] else np.vstack([system, 0 * mean])
    _, values, vectors = np.linalg.svd(rows, full_matrices=False)
    if values[-2] <= np.finfo(float).eps * max(rows.shape) * values[0]:
        raise NumericalError(_UNDETERMINED)
    return vectors[-1].conj()


_UNDETERMINED = (
    "the equations leave more free than the common factor of gains and signal; measure more "
    "often, with other matrices"
)
