"""Sites: where a model's entries are dropped, and how large they were in calibration."""

from __future__ import annotations

__all__ = ["Site"]

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ..elementwise import ACTIVATIONS
from ..forms import Form, Kernel, TransposedKernel
from ..input_rows import InputRows
from ..layers import Layer
from ..statistics import Statistics
from .attached import INPUTS, attach, detach
from .selection import Selection


@dataclass(frozen=True)
class Site:
    """The inputs of a layer, or the outputs of one that an activation makes gates of.

    Parameters
    ----------
    layer : Layer
        What a selection is attached to.
    side : {"inputs", "outputs"}
        Of the layer.
    skipped : tuple of Layer
        Those whose weights need not be read where an entry is dropped.
    activation : str, optional
        What makes gates of outputs, see :data:`~thresher.parts.elementwise.ACTIVATIONS`.
    partner : Layer, optional
        Whose outputs the gates scale.
    """

    layer: Layer
    side: str
    skipped: tuple[Layer, ...]
    activation: str | None = None
    partner: Layer | None = None

    @classmethod
    def of_inputs(cls, layer: Layer) -> Site:
        """Return the site of a layer's inputs."""
        return cls(layer, INPUTS, (layer,))

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def positions(self) -> int:
        """Axes after the channels."""
        form = self.layer.form
        convolves = isinstance(form, Kernel | TransposedKernel)
        return len(form.module.kernel_size) if convolves else 0  # type: ignore[attr-defined]

    @property
    def weights(self) -> int:
        """Weights that would not be read if every entry were dropped."""
        return sum(layer.weight.numel() for layer in self.skipped)

    @property
    def channels(self) -> int:
        """Entries per token."""
        form = self.layer.form
        if isinstance(form, Kernel | TransposedKernel):
            return form.module.in_channels
        return self.layer.shape[-1 if self.side == INPUTS else -2]

    @property
    def watched(self) -> list[Layer]:
        """The layers whose inputs tell how large the entries are."""
        found = [self.layer, *([self.partner] if self.partner else [])]
        if self.positions:
            return [replace(each, form=_Channels(self.positions)) for each in found]
        return found

    def sizes(self, statistics: Mapping[str, Statistics]) -> torch.Tensor:
        """Return the sizes of entries in calibration, shape (rows, channels)."""
        rows = statistics[self.name][InputRows].value
        if self.side == INPUTS:
            return rows.abs()
        assert self.activation is not None
        return ACTIVATIONS[self.activation](self.layer.products(rows)).abs()

    def attach(self, selection: Selection) -> None:
        """Put a selection in the model."""
        attach(self.name, self.layer.module, selection, self.side)

    def remove(self) -> None:
        """Take it out again."""
        detach(self.layer.module, self.side)


@dataclass(frozen=True)
class _Channels(Form):
    """A convolution's input seen as one number per channel: its mean magnitude."""

    positions: int

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the outputs, and all inputs of each."""
        return (stored[0], math.prod(stored[1:]))

    def matrix(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the kernel as rows."""
        return stored.reshape(stored.shape[0], -1)

    def store(self, matrix: torch.Tensor, stored: tuple[int, ...]) -> torch.Tensor:
        """Undo :meth:`matrix`."""
        return matrix.reshape(stored)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return a row per image."""
        size = x.float().abs().flatten(-self.positions).mean(dim=-1)
        return size.reshape(-1, size.shape[-1])
