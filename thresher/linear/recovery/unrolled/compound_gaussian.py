"""The compound Gaussian alternation unrolled into layers, with a learned prior on the scale."""

from __future__ import annotations

__all__ = ["CompoundGaussianNetwork"]

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from ....core.card import Card, Catalogued
from ....core.errors import DataError, OptionError
from ....core.options import check_number, check_whole
from .network import UnrolledNetwork


class CompoundGaussianNetwork(Catalogued, UnrolledNetwork):
    """Recovery from ``b = A x`` by a few rounds of a compound Gaussian alternation (DR-CG-Net).

    With ``x = z * u``, every round takes `steps` projected gradient steps on the non-negative
    scale ``z``, of the misfit ``||b - A (z * u)||^2 / 2`` with a learned step, and of the prior
    by what a small convolutional network makes of ``z``; then it solves for the Gaussian
    factor ``u`` exactly, a Tikhonov problem with a learned diagonal covariance. Before
    training the convolutions put out zero. Measurements are brought to unit norm on their way
    in, and their vectors back, so that the network is the same for all scales.

    Parameters
    ----------
    n_layers : int, default 3
        Rounds.
    steps : int, default 2
        Gradient steps on the scale per round, each with convolutions of its own.
    shape : tuple of int, optional
        The grid of one or two dimensions that the entries of ``x`` lie on, to convolve over;
        one dimension by default.
    channels : int, default 8
        Channels of the convolutions.
    alpha : float, default 0.01
        Ridge on ``u`` that training starts from, positive, for measurements of unit norm.
    updates : int, default 300
        Steps of Adam.
    batch_size : int, default 20
        Training samples of an update.
    learning_rate : float, default 1e-3
        Of the convolutions; the logarithms of steps and variances learn ten times as fast.
    random_state : int, default 0
        Convolutions and batches.

    Attributes
    ----------
    variances_ : array of shape (n,)
        The learned prior variances of ``u``.

    Raises
    ------
    OptionError
        If an option is out of range or `shape` does not hold the entries.
    DataError
        If shapes of the data do not match.
    NumericalError
        If training diverged.

    References
    ----------
    Lyons, Raj and Cheney, Deep regularized compound Gaussian network for solving linear
    inverse problems (2023), section 4, the variant with projected gradient steps. One
    covariance is shared by all rounds, and the first scale is the one that
    :class:`~thresher.linear.recovery.compound_gaussian.CompoundGaussian` starts from.
    """

    card = Card(
        name="compound-gaussian-network",
        title="Deep Regularized Compound Gaussian Network for Solving Linear Inverse Problems",
        authors="Carter Lyons, Raghu G. Raj, Margaret Cheney",
        year=2023,
        arxiv="2311.17248",
        summary="compound Gaussian recovery as a network that learns the prior from few examples",
    )

    def __init__(
        self,
        n_layers: int = 3,
        *,
        steps: int = 2,
        shape: tuple[int, ...] | None = None,
        channels: int = 8,
        alpha: float = 0.01,
        updates: int = 300,
        batch_size: int = 20,
        learning_rate: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.n_layers = n_layers
        self.steps = steps
        self.shape = shape
        self.channels = channels
        self.alpha = alpha
        self.updates = updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, A: Any, B: Any, X: Any) -> CompoundGaussianNetwork:
        """Train the network.

        Parameters
        ----------
        A : array of shape (m, n)
            The matrix.
        B : array of shape (n_samples, m)
            Measurements to train on, none of them zero.
        X : array of shape (n_samples, n)
            The vectors that were measured.

        Returns
        -------
        self
            Trained.
        """
        A, B, X = self._checked(A, B, X)
        if X is None:
            raise DataError("training needs the true vectors X")
        grid = (A.shape[1],) if self.shape is None else tuple(self.shape)
        self._check_options(grid, A.shape[1])
        if not np.all(np.any(B, axis=1)):
            raise DataError(f"measurement {int(np.argmin(np.any(B, axis=1)))} is all zero")
        self._matrix = torch.tensor(A, dtype=torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            self._network = _Rounds(self._matrix, self, grid)
        data = tuple(torch.tensor(a, dtype=torch.float32) for a in (B, X))
        batches = torch.Generator().manual_seed(self.random_state)
        logarithms = [self._network.log_steps, self._network.log_variances]
        groups = [
            {"params": self._network.priors.parameters()},
            {"params": logarithms, "lr": 10 * self.learning_rate},
        ]
        self._descend(groups, data, self._error, batches)
        self.variances_ = self._network.variances().detach().numpy()
        return self

    def _check_options(self, grid: tuple[int, ...], size: int) -> None:
        for name in ("n_layers", "steps", "channels"):
            check_whole(name, getattr(self, name))
        self._check_training()
        check_number("alpha", self.alpha, above=0.0)
        if len(grid) not in (1, 2) or int(np.prod(grid)) != size:
            raise OptionError(
                f"shape {grid} must have one or two dimensions and hold {size} entries"
            )

    def _error(self, measured: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error relative to the squared norm of the measurement."""
        *_, found = self._layers(measured)
        return (((found - truth) / _norm(measured)) ** 2).sum(dim=1).mean()

    def _layers(self, measured: torch.Tensor) -> Iterator[torch.Tensor]:
        norm = _norm(measured)
        for x in self._network(measured / norm):
            yield x * norm


def _norm(measured: torch.Tensor) -> torch.Tensor:
    """Return the norm of every measurement as a column, that of zero as one."""
    norm = measured.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, norm, torch.ones_like(norm))


class _Rounds(nn.Module):
    """The layers, for measurements of unit norm.

    Parameters
    ----------
    matrix : Tensor of shape (m, n)
        The matrix.
    options : CompoundGaussianNetwork
        How many rounds, steps and channels, and the first ridge.
    grid : tuple of int
        Shape of the entries.
    """

    def __init__(
        self, matrix: torch.Tensor, options: CompoundGaussianNetwork, grid: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.matrix, self.grid = matrix, grid
        self.curvature = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
        self.log_steps = nn.Parameter(torch.zeros(options.n_layers, options.steps))
        start = -float(np.log(options.alpha))
        self.log_variances = nn.Parameter(torch.full((matrix.shape[1],), start))
        count = options.n_layers * options.steps
        made = [_convolutions(len(grid), options.channels) for _ in range(count)]
        self.priors = nn.ModuleList(made)

    def variances(self) -> torch.Tensor:
        """Return the prior variances of the Gaussian factor."""
        return torch.exp(self.log_variances)

    def forward(self, measured: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the recovered vectors after every round."""
        z = (measured @ self.matrix).abs() ** (2 / 3)
        u = self.texture(z, measured)
        priors = iter(self.priors)
        for steps in torch.exp(self.log_steps):
            for step in steps:
                slope = (((z * u) @ self.matrix.T - measured) @ self.matrix) * u
                # At most the curvature of the misfit in z.
                limit = self.curvature * (u**2).amax(dim=1, keepdim=True).clamp_min(1e-12)
                learned = next(priors)(z.reshape(-1, 1, *self.grid)).reshape(z.shape)
                z = torch.relu(z - step / limit * slope + learned)
            u = self.texture(z, measured)
            yield z * u

    def texture(self, z: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        """Minimise ``||b - A (z * u)||^2 / 2 + u' P^-1 u / 2`` through an m x m system."""
        spread = self.variances() * z
        gram = (self.matrix * (z * spread)[:, None, :]) @ self.matrix.T
        factor = torch.linalg.cholesky(gram + torch.eye(len(self.matrix)))
        return spread * (torch.cholesky_solve(measured[:, :, None], factor)[:, :, 0] @ self.matrix)


def _convolutions(dimensions: int, channels: int) -> nn.Sequential:
    """Return three convolutions of width three that put out zero until they are trained."""
    convolution = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    last = convolution(channels, 1, 3, padding=1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(
        convolution(1, channels, 3, padding=1), nn.ReLU(),
        convolution(channels, channels, 3, padding=1), nn.ReLU(), last,
    )  # fmt: skip
