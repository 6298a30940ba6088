"""ISTA and IHT unrolled into layers, trained towards the truth or towards the objective."""

from __future__ import annotations

__all__ = ["UnfoldedThresholding"]

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ....core import prox
from ....core.card import Card, Catalogued
from ....core.errors import DataError, OptionError, nearest
from ....core.options import check_number, check_whole
from ....core.top_k import top_k_mask
from ..hyper_lista import analytic_weight
from .network import UnrolledNetwork

_PENALTIES = ("l1", "l0")
_LOSSES = ("supervised", "unsupervised")


class UnfoldedThresholding(Catalogued, UnrolledNetwork):
    """Sparse recovery from ``b = A x`` by a network whose layers are steps of ISTA or IHT.

    Every layer takes a gradient step on ``||b - A x||^2 / 2`` and thresholds, softly for the
    L1 norm and hard for the number of non-zeros. Its step is trained, and so is its soft
    threshold; a hard one, which has no gradient, follows the step as in the plain iteration.
    Layers start as that iteration and are trained one after the other, each time together
    with all earlier ones.

    Parameters
    ----------
    n_layers : int, default 10
        Layers.
    penalty : {"l1", "l0"}, default "l1"
        What the objective adds to the squared residual, `alpha` times.
    loss : {"supervised", "unsupervised"}, default "supervised"
        Whether training lowers the squared error, which needs the true vectors, or the
        objective, which needs measurements only.
    alpha : float, default 0.1
        Strength of the penalty.
    analytic : bool, default False
        Whether the residual is multiplied by the analytic companion of A instead of A itself;
        with the L1 norm and the supervised loss the network is then ALISTA.
    selection : (float, float), default (0.0, 0.0)
        Support selection, for the L1 norm: every layer leaves this share more of the entries
        unshrunk, those that are largest and pass the threshold, up to the second share.
        ``(0.012, 0.12)`` suits vectors with a tenth of non-zeros; by default all are shrunk.
    updates : int, default 100
        Steps of Adam after each layer is added.
    batch_size : int, default 100
        Training samples of an update.
    learning_rate : float, default 0.02
        Of the logarithms of steps and thresholds.
    random_state : int, default 0
        Batches.

    Attributes
    ----------
    steps_, thresholds_ : arrays of shape (n_layers,)
        What was trained.

    Raises
    ------
    OptionError
        If an option is unknown or out of range.
    DataError
        If shapes do not match, or the true vectors are missing for the supervised loss.
    NumericalError
        If training diverged.

    References
    ----------
    Nagahisa, Hayakawa and Iiguni, Comparison between supervised and unsupervised learning in
    deep unfolded sparse signal recovery (2025), arXiv:2509.01331, for the two losses.

    Ito, Takabe and Wadayama, Trainable ISTA for sparse signal recovery (2019), for training
    layer after layer; Chen, Liu, Wang and Yin, Theoretical linear convergence of unfolded
    ISTA and its practical weights and thresholds (2018), for support selection.
    """

    card = Card(
        name="unfolded-thresholding",
        title=(
            "Comparison between Supervised and Unsupervised Learning in Deep Unfolded Sparse "
            "Signal Recovery"
        ),
        authors="Koshi Nagahisa, Ryo Hayakawa, Youji Iiguni",
        year=2025,
        arxiv="2509.01331",
        summary="ISTA and IHT as networks, trained towards the truth or the objective",
    )

    def __init__(
        self,
        n_layers: int = 10,
        *,
        penalty: str = "l1",
        loss: str = "supervised",
        alpha: float = 0.1,
        analytic: bool = False,
        selection: tuple[float, float] = (0.0, 0.0),
        updates: int = 100,
        batch_size: int = 100,
        learning_rate: float = 0.02,
        random_state: int = 0,
    ) -> None:
        self.n_layers = n_layers
        self.penalty = penalty
        self.loss = loss
        self.alpha = alpha
        self.analytic = analytic
        self.selection = selection
        self.updates = updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, A: Any, B: Any, X: Any = None) -> UnfoldedThresholding:
        """Train the layers.

        Parameters
        ----------
        A : array of shape (m, n)
            The matrix.
        B : array of shape (n_samples, m)
            Measurements to train on.
        X : array of shape (n_samples, n), optional
            The vectors that were measured; for the supervised loss.

        Returns
        -------
        self
            Trained.
        """
        self._check_options()
        A, B, X = self._checked(A, B, X)
        if X is None and self.loss == "supervised":
            raise DataError("the supervised loss needs the true vectors X")
        weight = analytic_weight(A) if self.analytic else A
        step = 1.0 if self.analytic else 1 / np.linalg.norm(A, 2) ** 2
        self._matrix, self._weight = (torch.tensor(a, dtype=torch.float32) for a in (A, weight))
        # Logarithms of steps and of soft thresholds.
        start = torch.log(torch.tensor([step, self.alpha * step], dtype=torch.float32))
        self._logarithms = start.repeat(self.n_layers, 1).requires_grad_()
        supervised = self.loss == "supervised"
        data = tuple(torch.tensor(a, dtype=torch.float32) for a in ((B, X) if supervised else (B,)))
        loss = self._supervised if supervised else self._unsupervised
        batches = torch.Generator().manual_seed(self.random_state)
        for depth in range(1, self.n_layers + 1):
            self._depth = depth
            self._descend([self._logarithms], data, loss, batches)
        with torch.no_grad():
            self.steps_, self.thresholds_ = (a.numpy() for a in self._parameters())
        return self

    def _check_options(self) -> None:
        for value, known in ((self.penalty, _PENALTIES), (self.loss, _LOSSES)):
            if value not in known:
                raise OptionError(f"there is no {value!r} here; {nearest(value, known)}")
        check_whole("n_layers", self.n_layers)
        check_number("alpha", self.alpha, above=0.0)
        shares = np.asarray(self.selection, dtype=float)
        if shares.shape != (2,) or not 0 <= shares[0] <= shares[1] <= 1:
            raise OptionError(
                "selection must be two shares in [0, 1], what each layer adds and the most, got "
                f"{self.selection}"
            )
        if shares[0] and self.penalty != "l1":
            raise OptionError("selection is for the 'l1' penalty; hard thresholds shrink nothing")
        self._check_training()

    def _supervised(self, measured: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        *_, found = self._layers(measured)
        return ((found - truth) ** 2).sum(dim=1).mean()

    def _unsupervised(self, measured: torch.Tensor) -> torch.Tensor:
        *_, found = self._layers(measured)
        return self._objective(measured, found).mean()

    def _objective(self, measured: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        squares = ((measured - x @ self._matrix.T) ** 2).sum(dim=1) / 2
        size = x.abs() if self.penalty == "l1" else (x != 0).float()
        return squares + self.alpha * size.sum(dim=1)

    def _parameters(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the steps and thresholds of the layers that there are so far."""
        steps, thresholds = torch.exp(self._logarithms[: self._depth]).T
        if self.penalty == "l0":  # whether an entry passes has no gradient; the step decides
            thresholds = torch.sqrt(2 * self.alpha * steps)
        return steps, thresholds

    def _layers(self, measured: torch.Tensor) -> Iterator[torch.Tensor]:
        threshold = prox.soft if self.penalty == "l1" else prox.hard
        x = torch.zeros(len(measured), self._matrix.shape[1])
        for layer, (step, level) in enumerate(zip(*self._parameters(), strict=True), 1):
            residual = measured - x @ self._matrix.T
            moved = x + step * (residual @ self._weight)
            x = threshold(moved, level)
            unshrunk = round(min(layer * self.selection[0], self.selection[1]) * x.shape[1])
            if unshrunk:
                # Those that do not pass the threshold are zero either way.
                x = torch.where(top_k_mask(x.abs(), unshrunk) & (x != 0), moved, x)
            yield x

    def objective(self, B: Any, X: Any) -> np.ndarray:
        """Return what the unsupervised loss averages, for measurements and any vectors.

        Parameters
        ----------
        B : array of shape (n_samples, m)
            Measurements.
        X : array of shape (n_samples, n)
            Vectors.

        Returns
        -------
        array of shape (n_samples,)
            Half the squared residual plus the penalty.
        """
        check_is_fitted(self)
        arrays = (torch.tensor(np.asarray(a), dtype=torch.float32) for a in (B, X))
        return self._objective(*arrays).numpy()
