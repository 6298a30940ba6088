"""Layers that are given one frame of a clip after another, and compute what changed."""

from __future__ import annotations

__all__ = ["DeltaConv2d", "DeltaLayer", "DeltaLinear"]

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

from ..core.errors import DataError, LayerError
from ..parts.activations.attached import Tally
from ..parts.activations.rounded import Rounded
from ..run.layouts.convolution import Geometry
from .partial_conv import convolve_at, pixels_of, windows


class DeltaLayer(nn.Module):
    """Holds a frame's rounded input and what it gave, and changes that by the next frame's.

    What is held is no part of the model's state: it is neither saved nor copied, and is gone when
    the model is moved or converted. It is a matter of cost alone; what a frame gives does not
    depend on the frames before it.

    Parameters
    ----------
    layer : nn.Module
        Whose weight and bias it shares.
    rounding : Rounded
        Of its inputs.

    Attributes
    ----------
    place : str
        Path in the model, for messages.
    operands : Tally
        Entries of inputs that came, and how many of them had not changed.
    products : Tally
        Products that a dense layer computes, and how many of them were left out.
    """

    def __init__(self, layer: Any, rounding: Rounded) -> None:
        super().__init__()
        self.weight, self.bias, self.rounding = layer.weight, layer.bias, rounding
        self.place = rounding.place.rpartition(".")[0]
        self.operands, self.products = Tally(), Tally()
        self.train(layer.training)
        self.reset()

    def reset(self) -> None:
        """Forget the frame before: the next one is the first of a clip."""
        self._last: torch.Tensor | None = None
        self._given: torch.Tensor | None = None
        self._of: tuple[int, ...] = ()

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the dense layer gives of the rounded input of one frame, without gradients.

        Raises
        ------
        LayerError
            If it is in training mode, or its weights changed within a clip.
        DataError
            If there is not one frame, the size changes within a clip, or a linear layer is given
            what is not finite.
        """
        self._check(x)
        rounded = self.rounding(x)
        if self._last is None or self._given is None:
            self._last, self._given = torch.zeros_like(rounded), self._start(rounded)
            self._of = self._versions()
        delta = rounded - self._last
        self.operands.zeros += int((delta == 0).sum())
        self.operands.entries += delta.numel()
        self._update(self._given, rounded, delta)
        self._last = rounded
        return self._shaped(self._given, rounded)

    @abstractmethod
    def _fits(self, x: torch.Tensor) -> bool:
        """Return whether the axes of a batch are those that the layer takes."""

    @abstractmethod
    def _start(self, rounded: torch.Tensor) -> torch.Tensor:
        """Return what is held of a frame of zeros."""

    @abstractmethod
    def _update(self, given: torch.Tensor, rounded: torch.Tensor, delta: torch.Tensor) -> None:
        """Change what is held, in place, from what the frame before gave to what this one does."""

    @abstractmethod
    def _shaped(self, given: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """Return what is held as the layer's output, in memory of its own."""

    def _check(self, x: torch.Tensor) -> None:
        if self.training:
            raise LayerError(
                f"{self.place!r} computes one frame after another and cannot train; call "
                "model.eval(), and train the model before its stream is made"
            )
        if x.shape[:1] != (1,) or not self._fits(x):
            raise DataError(
                f"{self.place!r}, of weights {tuple(self.weight.shape)}, takes one frame at a "
                f"time, a batch of 1, and is given {tuple(x.shape)}; call the model once for every "
                "frame of a clip"
            )
        if self._last is None:
            return
        if x.shape != self._last.shape:
            raise DataError(
                f"{self.place!r} was given {tuple(self._last.shape)} in this clip, and now "
                f"{tuple(x.shape)}; call reset() before another clip"
            )
        if self._of != self._versions():
            raise LayerError(
                f"the weights of {self.place!r} changed within a clip; call reset() first"
            )

    def _versions(self) -> tuple[int, ...]:
        held = [each for each in (self.weight, self.bias) if each is not None]
        held.append(self.rounding.log_step)
        return tuple(n for each in held for n in (each.data_ptr(), each._version))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self.reset()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None, "_given": None, "_of": ()}

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return str(tuple(self.weight.shape))


class DeltaLinear(DeltaLayer):
    """A linear layer that multiplies the columns of its weight whose inputs changed.

    Products are of the deltas, and are added up in float64, so that a long clip stays at the
    rounding of single products. Of several rows, such as a frame's patches, those are multiplied
    that changed, each by the columns that any of them needs.
    """

    def _fits(self, x: torch.Tensor) -> bool:
        return x.dim() > 1 and x.shape[-1] == self.weight.shape[1]

    def _start(self, rounded: torch.Tensor) -> torch.Tensor:
        outputs = len(self.weight)
        given = self.weight.new_zeros(rounded[..., 0].numel(), outputs, dtype=torch.float64)
        return given if self.bias is None else given + self.bias

    def _update(self, given: torch.Tensor, rounded: torch.Tensor, delta: torch.Tensor) -> None:
        delta = delta.flatten(0, -2)
        if not delta.isfinite().all():
            raise DataError(
                f"{self.place!r} is given a frame that is not finite, which would stay in all "
                "later sums; mend the frame, and call reset()"
            )
        changed = delta != 0
        rows = changed.any(dim=1).nonzero().flatten()
        columns = changed.any(dim=0).nonzero().flatten()
        done, all_of_them = len(rows) * len(columns), changed.numel()
        self.products.zeros += (all_of_them - done) * len(self.weight)
        self.products.entries += all_of_them * len(self.weight)
        if done:
            made = delta[rows][:, columns] @ self.weight[:, columns].mT
            given.index_add_(0, rows, made.double())

    def _shaped(self, given: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return given.to(rounded.dtype, copy=True).reshape(*rounded.shape[:-1], -1)


class DeltaConv2d(DeltaLayer):
    """A convolution at the positions whose receptive field saw a change.

    These are computed anew of the rounded input rather than by its delta: this costs as many
    products, and nothing adds up over a clip.

    Raises
    ------
    LayerError
        If the convolution is padded by anything but zeros.
    """

    def __init__(self, layer: nn.Conv2d, rounding: Rounded) -> None:
        super().__init__(layer, rounding)
        self.geometry = Geometry.of(layer)

    def reset(self) -> None:
        """Forget the frame before, and its size."""
        super().reset()
        self._windows: torch.Tensor | None = None

    def _fits(self, x: torch.Tensor) -> bool:
        return x.dim() == 4 and x.shape[1] == self.weight.shape[1] * self.geometry.groups

    def _start(self, rounded: torch.Tensor) -> torch.Tensor:
        height, width = rounded.shape[-2:]
        self._windows = windows(self.geometry, (height, width), rounded.device)
        outputs, positions = len(self.weight), self._windows.shape[1]
        given = rounded.new_zeros(1, outputs, positions)
        return given if self.bias is None else given + self.bias[:, None]

    def _update(self, given: torch.Tensor, rounded: torch.Tensor, delta: torch.Tensor) -> None:
        assert self._windows is not None
        moved = pixels_of((delta != 0).any(dim=1), self.geometry)[0]
        places = moved[self._windows].any(dim=0).nonzero().flatten()
        self.products.zeros += (given.shape[2] - len(places)) * self.weight.numel()
        self.products.entries += given.shape[2] * self.weight.numel()
        if len(places):
            pixels, seen = pixels_of(rounded, self.geometry), self._windows[:, places]
            made = convolve_at(pixels, seen, self.weight, self.bias, self.geometry.groups)
            given.index_copy_(2, places, made)

    def _shaped(self, given: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        height, width = self.geometry.output_size(*rounded.shape[-2:])
        return given.clone().reshape(1, -1, height, width)
