"""What a forward pass is surrounded by: settings of the thread that its ``with`` blocks change.

A pass that is halted inside ``with torch.autocast(...):`` leaves the thread in autocast, and
passes that are halted side by side do not leave their blocks in the order in which they entered
them. So what is set inside a pass is put away whenever it is left, and what was set outside is
put away whenever it is entered.
"""

from __future__ import annotations

__all__ = [
    "Settings",
    "Surroundings",
    "check_not_transformed",
    "entanglements",
    "keeping",
    "within",
]

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..core.errors import DataError

#: How one setting is read and set.
Pair = tuple[Callable[[], Any], Callable[[Any], Any]]

_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia")
#: Read and set by functions of ``torch._C`` alone, which older versions may lack.
_FLAGS = {
    "_get_flash_sdp_enabled": "_set_sdp_use_flash",
    "_get_mem_efficient_sdp_enabled": "_set_sdp_use_mem_efficient",
    "_get_math_sdp_enabled": "_set_sdp_use_math",
    "_get_cudnn_sdp_enabled": "_set_sdp_use_cudnn",
    "_get_overrideable_sdp_enabled": "_set_sdp_use_overrideable",
    "_get_cudnn_enabled": "_set_cudnn_enabled",
    "_get_mkldnn_enabled": "_set_mkldnn_enabled",
}


def _set_filters(filters: Any) -> None:
    warnings.filters = filters
    # Warnings are remembered by the filters that they met.
    getattr(warnings, "_filters_mutated", lambda: None)()


def _attribute(holder: Any, name: str) -> Pair:
    if not hasattr(holder, name):
        return (lambda: None), (lambda value: None)
    return (lambda: getattr(holder, name)), (lambda value: setattr(holder, name, value))


def _autocast(device: str) -> list[Pair]:
    if not torch.amp.is_autocast_available(device):
        return []
    enabled = functools.partial(torch.is_autocast_enabled, device)
    dtype = functools.partial(torch.get_autocast_dtype, device)
    return [
        (enabled, functools.partial(torch.set_autocast_enabled, device)),
        (dtype, functools.partial(torch.set_autocast_dtype, device)),
    ]


@functools.cache
def _pairs() -> list[Pair]:
    flags = [
        (getattr(torch._C, get), getattr(torch._C, set_))
        for get, set_ in _FLAGS.items()
        if hasattr(torch._C, get) and hasattr(torch._C, set_)
    ]
    return [
        *(pair for device in _DEVICES for pair in _autocast(device)),
        (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
        *flags,
        (lambda: warnings.filters, _set_filters),
        _attribute(warnings, "showwarning"),
        _attribute(warnings, "_showwarnmsg_impl"),
        _attribute(sys, "stdout"),
        _attribute(sys, "stderr"),
    ]


class Settings:
    """What can be read and set at any time: autocast, default dtype, flags, warnings' filters."""

    def __init__(self) -> None:
        self._values = [get() for get, _ in _pairs()]
        self._depth = _autocast_depth()

    def put(self) -> None:
        """Set everything as it was when this was made."""
        for (get, set_), value in zip(_pairs(), self._values, strict=True):
            found = get()
            if found is not value and (type(value) is list or found != value):
                set_(value)
        depth = _autocast_depth()
        if depth or self._depth:
            # Weights converted before may have been pruned since.
            torch.clear_autocast_cache()
        for _ in range(self._depth, depth):
            torch.autocast_decrement_nesting()
        for _ in range(depth, self._depth):
            torch.autocast_increment_nesting()


def _autocast_depth() -> int:
    """Return in how many autocast blocks the thread is."""
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return int(depth)


@contextmanager
def within(settings: Settings | None) -> Iterator[None]:
    """Have the settings of a pass that was left, while the context lasts."""
    outside = Settings()
    if settings is not None:
        settings.put()
    try:
        yield
    finally:
        outside.put()


class Surroundings:
    """The settings, and with them inference mode and whether gradients are taken.

    Those are put back once; an object that is made must be put back.

    Attributes
    ----------
    settings : Settings
    """

    def __init__(self) -> None:
        self.settings = Settings()
        grad = torch.is_grad_enabled()
        # Leaving inference mode sets all that it covers back as it was on entering, whatever
        # other blocks have been entered or left meanwhile.
        self._guard = torch.inference_mode(torch.is_inference_mode_enabled())
        self._guard.__enter__()
        torch.set_grad_enabled(grad)

    def put(self) -> None:
        """Set everything as it was when this was made."""
        self._guard.__exit__(None, None, None)
        self.settings.put()


@contextmanager
def keeping() -> Iterator[None]:
    """Have everything set afterwards as it was before, though a pass ends in its middle."""
    outside = Surroundings()
    try:
        yield
    finally:
        outside.put()


def entanglements() -> tuple[Any, ...]:
    """Return what surrounds a pass and cannot be set: modes of functions, transforms of them.

    A pass that is halted inside such a block cannot be left, since all else would run in it.
    """
    functions = range(torch._C._len_torch_function_stack())
    operations = range(torch._C._len_torch_dispatch_stack())
    return (
        [torch._C._get_function_stack_at(n) for n in functions],
        [torch._C._get_dispatch_stack_at(n) for n in operations],
        torch._C._is_torch_function_enabled(),
        torch._C._functorch.maybe_current_level(),
    )


def check_not_transformed(name: str) -> None:
    """Raise DataError inside ``torch.vmap`` and its like, whose tensors cannot be kept."""
    if torch._C._functorch.maybe_current_level() is not None:
        raise DataError(
            f"{name!r} is called inside torch.vmap or another transform of torch.func, where what "
            "it is given cannot be kept; prune the model as it is called without one"
        )
