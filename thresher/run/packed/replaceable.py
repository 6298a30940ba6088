"""Dense layers, of derived classes too: whether a packed one would do what they do."""

from __future__ import annotations

__all__ = ["PACKED_DTYPES", "computes_as", "used_elsewhere"]

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

PACKED_DTYPES = (torch.float32, torch.bfloat16)


def used_elsewhere(model: nn.Module) -> dict[nn.Module, str]:
    """Return modules whose weight is not just what their own call multiplies, and what it is.

    Parameters
    ----------
    model : nn.Module
        Any module, also without data.
    """
    reasons: dict[nn.Module, str] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            reasons[module.out_proj] = "MultiheadAttention multiplies its weight itself"
        if parametrize.is_parametrized(module):
            reasons[module] = "it is computed anew; torch's remove_parametrizations makes it fixed"
    return reasons


def computes_as(module: nn.Linear | nn.Conv2d, base: type[nn.Linear] | type[nn.Conv2d]) -> bool:
    """Return whether a module, perhaps of a derived class, is `base` to its inputs.

    It may hold nothing but weight and bias, which today's values could hide (an adapter starts
    at zero), and must return what `base` returns on inputs of several shapes and sizes.

    Parameters
    ----------
    module : nn.Linear or nn.Conv2d
        Of a module on the meta device, a copy with random weights is asked.
    base : type
        ``nn.Linear`` or ``nn.Conv2d``.
    """
    if type(module) is base and "forward" not in vars(module):
        return True
    held = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    if held - {"weight", "bias"} or any(module.children()):
        return False
    if module.weight.dtype not in PACKED_DTYPES:
        return True  # refused for its type, which is the better reason
    with torch.no_grad():
        if module.weight.is_meta:
            module = _with_numbers(module)
        return all(_agree(module, base, x) for x in _probes(module))


def _with_numbers(module: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    drawn = copy.deepcopy(module).to_empty(device="cpu")
    seeded = torch.Generator().manual_seed(0)
    for parameter in drawn.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=seeded))
    return drawn


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
