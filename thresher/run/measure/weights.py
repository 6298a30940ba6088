"""Every weight of a model: those that can be packed, and why the others cannot."""

from __future__ import annotations

__all__ = ["Found", "find_weights"]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...core.errors import LayerError
from ..packed.layer import PackedLayer
from ..packed.replaceable import computes_as, used_elsewhere
from .candidates import Candidate, candidate_of
from .modes import evaluating


@dataclass(frozen=True)
class Found:
    """One weight of a model.

    Parameters
    ----------
    name : str
        Of the layer whose ``weight`` it is, else of the parameter.
    weight : Tensor
        Dense, of two dimensions or more.
    share : float
        Of all parameters of the model; 0 where another row has counted the same parameter.
    candidate : Candidate or None
        What packing can try with it.
    reason : str
        Why there is nothing to try; empty where there is.
    """

    name: str
    weight: Tensor
    share: float
    candidate: Candidate | None
    reason: str = ""


def find_weights(model: nn.Module, example: Tensor | None = None) -> Iterator[Found]:
    """Yield every weight of a model that is a matrix or more.

    Linear layers and convolutions are candidates, those of a derived class too when a call shows
    that they compute what their base does; other weights have a reason. A layer that the model
    names twice is found once, under its first name.

    Parameters
    ----------
    model : nn.Module
        Any module.
    example : Tensor, optional
        An input of the model, from which the sizes of the images that reach convolutions are read.

    Raises
    ------
    LayerError
        If the model does not run on `example`, or a weight has no data.
    """
    for name, parameter in model.named_parameters():
        _require_data(name, parameter)
    images = {} if example is None else _image_sizes(model, example)
    total = max(1, sum(parameter.numel() for parameter in model.parameters()))
    elsewhere = used_elsewhere(model)
    counted: dict[int, Tensor] = {}  # held, so that no other can come to lie in the same place
    for name, module in model.named_modules():
        for full, weight in _weights(name, module):
            share = 0.0 if id(weight) in counted else weight.numel() / total
            counted[id(weight)] = weight
            reason = elsewhere.get(module) or _why_not(module)
            candidate = None if reason else candidate_of(module, images.get(name))
            yield Found(full, weight, share, candidate, reason)


def _weights(name: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a module's own weights of two dimensions or more, with their names in the table."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        yield name, module.weight  # a tensor only, where it is computed from other parameters
    elif not isinstance(module, PackedLayer | parametrize.ParametrizationList):
        for local, parameter in module.named_parameters(recurse=False):
            if sum(size > 1 for size in parameter.shape) > 1:
                yield name if local == "weight" else f"{name}.{local}".strip("."), parameter


def _require_data(name: str, weight: Tensor) -> None:
    if nn.parameter.is_lazy(weight) or weight.is_meta:
        raise LayerError(
            f"parameter {name!r} has no data: load the whole model into memory (not on the meta "
            "device, not offloaded), or run it once if its layers are lazy, before packing"
        )


def _why_not(module: nn.Module) -> str:
    """Return why no packed layer does what a module does; empty where one would."""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return f"{type(module).__name__} has no packed form"
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    if any(hooks) or module._backward_pre_hooks:
        return "it has hooks, which a packed layer would lose"
    base = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
    if not computes_as(module, base):
        return f"{type(module).__name__} does not compute what {base.__name__} does"
    return ""


def _image_sizes(model: nn.Module, example: Tensor) -> dict[str, tuple[int, int]]:
    """Return height and width of what reaches each convolution, by name."""
    sizes: dict[str, tuple[int, int]] = {}
    handles = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue

        def note(module: nn.Module, inputs: Any, keywords: Any, name: str = name) -> None:
            image = inputs[0] if inputs else keywords["input"]
            sizes[name] = (image.shape[-2], image.shape[-1])

        handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with torch.no_grad(), evaluating(model):
            model(example)
    except RuntimeError as error:
        raise LayerError(
            f"the model does not run on the example of shape {tuple(example.shape)} and "
            f"{example.dtype}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return sizes
