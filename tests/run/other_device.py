"""A device that is not there: tensors that say they lie on it and refuse to meet those that don't.

Under :class:`OtherDevice` tensors can be moved to the device and made on it. The work is done on
the CPU, but an operator on tensors of both devices raises, as on any accelerator. So a test can
show on every machine that code which moves buffers forgets none. Importing this module makes the
device known to torch for the rest of the process.
"""

from __future__ import annotations

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

backend_registration._setup_privateuseone_for_python_backend("elsewhere")
DEVICE = torch.device("elsewhere", 0)
_MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class _Held(torch.Tensor):
    """A tensor of the device, around one on the CPU."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> _Held:
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """Makes :data:`DEVICE` known for as long as it is entered."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    given = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, torch.Tensor)]
    held = {id(item.held): item for item in given if isinstance(item, _Held)}
    apart = [item for item in given if not isinstance(item, _Held) and item.dim() > 0]
    if held and apart and func not in _MOVES:
        raise RuntimeError(f"{func} was given tensors on {DEVICE} and on the CPU")
    device = kwargs.get("device")
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    out = func(*_on_cpu(args), **_on_cpu(kwargs))
    stays = bool(held) if device is None else torch.device(device).type == DEVICE.type
    if func is torch.ops.aten.copy_.default:
        return args[0]
    if not stays:
        return out

    def wrap(item):
        if not isinstance(item, torch.Tensor):
            return item
        return held[id(item)] if id(item) in held else _Held(item)

    return tree_map(wrap, out)


def _on_cpu(tree):
    return tree_map(lambda item: item.held if isinstance(item, _Held) else item, tree)
