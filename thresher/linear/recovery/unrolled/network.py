"""What unrolled networks share: checked data, batches of training, and what layers put out."""

from __future__ import annotations

__all__ = ["UnrolledNetwork"]

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from ....core.errors import DataError, NumericalError
from ....core.options import check_number, check_whole


class UnrolledNetwork(BaseEstimator, ABC):
    """A network that recovers ``x`` from ``b = A x`` in layers, trained for one matrix.

    A subclass has the options `updates`, `batch_size` and `learning_rate`, and its ``fit``
    keeps the matrix as the tensor ``_matrix``.
    """

    updates: int
    batch_size: int
    learning_rate: float
    _matrix: torch.Tensor

    @abstractmethod
    def _layers(self, measured: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield what every layer puts out, of shape (n_samples, n)."""

    @staticmethod
    def _checked(A: Any, B: Any, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the matrix, measurements and true vectors (None if not given) as arrays."""
        A, B = check_array(A, dtype=np.float64), check_array(B, dtype=np.float64)
        if B.shape[1] != len(A):
            raise DataError(f"A has {len(A)} rows but measurements have {B.shape[1]} entries")
        if X is not None:
            X = check_array(X, dtype=np.float64)
            if X.shape != (len(B), A.shape[1]):
                raise DataError(f"X has shape {X.shape}, A and B need {(len(B), A.shape[1])}")
        return A, B, X

    def _descend(
        self,
        parameters: Iterable[Any],
        data: tuple[torch.Tensor, ...],
        loss: Callable[..., torch.Tensor],
        batches: torch.Generator,
    ) -> None:
        """Take `updates` steps of Adam on the loss of random rows of the data.

        Raises
        ------
        NumericalError
            If the loss became infinite or NaN.
        """
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
        try:
            for _ in range(self.updates):
                rows = torch.randint(len(data[0]), (self.batch_size,), generator=batches)
                value = loss(*(part[rows] for part in data))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            with torch.no_grad():
                reached = float(loss(*(part[: self.batch_size] for part in data)))
        except torch.linalg.LinAlgError:  # an infinite system inside the network
            reached = math.nan
        if not math.isfinite(reached):
            raise NumericalError(
                f"training diverged, the loss became {reached}; lower learning_rate, which is "
                f"{self.learning_rate}"
            )

    def _check_training(self) -> None:
        check_whole("updates", self.updates, least=0)
        check_whole("batch_size", self.batch_size)
        check_number("learning_rate", self.learning_rate, above=0.0)
        check_whole("random_state", self.random_state, least=0)

    def layers(self, B: Any) -> list[np.ndarray]:
        """Return what every layer puts out for measurements `B`, each of shape (n_samples, n)."""
        check_is_fitted(self)
        B = check_array(B, dtype=np.float64)
        if B.shape[1] != len(self._matrix):
            raise DataError(f"B has {B.shape[1]} columns, the matrix {len(self._matrix)} rows")
        measured = torch.tensor(B, dtype=torch.float32)
        with torch.no_grad():
            return [x.numpy() for x in self._layers(measured)]

    def predict(self, B: Any) -> np.ndarray:
        """Recover the vector of every measurement.

        Parameters
        ----------
        B : array of shape (n_samples, m)
            Measurements.

        Returns
        -------
        array of shape (n_samples, n)
            Vectors.
        """
        return self.layers(B)[-1]
