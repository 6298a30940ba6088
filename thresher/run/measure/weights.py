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
from .candidates import PACKED_DTYPES, Candidate, candidate_of
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
    elsewhere = _used_elsewhere(model)
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


def _used_elsewhere(model: nn.Module) -> dict[nn.Module, str]:
    """Return modules whose weight is not just what their own call multiplies, and what it is."""
    reasons: dict[nn.Module, str] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            reasons[module.out_proj] = "MultiheadAttention multiplies its weight itself"
        if parametrize.is_parametrized(module):
            reasons[module] = "it is computed anew; torch's remove_parametrizations makes it fixed"
    return reasons


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
    if not _computes_as(module, base):
        return f"{type(module).__name__} does not compute what {base.__name__} does"
    return ""


def _computes_as(module: nn.Linear | nn.Conv2d, base: type[nn.Linear] | type[nn.Conv2d]) -> bool:
    """Return whether a module, perhaps of a derived class, is `base` to its inputs.

    It may hold nothing but weight and bias, which today's values could hide (an adapter starts
    at zero), and must return what `base` returns on inputs of several shapes and sizes.
    """
    if type(module) is base and "forward" not in vars(module):
        return True
    held = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    if held - {"weight", "bias"} or any(module.children()):
        return False
    if module.weight.dtype not in PACKED_DTYPES:
        return True  # refused for its type, which is the better reason
    with torch.no_grad():
        return all(_agree(module, base, x) for x in _probes(module))


def _agree(module: nn.Module, base: Any, x: Tensor) -> bool:
    try:
        found = module(x)
    except Exception:  # whatever a foreign layer raises, it is not a linear layer
        return False
    expected = base.forward(module, x)
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    allowed = 16 * torch.finfo(x.dtype).eps * float(expected.abs().max())
    return found.dtype == expected.dtype and bool(((found - expected).abs() <= allowed).all())


def _probes(module: nn.Linear | nn.Conv2d) -> Iterator[Tensor]:
    shape: tuple[int, ...] = (3, module.weight.shape[1])
    if isinstance(module, nn.Conv2d):
        spans = zip(module.kernel_size, module.dilation, strict=True)
        shape = (2, module.in_channels, *(d * (k - 1) + 4 for k, d in spans))
    elif module.weight.dim() != 2:
        return
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(module.weight.device, module.weight.dtype)
    yield from (x, 100 * x, x[:1])
    if x.dim() == 2:
        yield x[None]


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
