"""Semi-structured activation sparsity: positions of feature maps that no convolution computes."""

from __future__ import annotations

__all__ = ["FeatureMaps", "SemiStructuredActivations"]

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import LayerError
from ..core.options import check_number
from ..core.top_k import top_k_mask
from ..parts.activations.attached import OUTPUTS, attach, attached, check_none, detach
from ..parts.activations.positions import Positions
from ..parts.coverage import find_layers
from ..parts.layers import Layer
from ..parts.schedules import Cubic
from ..stream.passes import watched_call
from ..stream.samples import as_samples
from .partial_conv import PartialConv2d


@dataclass(eq=False)
class FeatureMaps:
    """The convolutions of a model, and which positions of their outputs they compute.

    Parameters
    ----------
    model : nn.Module
        Whose they are.
    method : SemiStructuredActivations
        How many positions are left out when.
    layers : list of Layer
        The convolutions.
    sizes : dict of str to tuple of int
        Height and width of their inputs, by name.
    """

    model: nn.Module
    method: SemiStructuredActivations
    layers: list[Layer]
    sizes: dict[str, tuple[int, int]]
    _seen: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def masks(self) -> dict[str, torch.Tensor]:
        """Positions that are computed, by the convolution's name, of shape (height, width)."""
        sides = {layer.name: attached(layer.module)["", OUTPUTS] for layer in self.layers}
        return {name: side.kept for name, side in sides.items() if isinstance(side, Positions)}

    @property
    def density(self) -> float:
        """Share of the convolutions' products that is computed."""
        masks = self.masks
        kept = sum(la.weight.numel() * int(masks[la.name].sum()) for la in self.layers)
        return kept / sum(la.weight.numel() * masks[la.name].numel() for la in self.layers)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Collect how large outputs are, also where they are left out, while the context lasts."""
        handles = [
            layer.module.register_forward_hook(self._noting(layer.name), prepend=True)
            for layer in self.layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def step(self, progress: float) -> None:
        """Choose positions anew, by the outputs that were collected since the last time.

        Parameters
        ----------
        progress : float
            Share of the training that is done, in [0, 1]. After the share that the method settles
            at nothing changes.

        Raises
        ------
        OptionError
            If it is out of range.
        """
        check_number("progress, the share of the training that is done,", progress, most=1)
        if progress > self.method.settled or not self._seen:
            return
        density = Cubic(1 - self.method.sparsity)(progress / self.method.settled)
        for name, mask in self.masks.items():
            kept = max(1, round(density * mask.numel()))
            mask.copy_(top_k_mask(self._seen[name].flatten(), kept).reshape(mask.shape))
        self._seen.clear()

    def compact(self) -> None:
        """Have the convolutions compute their positions alone, for good: it cannot be trained on.

        Raises
        ------
        LayerError
            If a convolution is in groups, or padded by something else than zeros; nothing has been
            changed then.
        """
        masks = self.masks
        made = {
            layer.name: PartialConv2d(layer.module, masks[layer.name], self.sizes[layer.name])
            for layer in self.layers
            if isinstance(layer.module, nn.Conv2d)
        }
        for layer in self.layers:
            detach(layer.module, OUTPUTS)
            self.model.set_submodule(layer.name, made[layer.name])
        self.layers.clear()

    def _noting(self, name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def note(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            size = output.detach().float().abs().sum(dim=tuple(range(output.dim() - 2)))
            self._seen[name] = size + self._seen.get(name, 0)

        return note


@dataclass(frozen=True)
class SemiStructuredActivations(Catalogued):
    """Leave out positions of every convolution's output, the same of all channels and images.

    In the product that a convolution is, each position is a column, so that the product gets as
    much smaller. Those are left out whose outputs are smallest, and the network is trained with
    them: :meth:`attach`, then :meth:`FeatureMaps.step` during the training. The share that is left
    out grows, and from half of the training on, positions stay as they are.

    Parameters
    ----------
    sparsity : float, default 0.2
        Share of the positions of each convolution that is left out, in [0, 1).
    settled : float, default 0.5
        Share of the training after which positions stay, in (0, 1].

    Raises
    ------
    OptionError
        If a value is out of range.

    References
    ----------
    Matteo Grimaldi, Darshan C. Ganji, Ivan Lazarevich, Sudhakar Sah, Accelerating Deep Neural
    Networks via Semi-Structured Activation Sparsity (2023), section 3.
    """

    sparsity: float = 0.2
    settled: float = 0.5
    card = Card(
        name="semi-structured-activations",
        title="Accelerating Deep Neural Networks via Semi-Structured Activation Sparsity",
        authors="Matteo Grimaldi, Darshan C. Ganji, Ivan Lazarevich, Sudhakar Sah",
        year=2023,
        arxiv="2309.06626",
        summary="Leave out the same positions of all channels of a convolution's output.",
    )

    def __post_init__(self) -> None:
        check_number("sparsity, the share of positions left out,", self.sparsity, below=1)
        check_number("settled, a share of the training,", self.settled, above=0, most=1)

    def attach(
        self,
        model: nn.Module,
        data: Any,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> FeatureMaps:
        """Give every convolution of a model a choice of positions, all of them at first.

        Parameters
        ----------
        model : nn.Module
            Whose images are all of one size.
        data : Any
            To see their sizes by, see :func:`thresher.activate`; a sample is enough.
        include, exclude : sequence of str
            Shell patterns of layer names.

        Raises
        ------
        ThresherError
            If there is no convolution of images, the model drops something already, or the data
            cannot be used.
        """
        check_none(model, "take the dense model")
        samples, _ = as_samples(model, data)
        found = find_layers(model, include=include, exclude=exclude)
        layers = [layer for layer in found if type(layer.module) is nn.Conv2d]
        given: dict[str, tuple[torch.Size, torch.Size]] = {}

        def note(name: str, args: Any, output: torch.Tensor) -> None:
            given[name] = (args[0].shape[-2:], output.shape[-2:])

        watched_call(model, {layer.name: layer.module for layer in layers}, samples[0], note)
        layers = [layer for layer in layers if layer.name in given]
        if not layers:
            raise LayerError(
                f"{type(model).__name__} calls no convolution of images, and only these have "
                "positions to leave out; use a method that drops inputs, such as 'teal'"
            )
        for layer in layers:
            kept = torch.ones(given[layer.name][1], dtype=torch.bool, device=layer.weight.device)
            attach(layer.name, layer.module, Positions(kept), OUTPUTS)
        sizes = {name: (shape[0], shape[1]) for name, (shape, _) in given.items()}
        return FeatureMaps(model, self, layers, sizes)
