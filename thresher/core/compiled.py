"""Models of which ``torch.compile`` has wrapped the whole, or parts."""

from __future__ import annotations

__all__ = ["uncompiled"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uncompiled(model: Any) -> Iterator[Any]:
    """Have the modules that were compiled in the place of their wrappers, under their own names.

    Parameters
    ----------
    model : nn.Module
        Changed while the context lasts. Its wrappers come back where nothing has taken their
        place.

    Yields
    ------
    nn.Module
        The model itself, without a wrapper.
    """
    inner = getattr(model, "_orig_mod", model)
    wrapped = [
        (holder, name, part)
        for holder in inner.modules()
        for name, part in holder._modules.items()
        if part is not None and "_orig_mod" in part._modules
    ]
    for holder, name, part in wrapped:
        holder._modules[name] = part._orig_mod
    try:
        yield inner
    finally:
        for holder, name, part in wrapped:
            if holder._modules.get(name) is part._orig_mod:
                holder._modules[name] = part
