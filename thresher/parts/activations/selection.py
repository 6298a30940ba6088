"""Selections: which entries of a tensor matter for this token; the others become zero."""

from __future__ import annotations

__all__ = ["RankSplit", "Selection", "Threshold", "TopK"]

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ...core.errors import LayerError
from ...core.named import Named
from ...core.top_k import top_k_mask
from ..elementwise import ACTIVATIONS


class Selection(nn.Module, Named):
    """Sets the entries of a tensor to zero that do not matter for this token.

    An entry counts by its size: its magnitude, or that of what an activation makes of it; of images
    the mean magnitude of the whole channel. Sizes are compared in float32, or in float64 where the
    tensor is: the choice is the same however the model is stored. NaN is never dropped, so that it
    is seen.

    What is calibrated is held in float32, also when the model is converted to a shorter dtype.
    Gradients go straight through, so that a dropped entry hears what a kept one would, unless
    :attr:`straight_through` is False: dropped entries then hear nothing.

    Parameters
    ----------
    positions : int, default 0
        Axes after the channels: 0 for rows of inputs, 2 for images.
    activation : str, optional
        Name of a function of :data:`~thresher.parts.elementwise.ACTIVATIONS` whose value counts.
        It is zero at zero.

    Attributes
    ----------
    place : str
        Layer and side that it is attached to, for messages and counts.
    """

    kind = "selection"
    #: The tensors that are calibrated, by their names.
    held: ClassVar[tuple[str, ...]] = ()
    straight_through = True

    def __init__(self, positions: int = 0, activation: str | None = None) -> None:
        super().__init__()
        self.positions, self.activation = positions, activation
        self.place = ""

    @abstractmethod
    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Return which entries of `x` become zero, a mask that broadcasts to its shape."""

    @property
    def settings(self) -> dict[str, Any]:
        """What :meth:`of` takes besides the tensors, as JSON can hold it."""
        return {"positions": self.positions, "activation": self.activation}

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the selection that has these tensors and settings."""
        make: Any = cls
        made: Self = make(*(tensors[name] for name in cls.held), **settings)
        return made

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what is calibrated, by :attr:`held`."""
        return {name: self.get_buffer(name) for name in self.held}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with the entries that do not matter set to zero."""
        dropped = self.dropped(x)
        if self.straight_through and torch.is_grad_enabled() and x.requires_grad:
            kept: torch.Tensor = _StraightThrough.apply(x, dropped)  # type: ignore[no-untyped-call]
            return kept
        return x.masked_fill(dropped, 0)

    def sizes(self, x: torch.Tensor) -> torch.Tensor:
        """Return by what entries count, in float32 at least: (..., channels, 1, ...)."""
        wide = x if x.dtype == torch.float64 else x.float()
        if self.activation is not None:
            wide = ACTIVATIONS[self.activation](wide)
        size = wide.abs()
        if self.positions:
            size = size.mean(dim=tuple(range(-self.positions, 0)), keepdim=True)
        return size

    def along(self, values: torch.Tensor) -> torch.Tensor:
        """Return one value, or one for every channel, as it broadcasts to sizes."""
        return values.reshape(-1, *(1,) * self.positions) if values.dim() else values

    @property
    def drifts(self) -> bool:
        """Whether what was calibrated becomes outdated when the weights train."""
        return True

    def train(self, mode: bool = True) -> Self:
        """Set the mode; warn where a model begins to train, and thresholds stay as they were."""
        if mode and not self.training and self.drifts:
            warnings.warn(
                "the thresholds of activation sparsity stay as they were calibrated while the "
                "weights train, so that the shares of inputs that they drop drift; call "
                "thresher.activate again afterwards",
                stacklevel=2,
            )
        return super().train(mode)

    def extra_repr(self) -> str:
        """Describe the selection in ``print(model)``."""
        shapes = [f"{name}={tuple(tensor.shape)}" for name, tensor in self.tensors().items()]
        return ", ".join(shapes + ([f"activation={self.activation}"] if self.activation else []))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        for name, buffer in self._buffers.items():
            if buffer is not None:
                moved = fn(buffer)
                same = moved.dtype == buffer.dtype
                self._buffers[name] = moved if same else buffer.to(moved.device)
        return self


class _StraightThrough(torch.autograd.Function):
    """Sets entries to zero, and hands their gradient on as if it had not."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
        """Return `x` without what is dropped."""
        return x.masked_fill(dropped, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient as it is."""
        return gradients[0], None


class Threshold(Selection):
    """Drops what is smaller than a threshold.

    Parameters
    ----------
    threshold : Tensor of shape () or (channels,)
        At zero everything is kept, as it is.
    positions, activation
        See :class:`Selection`.
    """

    name = "threshold"
    held: ClassVar[tuple[str, ...]] = ("threshold",)
    threshold: torch.Tensor

    def __init__(
        self, threshold: torch.Tensor, positions: int = 0, activation: str | None = None
    ) -> None:
        super().__init__(positions, activation)
        self.register_buffer("threshold", threshold.detach().float())

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is below the threshold."""
        return self.sizes(x) < self.along(self.threshold)


class TopK(Selection):
    """Keeps as many of each token's entries, those with the largest size times scale.

    Parameters
    ----------
    scale : Tensor of shape () or (channels,)
        What an entry is worth besides its size.
    kept : int
        Entries per token, or channels per image.
    positions, activation
        See :class:`Selection`.
    straight_through : bool, default True
        Whether dropped entries hear the gradient of kept ones; False is the gradient of the product
        with the mask.
    """

    name = "top-k"
    held: ClassVar[tuple[str, ...]] = ("scale",)
    scale: torch.Tensor

    def __init__(
        self,
        scale: torch.Tensor,
        kept: int,
        positions: int = 0,
        activation: str | None = None,
        straight_through: bool = True,
    ) -> None:
        super().__init__(positions, activation)
        self.kept, self.straight_through = kept, straight_through
        self.register_buffer("scale", scale.detach().float())

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`Selection`."""
        settings = {"kept": self.kept, **super().settings}
        return settings if self.straight_through else {**settings, "straight_through": False}

    @property
    def drifts(self) -> bool:
        """Whether channels are weighed by what the weights were; a number alone stays right."""
        return self.scale.dim() > 0

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Return all but the largest."""
        worth = self.sizes(x) * self.along(self.scale)
        mask: torch.Tensor = ~top_k_mask(worth, self.kept, axis=-1 - self.positions)
        return mask

    def extra_repr(self) -> str:
        """Describe the selection in ``print(model)``."""
        return f"kept={self.kept}, {super().extra_repr()}"


class RankSplit(Threshold):
    """Drops what is below a threshold, and has a matrix of low rank stand in for it.

    The layer then gives ``W s(x) + left right (x - s(x))``, where ``left right`` is near `W`.
    Gradients are those of this sum.

    Parameters
    ----------
    threshold : Tensor of shape () or (channels,)
        See :class:`Threshold`.
    left : Tensor of shape (outputs, rank)
    right : Tensor of shape (rank, channels)
        Held in the dtype of the weights.
    """

    name = "rank-split"
    held: ClassVar[tuple[str, ...]] = ("threshold", "left", "right")
    left: torch.Tensor
    right: torch.Tensor

    def __init__(
        self, threshold: torch.Tensor, left: torch.Tensor, right: torch.Tensor, **settings: Any
    ) -> None:
        super().__init__(threshold, **settings)
        if settings.get("positions"):
            raise LayerError("a convolution has no split by rank; leave it dense (exclude=)")
        self.register_buffer("left", left.detach())
        self.register_buffer("right", right.detach())
        self._rest: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the entries that are kept; the rest waits for the product."""
        kept = x.masked_fill(self.dropped(x), 0)
        self._rest = x - kept
        return kept

    def completed(self, output: torch.Tensor) -> torch.Tensor:
        """Return the layer's product with what stands in for the dropped entries added."""
        rest, self._rest = self._rest, None
        if rest is None:  # it came to the layer while this was in the middle of a call
            return output
        left, right = self.left.to(output.dtype), self.right.to(output.dtype)
        return output + (rest.to(output.dtype) @ right.mT) @ left.mT

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for name in ("left", "right"):
            self._buffers[name] = fn(self.get_buffer(name))
        return self
