"""Delta activations: networks for video that train to change little from frame to frame."""

from __future__ import annotations

__all__ = ["DeltaActivations", "FrameDeltas", "FrameStream"]

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError, LayerError
from ..core.options import check_number, check_whole
from ..parts.activations.attached import INPUTS, Tally, attach, attached, check_none, detach
from ..parts.activations.rounded import Rounded
from ..parts.coverage import find_layers
from ..parts.layers import Layer
from ..stream.passes import watched_call
from ..stream.samples import as_samples
from .delta_layers import DeltaConv2d, DeltaLayer, DeltaLinear
from .penalty import HiddenPenalty

_STREAMED: dict[type[nn.Module], Callable[[Any, Rounded], DeltaLayer]] = {
    nn.Linear: DeltaLinear,
    nn.Conv2d: DeltaConv2d,
}


@dataclass(frozen=True, eq=False)
class FrameStream:
    """A model that is called with one frame of a clip after another.

    Parameters
    ----------
    model : nn.Module
        Its layers hold the frame before.
    layers : dict of str to DeltaLayer
        By name.
    """

    model: nn.Module
    layers: dict[str, DeltaLayer]

    def reset(self) -> None:
        """Begin another clip."""
        for layer in self.layers.values():
            layer.reset()

    @property
    def operands(self) -> Tally:
        """Inputs of layers in all frames so far, and how many had not changed."""
        return _sum([layer.operands for layer in self.layers.values()])

    @property
    def products(self) -> Tally:
        """Products of dense layers in all frames so far, and how many were left out."""
        return _sum([layer.products for layer in self.layers.values()])


@dataclass(frozen=True, eq=False)
class FrameDeltas:
    """The layers of a model whose inputs are rounded, to be trained and then streamed.

    Parameters
    ----------
    model : nn.Module
        Whose they are.
    method : DeltaActivations
        What a change costs.
    layers : list of Layer
        Linear layers and convolutions.
    """

    model: nn.Module
    method: DeltaActivations
    layers: list[Layer]

    @property
    def roundings(self) -> dict[str, Rounded]:
        """What rounds the inputs, by the layer's name; their steps are parameters of the model."""
        sides = {layer.name: attached(layer.module).get(("", INPUTS)) for layer in self.layers}
        return {name: side for name, side in sides.items() if isinstance(side, Rounded)}

    @contextmanager
    def penalised(self, frames: int) -> Iterator[HiddenPenalty]:
        """Collect what frames change while the context lasts.

        Parameters
        ----------
        frames : int
            Of a clip. They follow each other along the first axis of the inputs of layers, clip
            after clip.

        Yields
        ------
        HiddenPenalty
            To be called after every pass, and its value added to the loss: the mean over layers,
            frames and inputs of how many steps an input changes, times the method's weight. The
            first frame of a clip counts in full, as it does in the stream. Its ``density`` is the
            share of inputs that change.

        Raises
        ------
        OptionError
            If the number is none.
        DataError
            In a pass, if a layer is given something else than whole clips.
        """
        check_whole("frames, of a clip,", frames)
        collected = HiddenPenalty()
        handles = [
            rounding.register_forward_hook(self._noting(name, frames, collected))
            for name, rounding in self.roundings.items()
        ]
        try:
            yield collected
        finally:
            for handle in handles:
                handle.remove()

    def stream(self) -> FrameStream:
        """Have the layers compute what changes from frame to frame alone, for good.

        The model then takes one frame at a time, and gives of each what it would give of it in a
        clip, to the rounding of sums; an input so near to the edge between two steps that this
        rounding tips it over may differ by a step. It cannot be trained on.

        Returns
        -------
        FrameStream
            To be reset before every clip.

        Raises
        ------
        LayerError
            If a convolution is padded by anything but zeros, a layer has hooks of somebody else,
            which would be lost, the model is itself a layer, or there is none that rounds its
            inputs (any more); nothing has been changed then.
        """
        if not self.roundings or "" in self.roundings:
            raise LayerError(
                f"{type(self.model).__name__} holds no layer that rounds its inputs: attach to a "
                "model that has layers (torch.nn.Sequential(layer) is one), and stream it once"
            )
        made = {}
        for name, rounding in self.roundings.items():
            module = self.model.get_submodule(name)
            if len(module._forward_pre_hooks) > 1 or module._forward_hooks:
                raise LayerError(
                    f"layer {name!r} has hooks, which its stream would not call; remove them"
                )
            try:
                made[name] = _STREAMED[type(module)](module, rounding)
            except LayerError as error:
                raise LayerError(
                    f"layer {name!r}: {error}; leave it out where you attach (exclude=)"
                ) from error
        streamed = {id(self.model.get_submodule(name)): layer for name, layer in made.items()}
        for name, module in list(self.model.named_modules(remove_duplicate=False)):
            if id(module) in streamed:
                detach(module, INPUTS)
                self.model.set_submodule(name, streamed[id(module)])
        self.layers.clear()
        return FrameStream(self.model, made)

    def _noting(
        self, name: str, frames: int, collected: HiddenPenalty
    ) -> Callable[[Rounded, Any, torch.Tensor], None]:
        def note(rounding: Rounded, args: Any, output: torch.Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            if len(output) % frames:
                raise DataError(
                    f"layer {name!r} is given {tuple(output.shape)}, and {len(output)} is no "
                    f"whole number of clips of {frames} frames; leave the layer out where you "
                    "attach (exclude=) if its first axis is none of frames"
                )
            levels = rounding.levels(args[0]).unflatten(0, (-1, frames))
            changes = torch.diff(levels, dim=1, prepend=torch.zeros_like(levels[:, :1]))
            collected.add(name, changes, lambda each: self.method.weight * each.abs())

        return note


@dataclass(frozen=True)
class DeltaActivations(Catalogued):
    """Round the inputs of layers, and train them to stay the same from frame to frame.

    What a layer is given is rounded to whole steps, so that what changes little does not change,
    and a stream of frames needs the products of what does alone. :meth:`attach`; then train with
    what :meth:`FrameDeltas.penalised` adds to the loss, from scratch or to refine a trained model;
    then :meth:`FrameDeltas.stream`. The steps train too, each layer's own: they are parameters of
    the model from :meth:`attach` on, so that the optimizer has to be made after it.

    Parameters
    ----------
    step : float, default 0.1
        At first, as a share of the root mean square of the layer's inputs.
    weight : float, default 1.0
        Of the mean change, in steps, in the loss.

    Raises
    ------
    OptionError
        If a value is out of range.

    Notes
    -----
    The change is counted in steps, so that the penalty makes steps longer as well as changes
    smaller. A model that mixes frames, by batch normalisation in training mode or by a mean over a
    clip, does so in the batch alone: what it computes of one frame has to be its own in a stream.

    References
    ----------
    Amirreza Yousefzadeh, Manolis Sifalakis, Training for temporal sparsity in deep neural networks,
    application in video processing (2021).
    """

    step: float = 0.1
    weight: float = 1.0
    card = Card(
        name="delta-activations",
        title="Training for temporal sparsity in deep neural networks, application in video "
        "processing",
        authors="Amirreza Yousefzadeh, Manolis Sifalakis",
        year=2021,
        arxiv="2107.07305",
        summary="Train activations to stay the same from frame to frame, and multiply the changes.",
    )

    def __post_init__(self) -> None:
        check_number("step, a share of the inputs' size,", self.step, above=0)
        check_number("weight, of the changes in the loss,", self.weight)

    def attach(
        self,
        model: nn.Module,
        data: Any,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> FrameDeltas:
        """Round the inputs of every linear layer and convolution of images.

        Parameters
        ----------
        model : nn.Module
            Called with frames along the first axis.
        data : Any
            Frames to measure the size of inputs by, see :func:`thresher.activate`; a sample is
            enough.
        include, exclude : sequence of str
            Shell patterns of layer names.

        Raises
        ------
        ThresherError
            If there is no such layer, one is given zeros alone, the model drops something already,
            or the data cannot be used.
        """
        check_none(model, "take the dense model")
        samples, _ = as_samples(model, data)
        found = find_layers(model, include=include, exclude=exclude)
        found = [layer for layer in found if type(layer.module) in _STREAMED]
        sizes: dict[str, float] = {}

        def note(name: str, args: Any, output: Any) -> None:
            sizes[name] = _size(name, args[0])

        watched_call(model, {layer.name: layer.module for layer in found}, samples[0], note)
        layers = [layer for layer in found if layer.name in sizes]
        if not layers:
            raise LayerError(
                f"{type(model).__name__} calls no linear layer or convolution of images, and only "
                "the inputs of these are rounded"
            )
        for layer in layers:
            log_step = torch.tensor(math.log(self.step * sizes[layer.name]))
            attach(layer.name, layer.module, Rounded(log_step).to(layer.weight.device))
        return FrameDeltas(model, self, layers)


def _size(name: str, inputs: torch.Tensor) -> float:
    size = float(inputs.double().square().mean().sqrt())
    if not 0 < size < math.inf:
        raise DataError(
            f"layer {name!r} is given inputs of size {size} by the first sample, which no step "
            "fits; give frames that are finite and not all zeros"
        )
    return size


def _sum(tallies: Sequence[Tally]) -> Tally:
    return Tally(sum(each.zeros for each in tallies), sum(each.entries for each in tallies))
